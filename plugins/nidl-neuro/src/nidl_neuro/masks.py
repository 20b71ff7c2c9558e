"""Masks of the brain: given once and kept as data, or laid by a template."""

from __future__ import annotations

import base64
import functools
import inspect
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage

from nidl_core.errors import InvalidParameter
from nidl_core.registry import unknown_parameter
from nidl_neuro.errors import ScanError
from nidl_neuro.grid import Grid, reorient, resample, smooth, smoothing, window
from nidl_neuro.voxels import checked_grid

_RIM = 10  # mm around the brain of the template, in which it is blurred and ends


@dataclass(frozen=True)
class GivenMask:
    """A mask as plain data, so that a saved model needs no further file.

    `affine` is None for a mask that was given as a bare array. `voxels`: one bit each in C order,
    compressed by zlib, in base64.
    """

    name: str
    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...] | None
    voxels: str

    @classmethod
    def read(cls, source: Any) -> GivenMask:
        """From a path (an image that nibabel reads, or `.npy`), an image or an array (*S).

        Raises `ScanError` for what cannot be read, has not three axes, is empty, or is no mask.
        """
        if isinstance(source, Mapping):
            return cls.from_dict(source)
        name, values, grid = _read(source)
        if values.ndim != 3 or values.dtype.kind not in "biuf":
            told = f"a mask of shape {values.shape} and type {values.dtype}"
            raise ScanError(name, told, "Give one with three axes, of 0 and 1.")
        inside = values != 0
        if not inside.any():
            raise ScanError(name, "the mask is empty", "Give one with voxels that are not 0.")
        if values[inside].min() != values[inside].max():  # so it is of NaN
            raise ScanError(
                name,
                "a mask holds 0 and one other value, this one holds more",
                "Threshold it: mask = probability > 0.5.",
            )
        packed = zlib.compress(np.packbits(inside).tobytes(), 9)
        rows = None if grid is None else grid.rows
        called = os.path.basename(name)  # it goes into models: where it lay is nobody's business
        return cls(called, tuple(values.shape), rows, base64.b64encode(packed).decode())

    @property
    def array(self) -> NDArray[np.bool_]:
        """The mask (*S), read-only."""
        return _unpacked(self.shape, self.voxels)

    def canonical(self) -> tuple[Grid | None, NDArray[np.bool_]]:
        """Its canonical grid, None for a bare array, and the mask on it."""
        if self.affine is None:
            return None, self.array
        grid, swap = Grid(self.shape, np.array(self.affine)).canonical()
        return grid, reorient(self.array, swap)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GivenMask:
        """From what `to_dict` gave, before or after JSON."""
        accepted = [field.name for field in fields(cls)]
        for key in data:
            if key not in accepted:
                raise unknown_parameter("a mask", key, accepted)
        try:
            rows = data["affine"] and tuple(tuple(map(float, row)) for row in data["affine"])
            mask = cls(str(data["name"]), tuple(map(int, data["shape"])), rows, data["voxels"])
            mask.array  # noqa: B018  # whether it can be unpacked
        except (KeyError, TypeError, ValueError, zlib.error) as err:
            expected = f"what GivenMask.to_dict gives ({type(err).__name__}: {err})"
            raise InvalidParameter(
                "mask", {k: data[k] for k in data if k != "voxels"}, expected
            ) from err
        return mask


@functools.lru_cache(maxsize=4)  # scans of a cohort mostly share a grid, and a mask takes a second
def template_mask(
    shape: tuple[int, ...], affine: tuple[tuple[float, ...], ...]
) -> NDArray[np.bool_]:
    """The voxels (*S) of a grid that lie at least half in the brain of MNI152, read-only.

    All that the skull holds: the ventricles and the fluid around the cortex too. It looks at
    positions only: it holds for scans that were registered to MNI space.
    """
    source, brain = _template_brain()
    target = Grid(shape, np.array(affine))
    share = smooth(brain.astype(np.float32), source, smoothing(source, target))
    mask = np.asarray(resample(share, source, target, order=1) >= 0.5)
    mask.flags.writeable = False
    return mask


@functools.lru_cache(maxsize=1)
def _template_brain() -> tuple[Grid, NDArray[np.bool_]]:
    """The brain of nilearn's template at 1 mm, which has no skull, without holes; on its grid."""
    from nilearn.datasets import load_mni152_template  # slow to import, and seldom needed

    template = inspect.unwrap(load_mni152_template)(resolution=1)  # nilearn would keep all of it
    brain = ndimage.binary_fill_holes(np.asarray(template.dataobj) > 0)
    start = [int(axis.min()) - _RIM for axis in brain.nonzero()]  # beyond the template, which ends
    shape = [int(np.ptp(axis)) + 1 + 2 * _RIM for axis in brain.nonzero()]  # at the brain's stem
    grid = Grid(brain.shape, template.affine).window(start, shape)
    return grid, window(brain, start, shape, False)


def _read(source: Any) -> tuple[str, NDArray[Any], Grid | None]:
    if not isinstance(source, (str, os.PathLike, SpatialImage)):
        return "<array>", np.asarray(source), None
    name = os.fspath(source) if not isinstance(source, SpatialImage) else "<image>"
    try:
        if name.endswith(".npy"):
            return name, np.load(name), None
        image: Any = nibabel.load(name) if name != "<image>" else source
        grid = checked_grid(image, name)
        return name, np.asanyarray(image.dataobj).reshape(grid.shape), grid
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as err:
        if isinstance(err, ScanError):
            raise
        raise ScanError(
            name,
            f"the mask cannot be read ({type(err).__name__}: {err})",
            "Give the path of an image or a .npy file, 'nonzero', 'computed' or 'none'.",
        ) from err


@functools.lru_cache(maxsize=4)
def _unpacked(shape: Sequence[int], voxels: str) -> NDArray[np.bool_]:
    bits = np.frombuffer(zlib.decompress(base64.b64decode(voxels)), np.uint8)
    if bits.size != -(-int(np.prod(shape)) // 8):
        raise ValueError(f"{bits.size} bytes for a mask of shape {tuple(shape)}")
    mask = np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)
    mask.flags.writeable = False
    return mask
