"""Scans as data to fit on: found, prepared, kept in a store, and put back onto their own grids.

Shapes: N scans, S the prepared grid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from nibabel.nifti1 import Nifti1Image
from numpy.typing import ArrayLike, NDArray

from nidl_core.data import ArrayDataset
from nidl_core.errors import DataError, InvalidParameter, ShapeError
from nidl_neuro.cache import default_root
from nidl_neuro.cohort import Cohort
from nidl_neuro.preparation import Preparation, restore
from nidl_neuro.progress import shown
from nidl_neuro.reading import find
from nidl_neuro.record import Record
from nidl_neuro.store import Item, Progress, Row, Store

VERSION = 1  # of what a preparation means: raised with any change of the voxels that it gives
_ORIGIN = {"made_by": "nidl-neuro", "version": VERSION}
_APART = 0.5  # voxels by which the grids of aligned scans may differ


class Scans(ArrayDataset):
    """Prepared scans (N, 1, *S), read from their store a batch at a time. Made by `scans`.

    Attributes
    ----------
    cohort : Cohort
        Ids, files and covariates, in the order of the rows; `cohort.refused` is what was left out.
    preparation : Preparation
        What was done to all of them.
    store : Store
        Where the prepared voxels are.
    mask : bool tensor (*S), or None
        The voxels in the masks of at least half of the scans: those that a likelihood counts.
    """

    def __init__(
        self, cohort: Cohort, store: Store, preparation: Preparation, mask: NDArray[np.bool_] | None
    ) -> None:
        affines = np.stack(
            [Record.from_dict(store.record(row)).affine for row in range(len(store))]
        )
        spec = {**preparation.to_dict(), **_ORIGIN, "affine": affines[0].tolist()}
        notes = [
            *_apart(affines, store.layout.shape[1:]),
            *cohort.notes,
            *(f"left out: {reason}" for reason in cohort.refused.values()),
        ]
        super().__init__(_StoredRows(store), spec=spec, mask=mask, notes=notes)
        self.cohort, self.store, self.preparation = cohort, store, preparation

    @property
    def ids(self) -> list[str]:
        """The scans' ids, in the order of the rows."""
        return self.cohort.ids

    @property
    def covariates(self) -> pd.DataFrame:
        """What the table says of them, indexed by id."""
        return self.cohort.covariates

    def record(self, row: int) -> Record:
        """What was done to one scan."""
        return Record.from_dict(self.store.record(row))

    def report(self) -> list[str]:
        """What was done to each scan, a line each."""
        return [str(self.record(row)) for row in range(len(self))]

    def image(self, row: int, array: ArrayLike, *, scanner_units: bool = True) -> Nifti1Image:
        """An array (1, *S) or (*S) as an image on the grid of the scan in this row. See `restore`."""
        return restore(array, self.record(row), scanner_units=scanner_units)

    def images(self, arrays: ArrayLike, *, scanner_units: bool = True) -> list[Nifti1Image]:
        """Arrays (N, 1, *S), such as a model gives back, each as an image on its scan's own grid.

        Without `scanner_units`, for maps, values stay as they are. Raises `ShapeError`.
        """
        arrays = np.asarray(arrays)
        if arrays.shape[:1] != (len(self),):
            raise ShapeError(
                f"images takes one array for each of the {len(self)} scans, (N, 1, *S), got "
                f"{arrays.shape}. For one of them there is image(row, array)."
            )
        return [
            self.image(row, array, scanner_units=scanner_units) for row, array in enumerate(arrays)
        ]


