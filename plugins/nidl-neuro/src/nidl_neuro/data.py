"""Scans as data to fit on: found, prepared, kept in a store, and put back onto their own grids.

Shapes: N scans, S the prepared grid.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from nibabel.nifti1 import Nifti1Image
from numpy.typing import ArrayLike, NDArray

from nidl_core.data import ArrayDataset
from nidl_core.errors import DataError, InvalidParameter, ShapeError
from nidl_neuro.cache import default_root
from nidl_neuro.cohort import Cohort
from nidl_neuro.gathering import none_left
from nidl_neuro.grid import by
from nidl_neuro.making import Make
from nidl_neuro.notes import copies, notes
from nidl_neuro.preparation import Preparation, restore
from nidl_neuro.progress import shown
from nidl_neuro.reading import find
from nidl_neuro.record import Record
from nidl_neuro.store import Item, NoneLeft, Progress, Store

VERSION = 2  # of what a preparation means: raised with any change of the voxels that it gives
_ORIGIN = {"made_by": "nidl-neuro", "version": VERSION}


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
        The voxels in the masks of at least half of the scans: those that a likelihood counts. None if
        these are all.
    """

    def __init__(
        self,
        cohort: Cohort,
        store: Store,
        preparation: Preparation,
        mask: NDArray[np.bool_] | None,
        affine: Any = None,
    ) -> None:
        self.cohort, self.store, self.preparation = cohort, store, preparation
        records = [self.record(row) for row in range(len(store))]
        spec = {**preparation.to_dict(), **_ORIGIN, "affine": records[0].affine.tolist()}
        told = [
            *notes(records, affine),
            *copies(cohort.ids, store.keys),
            *cohort.notes,
            *(f"left out: {name}: {reason}" for name, reason in cohort.refused.items()),
        ]
        super().__init__(_StoredRows(store), spec=spec, mask=mask, notes=told)

    @property
    def spec(self) -> Any:
        """How the rows were made, with `VERSION`.

        Estimators ask for it at the start of each fit, transform and score: `ScanError` if one of
        the files is not the one that was prepared any more.
        """
        self.store.verify()
        return self._spec

    @spec.setter
    def spec(self, spec: Any) -> None:
        self._spec = spec

    @property
    def ids(self) -> list[str]:
        """The scans' ids, in the order of the rows."""
        return self.cohort.ids

    @property
    def covariates(self) -> pd.DataFrame:
        """What the table says of them, indexed by id."""
        return self.cohort.covariates

    def take(self, rows: Any) -> Scans:
        """The scans in these rows (n,), in this order, with the mask of all: for cross-validation, say."""
        rows = np.arange(len(self))[np.asarray(rows)]
        taken = copy.copy(self)
        taken.cohort, taken.store = self.cohort.take(rows), self.store.take(rows)
        taken.x = _StoredRows(taken.store)
        return taken

    def check_like(self, spec: Any) -> None:
        """Raise `DataError` if the scans were prepared otherwise than a spec of nidl-neuro says.

        Where a mask that was given was read from, and where the grid lies, does not matter.
        """
        if not isinstance(spec, Mapping) or spec.get("made_by") != _ORIGIN["made_by"]:
            return
        wanted, given = _plain(as_preparation(spec)), _plain(self.preparation)
        if told := [
            f"{key} {_told(given[key])} instead of {_told(wanted[key])}"
            for key in wanted
            if wanted[key] != given[key]
        ]:
            raise DataError(
                f"the scans were prepared otherwise than those of the fit: {', '.join(told)}. Hand in "
                "their paths, or nidl_neuro.scans(source, model.data_spec_)."
            )

    def __repr__(self) -> str:
        inside = "" if self.mask is None else f", {int(self.mask.sum())} of them in the mask"
        about = ", ".join(map(str, self.covariates.columns)) or "none"
        return f"<{len(self)} prepared scans of {by(self.shape[2:])} voxels{inside}; covariates: {about}>"

    def record(self, row: int) -> Record:
        """What was done to one scan."""
        record = Record.from_dict(self.store.record(row))
        return replace(record, name=self.cohort[row].name)  # its file may have had another then

    def report(self) -> list[str]:
        """What was done to each scan, a line each."""
        return [str(self.record(row)) for row in range(len(self))]

    def image(
        self,
        row: int,
        array: ArrayLike,
        *,
        scanner_units: bool = True,
        interpolation: str = "linear",
    ) -> Nifti1Image:
        """An array (1, *S) or (*S) as an image on the grid of the scan in this row. See `restore`.

        Where it is 0 all around the mask, as models leave it, the image has the scan's background.
        """
        array, mask = np.asarray(array), None
        if self.mask is not None and array.shape[-3:] == self.mask.shape:
            inside = self.mask.numpy()
            mask = None if array[..., ~inside].any() else inside
        return restore(
            array,
            self.record(row),
            scanner_units=scanner_units,
            mask=mask,
            interpolation=interpolation,
        )

    def images(
        self, arrays: ArrayLike, *, scanner_units: bool = True, interpolation: str = "linear"
    ) -> list[Nifti1Image]:
        """Arrays (N, 1, *S), such as a model gives back, each as an image on its scan's own grid.

        As `image`: without `scanner_units`, for maps, values stay as they are. Raises `ShapeError`.
        """
        arrays = np.asarray(arrays)
        if arrays.shape[:1] != (len(self),):
            raise ShapeError(
                f"images takes one array for each of the {len(self)} scans, (N, 1, *S), got "
                f"{arrays.shape}. For one of them there is image(row, array)."
            )
        return [
            self.image(row, array, scanner_units=scanner_units, interpolation=interpolation)
            for row, array in enumerate(arrays)
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
    preparation : Preparation, or a mapping of its parameters, such as a model's `data_spec_`
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
    with _all_listed(cohort), shown(progress) as tell:
        store = Store.build(
            default_root() if cache is None else cache,  # type: ignore[arg-type]
            items,
            Make(prep),
            {**_plain(prep), **_ORIGIN},
            workers=workers,
            progress=tell,
            skip_bad=skip_bad,
        )
    cohort = _without(cohort, store.refused)
    mask = None if prep.mask == "none" else shared_mask(store)
    affine = preparation.get("affine") if isinstance(preparation, Mapping) else None
    return Scans(cohort, store, prep, None if mask is None or mask.all() else mask, affine)


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


def _plain(preparation: Preparation) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(preparation.to_dict()))
    if isinstance(plain["mask"], dict):
        plain["mask"].pop("name")  # where it was read from
    return plain


def _told(value: Any) -> str:
    return "a mask that was given" if isinstance(value, dict) else repr(value)


@contextmanager
def _all_listed(cohort: Cohort) -> Iterator[None]:
    """Where no scan is left, tell of all of them: those that were never found, too."""
    try:
        yield
    except NoneLeft as err:
        raise none_left(_without(cohort, err.refused).refused) from err


def _without(cohort: Cohort, refused: Mapping[str, str]) -> Cohort:
    """The cohort without scans that the store refused (id -> error), kept by what they are called."""
    kept = cohort.without(refused)
    reasons = dict(cohort.refused)
    for scan in cohort:
        if (text := refused.get(scan.id)) is not None:
            called = [f"{scan.name}: ", f"{scan.path}: "]
            cut = next((start for start in called if text.startswith(start)), "")
            reasons[scan.name] = text.removeprefix(cut)
    return replace(kept, refused=reasons)


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
