"""Tables of what a model says, a row a scan, with the scans' identifiers: TSV as BIDS has it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nidl_core.errors import DataError, InvalidParameter, ShapeError
from nidl_neuro.data import Scans
from nidl_neuro.replacing import check_free, replacing

_COLUMNS = {"participant_id": "sub", "session_id": "ses"}  # of BIDS, and the entity in each
_MEANS = {
    "id": "Identifier of the scan",
    "participant_id": "Identifier of the participant",
    "session_id": "Identifier of the session",
}


def write_latents(
    path: str | os.PathLike[str],
    data: Scans,
    latents: ArrayLike,
    sd: ArrayLike | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Latents (N, L) of the scans as a table, and what its columns mean in a `.json` beside it.

    Columns: those of `identifiers`, z0, z1, ..., and with `sd` (N, L) z0_sd, z1_sd, ... Numbers have
    all the digits that their dtype holds. Raises `ShapeError`, and what `write_table` raises.
    """
    latents = _checked("latents", latents, len(data))
    columns = {f"z{i}": latents[:, i] for i in range(latents.shape[1])}
    described = {name: f"Latent dimension {i}" for i, name in enumerate(columns)}
    if sd is not None:
        sd = _checked("sd", sd, len(data))
        if sd.shape != latents.shape:
            raise ShapeError(f"sd must have the shape of latents, {latents.shape}, got {sd.shape}.")
        columns |= {f"z{i}_sd": sd[:, i] for i in range(sd.shape[1])}
        described = {f"z{i}": f"Posterior mean of latent dimension {i}" for i in range(sd.shape[1])}
        described |= {
            f"z{i}_sd": f"Posterior standard deviation of latent dimension {i}"
            for i in range(sd.shape[1])
        }
    numbers = pd.DataFrame(columns, index=identifiers(data).index)
    return write_table(
        path, pd.concat([identifiers(data), numbers], axis=1), described, overwrite=overwrite
    )


def identifiers(data: Scans) -> pd.DataFrame:
    """Columns `id`, and `participant_id` and `session_id` where there are any: "sub-01", "ses-1".

    The last two are what BIDS calls the participants and sessions, so that tables can be merged.
    """
    table = pd.DataFrame({"id": pd.Series(data.ids, dtype=object)})
    for column, key in _COLUMNS.items():
        found = [scan.entities.get(key) for scan in data.cohort]
        if any(found):
            table[column] = pd.Series([name and f"{key}-{name}" for name in found], dtype=object)
    return table


def write_table(
    path: str | os.PathLike[str],
    table: pd.DataFrame,
    described: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> Path:
    """A table as a `.tsv` file (missing: n/a), and column -> description in a `.json` beside it.

    Both appear whole or not at all. Raises `InvalidParameter` for another ending, `DataError`
    if a file is there and not to be replaced, or cannot be written.
    """
    path = check_table(path, overwrite=overwrite)
    meant = {**_MEANS, **described}
    dictionary: dict[str, Any] = {
        str(column): {"Description": meant[column]} for column in table.columns if column in meant
    }
    with (
        replacing(path.with_suffix(".json"), overwrite=overwrite) as beside,
        replacing(path, overwrite=overwrite) as part,
    ):
        beside.write_text(json.dumps(dictionary, indent=2) + "\n", encoding="utf-8")
        table.to_csv(part, sep="\t", index=False, na_rep="n/a", encoding="utf-8")
    return path


def check_table(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Raise what `write_table` would, before any work is done for it; the path."""
    given, path = path, Path(path)
    if path.suffix != ".tsv":
        raise InvalidParameter("path", os.fspath(given), "the path of a .tsv file")
    check_free([path, path.with_suffix(".json")], overwrite=overwrite)
    return path


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A table that `write_table` wrote: identifiers as text (007 is not 7), numbers exact.

    Raises `DataError`.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, na_values=["n/a"], keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as err:
        raise DataError(f"the table {path} cannot be read: {err}.") from err
    for column in table.columns:
        if column not in _MEANS:
            with contextlib.suppress(ValueError):  # text stays text
                table[column] = table[column].astype(np.float64)
    return table


def _checked(name: str, values: ArrayLike, rows: int) -> np.ndarray[Any, Any]:
    array = np.asarray(values)
    if array.ndim != 2 or len(array) != rows:
        raise ShapeError(f"{name} of {rows} scans have the shape ({rows}, L), got {array.shape}.")
    return array