def scans(
    source: Any,
    preparation: Preparation | Mapping[str, Any] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: Progress | bool | None = None,
    **finding: Any,
) -> Scans:
    """Find scans, prepare those that are not yet in the store, and give them as data to fit on.

    Parameters
    ----------
    source, **finding
        Paths, a glob, a folder, images, a table, ...: see `find`.
    preparation : Preparation, or a mapping of its parameters
        By default that of `Preparation()`: the scans must then agree in shape.
    cache : folder, optional
        Where stores are kept: see `cache.default_root`.
    skip_bad : bool
        Leave out scans that cannot be used, and keep the reasons in `cohort.refused`.
    workers : int, optional
        Processes that prepare: see `Store.build`.
    progress : bool or callable, optional
        Whether to show a bar (by default on a terminal), or who is told: see `Store.build`.

    Raises
    ------
    ScanError
        For a scan that cannot be used, with its name and what to do.
    DataError, InvalidParameter, UnknownParameter

    Example:
        >>> import tempfile
        >>> from nidl_neuro.datasets import synthetic_cohort
        >>> images = [scan.image() for scan in synthetic_cohort(2, size=16)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = scans(images, {"shape": (16, 20, 16)}, cache=folder)
        ...     data.x.shape, data.ids
        ((2, 1, 16, 20, 16), ['image-0', 'image-1'])
    """
    prep = as_preparation(preparation)
    cohort = find(source, skip_bad=skip_bad, **finding)
    items = [Item(scan.id, scan, scan.path, scan.content()) for scan in cohort]
    with shown(progress) as tell:
        store = Store.build(
            default_root() if cache is None else cache,  # type: ignore[arg-type]
            items,
            _Make(prep),
            {**prep.to_dict(), **_ORIGIN},
            workers=workers,
            progress=tell,
            skip_bad=skip_bad,
        )
    cohort = cohort.without(store.refused)
    return Scans(cohort, store, prep, None if prep.mask == "none" else shared_mask(store))


def prepared_affine(model: Any) -> NDArray[np.float64]:
    """The affine (4, 4), in mm, of the prepared grid that a model was fitted on.

    That of the first scan, which is everyone's where the scans are aligned. Raises `DataError`.
    """
    spec = getattr(model, "data_spec_", None)
    if not isinstance(spec, Mapping) or "affine" not in spec:
        raise DataError("the model was not fitted on scans: it knows no grid in mm.")
    return np.array(spec["affine"], dtype=np.float64)


def as_preparation(given: Preparation | Mapping[str, Any] | None) -> Preparation:
    """A preparation, from its parameters or from what a model keeps of its data.

    Raises `InvalidParameter` or `UnknownParameter`; `DataError` for a model of a later version.
    """
    if given is None or isinstance(given, Preparation):
        return given or Preparation()
    if not isinstance(given, Mapping):
        raise InvalidParameter(
            "preparation", given, "a Preparation, a mapping of its parameters or None"
        )
    if given.get("version", VERSION) > VERSION:
        raise DataError(
            f"the model was fitted on scans of preparation version {given['version']}, this nidl-neuro "
            f"knows up to {VERSION}. Upgrade it: pip install --upgrade nidl-neuro"
        )
    return Preparation.from_dict(
        {key: value for key, value in given.items() if key not in (*_ORIGIN, "affine")}
    )


def _apart(affines: NDArray[np.float64], shape: tuple[int, ...]) -> list[str]:
    """A note where the prepared grids (N, 4, 4) of the scans do not lie on each other."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1)
    places = corners @ affines[:, :3, :3].transpose(0, 2, 1) + affines[:, None, :3, 3]  # (N, 8, 3)
    largest = float(np.linalg.norm(places - places[0], axis=2).max())
    voxel = float(np.linalg.norm(affines[0, :3, :3], axis=0).min())
    if largest <= _APART * voxel:
        return []
    return [
        f"the prepared grids of the scans lie up to {largest:.1f} mm apart: one voxel is not one place in "
        "all of them. Register them to a common space first."
    ]


def shared_mask(store: Store, share: float = 0.5) -> NDArray[np.bool_]:
    """The voxels (*S) that lie in the masks of at least this share of the scans.

    Raises `DataError` if there are none.
    """
    total = np.zeros(store.layout.mask or (), dtype=np.int64)
    for row in range(len(store)):
        total += np.asarray(store.mask(row))
    mask = total >= share * len(store)
    if not mask.any():
        raise DataError(
            f"no voxel lies in the masks of {share:.0%} of the {len(store)} scans: they are not aligned. "
            "Register them first, or prepare them with centre='mask' or mask='none'."
        )
    return np.asarray(mask)


class _Make:
    """Item -> Row, by a preparation; it can be pickled."""

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation

    def __call__(self, item: Item) -> Row:
        made = self.preparation.prepare(item.source.load(), item.source.name)
        return Row(made.array.astype(np.float32, copy=False), made.record.to_dict(), made.mask)


class _StoredRows:
    """The rows of a store as numpy would index them: (N, 1, *S), float32."""

    dtype = np.dtype(np.float32)

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shape = (len(store), *store.layout.shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        rows = np.arange(len(self))[index]
        return self.store.rows(rows) if rows.ndim else self.store[int(rows)]
