"""Whatever a person has of scans -> a cohort: paths, a glob, a folder, images in memory, a table."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from nibabel.spatialimages import SpatialImage

from nidl_core.errors import DataError, DataTypeError
from nidl_neuro import bids, nifti, tables
from nidl_neuro.cohort import Cohort, Scan
from nidl_neuro.errors import ScanError
from nidl_neuro.gathering import Gathered
from nidl_neuro.paths import (
    common_folder,
    entities,
    has_magic,
    images_below,
    is_image_name,
    matched,
    natural,
    stem,
)

__all__ = ["Cohort", "Scan", "find", "is_source"]
_FRAME = "the table"  # what a DataFrame is called, which has no name


def find(
    source: Any,
    *,
    path_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    pattern: str | None = None,
    derivatives: str | None = None,
    strict: bool = False,
    skip_bad: bool = False,
) -> Cohort:
    """The scans in a source, in order, each with an id.

    No voxel is read: files are looked for here, and read and checked by `Scan.load`.

    Parameters
    ----------
    source : path, folder, glob, list of them, image, list of images, DataFrame or Cohort
        A list keeps its order; globs and folders are sorted as a person would. A path to a table
        (.tsv, .csv) or a DataFrame has a column with the paths, and covariates. A 4-D image, alone,
        is one scan a volume. A folder is searched with its subfolders; if it has a participants.tsv
        or dataset_description.json it is read as BIDS: raw anatomical images and their rows.
    path_column : str, optional
        The table's column with the paths, where its name or content does not tell.
    root : folder, optional
        What relative paths are relative to: the table's own folder, or the current one.
    pattern : str, optional
        In folders, a glob for the names of files: "*_T1w.nii.gz".
    derivatives : str, optional
        Of a BIDS folder, the pipeline whose images to take instead of the raw ones.
    strict : bool
        Refuse a BIDS image without a row in participants.tsv. Otherwise it is kept, its covariates
        are missing (NaN), and `Cohort.notes` says so.
    skip_bad : bool
        Leave out what is bad, and keep the reasons in `Cohort.refused`, instead of raising.

    Raises
    ------
    ScanError
        For a file or image that cannot be used.
    DataError
        If the source as a whole cannot be: nothing found, an ambiguous table, no good scan.
    """
    if isinstance(source, Cohort):
        return source
    gathered = Gathered(skip_bad)
    if isinstance(source, SpatialImage):
        return gathered.of_images(_volumes(source), "volume" if _is_series(source) else "image")
    if isinstance(source, pd.DataFrame):
        return _of_table(gathered, source, _FRAME, Path(root or ""), path_column)
    if isinstance(source, (str, os.PathLike)) and str(source):
        path = Path(root or "", os.path.expanduser(source))
        if os.path.isdir(path):
            return _of_folder(gathered, path, path_column, pattern, derivatives, strict)
        if tables.is_table_name(path) and not has_magic(str(path)):
            return _of_table_file(gathered, path, root, path_column, pattern, derivatives, strict)
        if is_image_name(path) and not has_magic(str(path)):
            shape = nifti.shape_of(path)
            if len(shape) == 4:
                whose = entities(path, common_folder([path]))
                volumes = [(path, volume) for volume in range(shape[3])]
                return gathered.of_images(volumes, f"{stem(path)}_volume", whose)
        files = _expanded(gathered, path, pattern)
        return gathered.of_files(files, searched=common_folder([path]))
    if not isinstance(source, Sequence) or not len(source):
        raise DataTypeError(f"no scans can be found in {_told(source)}. {_WANTED}")
    if all(isinstance(one, SpatialImage) for one in source):
        return gathered.of_images([(image, None) for image in source], "image")
    for one in source:
        if not isinstance(one, (str, os.PathLike)):
            raise DataTypeError(f"a list of scans holds {_told(one)}. {_WANTED}")
    below = [Path(root or "", os.path.expanduser(one)) for one in source]
    files = [file for path in below for file in _expanded(gathered, path, pattern)]
    return gathered.of_files(files, searched=common_folder(below))


def is_source(x: Any) -> bool:
    """Whether `find` is to answer for x; nothing is read.

    A folder and the file of a table always count, and of a list the first element decides.
    """
    if isinstance(x, (Cohort, SpatialImage)):
        return True
    if isinstance(x, pd.DataFrame):
        return any(
            x[column].map(is_image_name).any() for column in x.select_dtypes(exclude="number")
        )
    if isinstance(x, (str, os.PathLike)) and str(x):
        path = Path(os.path.expanduser(x))
        if tables.is_table_name(path):
            return os.path.isfile(path)
        if is_image_name(path) or os.path.isdir(path):
            return True
        return has_magic(str(path)) and any(
            is_image_name(name) or os.path.isdir(name)
            for name in islice(glob.iglob(str(path), recursive=True), 1000)
        )
    return isinstance(x, (list, tuple)) and bool(x) and _is_scan(x[0])


def _is_scan(x: Any) -> bool:
    is_folder = isinstance(x, (str, os.PathLike)) and bool(str(x)) and os.path.isdir(x)
    return is_folder or isinstance(x, SpatialImage) or is_image_name(x)


def _of_table_file(
    gathered: Gathered,
    path: Path,
    root: str | os.PathLike[str] | None,
    path_column: str | None,
    pattern: str | None,
    derivatives: str | None,
    strict: bool,
) -> Cohort:
    table = tables.read(path)
    if path.name == bids.TABLE and tables.path_column(table, path.name, path_column) is None:
        return _of_bids(gathered, path.parent, table, pattern, derivatives, strict)
    return _of_table(gathered, table, str(path), Path(root or path.parent), path_column)


def _of_table(
    gathered: Gathered, table: pd.DataFrame, name: str, root: Path, asked: str | None
) -> Cohort:
    column = tables.path_column(table, name, asked)
    if column is None:
        columns = ", ".join(map(str, table.columns))
        raise DataError(
            f"no column of {name} leads to .nii or .nii.gz files. Its columns: {columns}. Add one with "
            "the paths, or say path_column=... ."
        )
    # Of a file, lines as an editor counts them, below the line of names.
    lines = table.index if name == _FRAME else range(2, len(table) + 2)
    word = "row" if name == _FRAME else "line"
    empty = [row for row, value in enumerate(table[column]) if not isinstance(value, (str, Path))]
    if empty:
        told = _listed([str(lines[row]) for row in empty])
        none = "no file in the column"
        gathered.refuse(
            ScanError(
                name,
                f"{len(empty)} of {len(table)} rows have {none} {column!r}: {word} {told}",
                "Fill it in, or remove the rows.",
            ),
            [
                ScanError(
                    f"{name}, {word} {lines[row]}",
                    f"it has {none} {column!r}",
                    "Fill it in, or remove the row.",
                )
                for row in empty
            ],
        )
    rows = [row for row in range(len(table)) if row not in set(empty)]
    table = table.iloc[rows]
    values = [os.path.expanduser(str(value).strip()) for value in table[column]]
    files = [root / value for value in values]
    relative = any(not os.path.isabs(value) for value in values)
    return gathered.of_files(
        files,
        table.drop(columns=column),
        tables.identifiers(table),
        tables.participants(table),
        root if relative else None,
    )


def _of_folder(
    gathered: Gathered,
    folder: Path,
    path_column: str | None,
    pattern: str | None,
    derivatives: str | None,
    strict: bool,
) -> Cohort:
    if not os.access(folder, os.R_OK | os.X_OK):
        told = "the folder cannot be read: permission denied"
        raise ScanError(folder, told, "Ask its owner for the right to read it.")
    if (folder / bids.TABLE).is_file():
        path = folder / bids.TABLE
        return _of_table_file(gathered, path, None, path_column, pattern, derivatives, strict)
    if bids.is_bids(folder):
        return gathered.of_files(bids.images(folder, pattern, derivatives), searched=folder)
    if derivatives is not None:
        raise DataError(
            f"derivatives={derivatives!r} is for BIDS folders; {folder} has no {bids.TABLE}."
        )
    return gathered.of_files(images_below(folder, pattern), searched=folder)


def _of_bids(
    gathered: Gathered,
    folder: Path,
    table: pd.DataFrame,
    pattern: str | None,
    derivatives: str | None,
    strict: bool,
) -> Cohort:
    files = bids.images(folder, pattern, derivatives)
    found = bids.rows(files, folder, table)
    if missing := sorted({*range(len(table))} - {*found}):
        names = tables.participants(table) or []
        told = [names[row] for row in missing]
        subjects = dict.fromkeys(f"sub-{entities(file, folder)['sub']}" for file in files)
        there = "" if max(found) >= 0 else f"; there are images of {_listed([*subjects])}"
        gathered.refuse(
            ScanError(
                folder / bids.TABLE,
                f"{len(missing)} of {len(table)} rows have no image: {_listed(told)}{there}",
                "Remove the rows, or add the images.",
            ),
            [
                ScanError(
                    f"{folder / bids.TABLE}, {one}",
                    "the row has no image",
                    "Remove the row, or add the image.",
                )
                for one in told
            ],
        )
    if strange := [file for file, row in zip(files, found, strict=True) if row < 0]:
        if strict:
            for file in strange:
                problem = f"it has no row in {folder / bids.TABLE}"
                gathered.refuse(ScanError(file, problem, "Add the row, or remove the file."))
            files = [file for file in files if file not in set(strange)]
            found = [row for row in found if row >= 0]
        else:
            gathered.notes.append(
                f"{len(strange)} of {len(files)} images have no row in {folder / bids.TABLE}: "
                f"{_listed([file.name for file in strange])}. Their covariates are missing."
            )
    whole = table.reset_index(drop=True).reindex(found)
    return gathered.of_files(files, whole, searched=folder)


def _expanded(gathered: Gathered, path: Path, pattern: str | None) -> list[Path]:
    """The images that a path, a folder, or a glob of either leads to."""
    if os.path.isdir(path) and not is_image_name(path):
        return images_below(path, pattern)
    if not has_magic(str(path)):
        return [path]
    try:
        found, notes = matched(str(path))
    except DataError:
        folders = natural(Path(name) for name in glob.glob(str(path)) if os.path.isdir(name))
        if not folders:
            raise
        return [file for folder in folders for file in images_below(folder, pattern)]
    gathered.notes += notes
    return found


def _is_series(image: SpatialImage) -> bool:
    return len(image.shape) > 3 and image.shape[3] > 1


def _volumes(image: SpatialImage) -> list[tuple[SpatialImage, int | None]]:
    if len(image.shape) == 4 and _is_series(image):
        return [(image, volume) for volume in range(image.shape[3])]
    return [(image, None)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _told(x: object) -> str:
    empty = "an empty " if isinstance(x, Sequence) and not len(x) else ""
    return empty + type(x).__name__


_WANTED = (
    "Hand in paths to .nii or .nii.gz files, a glob, a folder, nibabel images, or a table with a column "
    "of paths."
)
