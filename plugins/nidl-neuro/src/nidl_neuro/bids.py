"""BIDS folders: the anatomical images, and their rows in participants.tsv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nidl_core.errors import DataError
from nidl_neuro import tables
from nidl_neuro.paths import entities, images_below, stem

TABLE = "participants.tsv"


def is_bids(folder: Path) -> bool:
    """Whether the folder says that it is one."""
    return (folder / TABLE).is_file() or (folder / "dataset_description.json").is_file()


def images(folder: Path, pattern: str | None, derivatives: str | None) -> list[Path]:
    """The raw anatomical images, or those that a pipeline left in derivatives/NAME.

    Where no image lies in a folder `anat`, all images whose name has a `sub-` are taken. Raises
    `DataError` if there are none, or of several kinds (T1w, T2w, ...): `pattern` chooses.
    """
    where = folder if derivatives is None else folder / "derivatives" / derivatives
    if not where.is_dir():
        raise DataError(f"there is no folder {where}.")
    named = [path for path in images_below(where, pattern) if "sub" in entities(path, where)]
    if not named:
        raise DataError(
            f"no image in the BIDS folder {where} has sub- in its name. Hand in a glob for its images."
        )
    found = [path for path in named if path.parent.name == "anat"] or named
    kinds = sorted({stem(path).rpartition("_")[2] for path in found})
    if len(kinds) > 1 and pattern is None:
        raise DataError(
            f"the BIDS folder {where} has images of several kinds: {', '.join(kinds)}. Say which: "
            f"pattern='*_{kinds[0]}.nii.gz'."
        )
    return found


def rows(files: list[Path], folder: Path, table: pd.DataFrame) -> list[int]:
    """The row of the table that each file in a BIDS folder belongs to; -1 for a file without one.

    Rows are told apart by participant, and by session where the table has a column for it. Raises
    `DataError` if it has no column of participants, or one of them twice.
    """
    keys = tables.identifiers(table)
    if not any("sub" in key for key in keys):
        raise DataError(
            f"{TABLE} has no column participant_id. Its columns: {', '.join(map(str, table.columns))}."
        )
    numbers: dict[tuple[str | None, str | None], int] = {}
    for number, key in enumerate(keys):
        place = key.get("sub"), key.get("ses")
        if place in numbers:
            raise DataError(f"{TABLE} has two rows for sub-{place[0]}. Keep one.")
        numbers[place] = number
    found = []
    for file in files:
        names = entities(file, folder)
        sub = names.get("sub")
        found.append(numbers.get((sub, names.get("ses")), numbers.get((sub, None), -1)))
    return found
