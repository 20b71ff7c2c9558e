"""Tables of scans: which column has the paths, which the participants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from nidl_core.errors import DataError
from nidl_neuro.paths import is_image_name

SUFFIXES = {".tsv": "\t", ".csv": ","}
_PATHS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "scan",
    "nifti",
)
_PARTICIPANTS = ("participant_id", "participant", "subject_id", "subject", "sub")
_SESSIONS = ("session_id", "session", "ses")


def is_table_name(name: object) -> bool:
    """Whether this is a str or path that ends in .tsv or .csv."""
    return isinstance(name, (str, os.PathLike)) and Path(name).suffix.lower() in SUFFIXES


def read(path: Path) -> pd.DataFrame:
    """The table in a file. Identifiers and sessions stay text: 007 is not 7."""
    try:
        separator = SUFFIXES[path.suffix.lower()]
        columns = pd.read_csv(path, sep=separator, nrows=0, encoding="utf-8-sig").columns
        text = {name: str for name in columns if name.lower() in (*_PARTICIPANTS, *_SESSIONS)}
        table = pd.read_csv(path, sep=separator, dtype=text, encoding="utf-8-sig")
    except FileNotFoundError as err:
        raise DataError(f"there is no table {path}.") from err
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as err:
        raise DataError(
            f"the table {path} cannot be read: {err}. Save it as text, with a line of column names and "
            "a tab (.tsv) or a comma (.csv) between the columns."
        ) from err
    if table.empty:
        raise DataError(f"the table {path} has no rows.")
    return table


def path_column(table: pd.DataFrame, name: str, asked: str | None = None) -> str | None:
    """The column with paths to images; None if no column has any.

    It is the one `asked` for, or the only one with names that end in .nii or .nii.gz, or the only one
    of these that is called path, file, image, scan or the like. Raises `DataError` otherwise.
    """
    if asked is not None:
        if asked not in table.columns:
            raise DataError(
                f"{name} has no column {asked!r}. Its columns: {_named(table.columns)}."
            )
        return asked
    found = [column for column in table.columns if table[column].map(is_image_name).any()]
    known = [column for column in found if str(column).lower() in _PATHS]
    if len(found) > 1 and len(known) != 1:
        raise DataError(
            f"{len(found)} columns of {name} lead to images: {_named(found)}. Say which one: "
            f"path_column={found[0]!r}."
        )
    chosen: list[str] = known or found
    return chosen[0] if chosen else None


def identifiers(table: pd.DataFrame) -> list[dict[str, str]]:
    """The entities `sub` and `ses` of each row, as far as it has columns for them."""
    columns = {
        "sub": _first(table, _PARTICIPANTS),
        "ses": _first(table, _SESSIONS),
    }
    return [
        {
            key: _text(row[column]).removeprefix(f"{key}-")
            for key, column in columns.items()
            if column is not None and not pd.isna(row[column])
        }
        for _, row in table.iterrows()
    ]


def participants(table: pd.DataFrame) -> list[str] | None:
    """The participants' ids as the table writes them; None without such a column."""
    column = _first(table, _PARTICIPANTS)
    return None if column is None else [_text(value) for value in table[column]]


def _first(table: pd.DataFrame, names: tuple[str, ...]) -> Any:
    lower = {str(column).lower(): column for column in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers in a column that also has gaps
    return "" if pd.isna(value) else str(value)


def _named(columns: Any) -> str:
    return ", ".join(map(str, columns))
