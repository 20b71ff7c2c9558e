"""Scans in order, each with its id, and what a table says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from nibabel.spatialimages import SpatialImage

from nidl_neuro import nifti
from nidl_neuro.errors import ScanError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Scan:
    """One 3-D image: a file, an image in memory, or one volume of a 4-D one.

    `entities` are the BIDS entities that identify it: {"sub": "01", "ses": "2"}.
    """

    id: str
    source: Path | SpatialImage
    volume: int | None = None
    entities: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """Its file; None for an image in memory."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def name(self) -> str:
        """What errors call it."""
        name = str(self.source) if isinstance(self.source, Path) else f"{self.id} (in memory)"
        return name if self.volume is None else f"{name}, volume {self.volume}"

    def load(self) -> SpatialImage:
        """The image, of 3 axes. Raises `ScanError` if the file is missing, damaged or of other axes."""
        if isinstance(self.source, Path):
            return nifti.load(self.source, self.volume)
        image = self._own()
        nifti.check_axes(self.name, image.shape)
        if np.dtype(image.get_data_dtype()).kind not in "iufb":
            raise ScanError(
                self.name, "its voxels are not real numbers", "Save one real value a voxel."
            )
        return nifti.squeezed(image)

    def content(self) -> str:
        """What its content is, beside the bytes of its file: the volume, or a hash of what is in memory."""
        if isinstance(self.source, Path):
            return "" if self.volume is None else f"volume {self.volume}"
        image = self.load()
        voxels = np.ascontiguousarray(image.dataobj)
        digest = hashlib.blake2b(digest_size=20)
        for part in (
            repr((voxels.shape, voxels.dtype.str)),
            image.affine.tobytes(),
            voxels.tobytes(),
        ):
            digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(image.header.binaryblock if hasattr(image.header, "binaryblock") else b"")
        return digest.hexdigest()

    def _own(self) -> SpatialImage:
        """The image in memory that the scan is, without the other volumes."""
        image = cast(SpatialImage, self.source)
        return image if self.volume is None else nifti.volume_of(image, self.volume)

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.source, Path):
            return Scan, (self.id, self.source, self.volume, self.entities)
        image = self._own()
        parts = (type(image), np.asanyarray(image.dataobj), image.affine, image.header)
        return _in_memory, (self.id, self.entities, *parts)  # one volume of the 4-D image, not all


@dataclass(frozen=True, eq=False)
class Cohort:
    """Scans, and the covariates that a table has of them, in the same order.

    Attributes
    ----------
    scans : tuple of Scan
    covariates : DataFrame
        One row a scan, indexed by id. Without a table it has no columns.
    refused : dict
        What was left out (`skip_bad=True`): path or id -> reason.
    notes : tuple of str
        What a person should know of how the scans were found.
    """

    scans: tuple[Scan, ...]
    covariates: pd.DataFrame
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """The scans' ids: unique, and made of names, not of the order."""
        return [scan.id for scan in self.scans]

    @property
    def identifiers(self) -> pd.DataFrame:
        """The entities of the scans, indexed by id: columns sub, ses, ... as far as there are any."""
        import pandas as pd  # not for the processes that prepare

        index = pd.Index(self.ids, name="id", dtype=object)
        return pd.DataFrame([scan.entities for scan in self.scans], index=index)

    def take(self, rows: Iterable[int]) -> Cohort:
        """The scans in these rows, in this order."""
        rows = list(rows)
        scans = tuple(self.scans[row] for row in rows)
        return Cohort(scans, self.covariates.iloc[rows], self.refused, self.notes)

    def without(self, refused: Mapping[str, str]) -> Cohort:
        """The cohort without these scans (id -> reason), which count as refused from now on."""
        kept = self.take(row for row, scan in enumerate(self.scans) if scan.id not in refused)
        return Cohort(kept.scans, kept.covariates, {**self.refused, **refused}, self.notes)

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, row: int) -> Scan:
        return self.scans[row]

    def __iter__(self) -> Iterator[Scan]:
        return iter(self.scans)


def _in_memory(
    name: str, entities: dict[str, str], kind: Any, voxels: Any, affine: Any, header: Any
) -> Scan:
    return Scan(name, kind(voxels, affine, header), None, entities)
