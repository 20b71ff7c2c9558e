"""What was done to one scan, and all that is needed to go back: plain data.

S is the prepared shape.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from nidl_core.errors import InvalidParameter
from nidl_core.registry import unknown_parameter
from nidl_neuro.grid import Grid, by
from nidl_neuro.intensity import HIGH, LOW

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Record:
    """How one scan was prepared. `str(record)` says it in a line.

    The `own_` fields are the scan's; `header` is its NIfTI-1 header (348 bytes, little-endian, in
    base64). `resampled_` fields are of the canonical grid after resampling, None where the scan
    kept its voxels. The prepared voxel 0 has index `start` there, negative where it was padded.
    """

    name: str
    own_shape: tuple[int, ...]
    own_affine: Rows
    header: str
    resampled_shape: tuple[int, ...] | None
    resampled_affine: Rows | None
    interpolation: str
    smoothed: tuple[float, ...]  # FWHM along each canonical axis before resampling, mm
    start: tuple[int, ...]
    shape: tuple[int, ...]  # S
    mask: str
    mask_voxels: int  # in the prepared mask
    mask_cut: int  # voxels of the mask that the crop cut off
    intensity: str
    shift: float  # prepared = (scanned - shift) / scale
    scale: float
    background: float  # what was padded with, in scanner units
    dtype: str

    @property
    def own_grid(self) -> Grid:
        """The scan's own grid."""
        return Grid(self.own_shape[:3], np.array(self.own_affine))

    @property
    def whole_grid(self) -> Grid:
        """The canonical grid after resampling, before crop and pad."""
        if self.resampled_shape is None:
            return self.own_grid.canonical()[0]
        return Grid(self.resampled_shape, np.array(self.resampled_affine))

    @property
    def affine(self) -> NDArray[np.float64]:
        """The affine (4, 4) of the prepared array, RAS+."""
        return np.asarray(self.whole_grid.window(self.start, self.shape).affine)

    def own_header(self) -> Nifti1Header:
        """A copy of the scan's header."""
        return Nifti1Header(base64.b64decode(self.header), endianness="<", check=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; nothing is rounded."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """From what `to_dict` gave, before or after JSON."""
        accepted = [field.name for field in fields(cls)]
        for key in data:
            if key not in accepted:
                raise unknown_parameter("Record", key, accepted)
        missing = [key for key in accepted if key not in data]
        if missing:
            raise InvalidParameter("data", sorted(data), f"all keys, with {', '.join(missing)}")
        return cls(**{key: _frozen(value) for key, value in data.items()})

    def __str__(self) -> str:
        own, whole = self.own_grid, self.whole_grid
        done = [own.orientation if own.orientation == "RAS" else f"{own.orientation} -> RAS"]
        if self.resampled_shape is None:
            done.append(f"{by(whole.voxel_size)} mm kept")
        else:
            blur = f", blurred by {by(self.smoothed)} mm" if any(self.smoothed) else ""
            done.append(
                f"resampled {by(own.canonical()[0].voxel_size)} -> {by(whole.voxel_size)} mm "
                f"({self.interpolation}{blur})"
            )
            if not own.orthogonal:
                done.append("sheared axes straightened")
        done += [self._cut(whole), self._scaled()]
        return f"{self.name}: {', '.join(part for part in done if part)}"

    def _cut(self, whole: Grid) -> str:
        if self.shape == tuple(whole.shape):
            return f"{by(self.shape)} kept"
        pairs = list(zip(self.shape, whole.shape, strict=True))
        verbs = ["cropped"] * any(s < n for s, n in pairs)
        verbs += ["padded"] * any(s > n for s, n in pairs)
        text = f"{' and '.join(verbs)} {by(whole.shape)} -> {by(self.shape)}"
        return text + (f" ({self.mask_cut} voxels of the mask cut off)" if self.mask_cut else "")

    def _scaled(self) -> str:
        where = f"in a mask of {self.mask_voxels} voxels"
        if self.mask == "none":
            where = f"over {self.mask_voxels} voxels"
        if self.intensity == "zscore":
            numbers = f"mean {_number(self.shift)}, sd {_number(self.scale)}"
            return f"z-scored {where} ({numbers})"
        if self.intensity == "percentiles":
            ends = f"{_number(self.shift)} -> 0, {_number(self.shift + self.scale)} -> 1"
            return f"scaled by percentiles {LOW:g} and {HIGH:g} {where} ({ends})"
        return "intensities kept" + (
            "" if self.mask == "none" else f", mask of {self.mask_voxels} voxels"
        )


def header_of(image: SpatialImage) -> str:
    """The header of an image as `Record.header`; from other formats than NIfTI, what NIfTI can hold."""
    shell = nibabel.Nifti1Image(
        np.broadcast_to(np.float32(0), image.shape), image.affine, image.header
    )
    return base64.b64encode(shell.header.as_byteswapped("<").binaryblock).decode()


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
