"""What a table says of the scans: which columns can be set beside latents, and as what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_MOST = 12  # covariates on a page
_MOST_GROUPS = 12
_FEWEST = 6  # scans with a value
_FIRST = re.compile(r"age|sex|gender|site|scanner|cent(er|re)|group|diagnosis|dx|bmi|iq", re.I)
_LABELS = re.compile(r"site|scanner|cent(er|re)|sex|gender|group|diagnosis|dx", re.I)


@dataclass(frozen=True, eq=False)
class Covariate:
    """One column. `values` (N,) are floats, or strings where it names groups; `known` (N,) bool."""

    name: str
    is_number: bool
    values: NDArray[Any]
    known: NDArray[np.bool_]

    @property
    def groups(self) -> list[str]:
        """The groups that there are, in order; none for a number."""
        return [] if self.is_number else sorted(set(self.values[self.known]), key=_natural)

    def take(self, rows: NDArray[np.intp]) -> Covariate:
        """The same of the scans in these rows."""
        return Covariate(self.name, self.is_number, self.values[rows], self.known[rows])


def chosen(table: pd.DataFrame) -> tuple[list[Covariate], dict[str, str]]:
    """The columns to show, age, sex, site and their like first, and why others are left out."""
    found: list[Covariate] = []
    left: dict[str, str] = {}
    names = list(map(str, table.columns))
    places = sorted(range(len(names)), key=lambda i: not _is_first(names[i]))
    for place in places:
        covariate = _read(names[place], table.iloc[:, place])
        if isinstance(covariate, str):
            left[names[place]] = covariate
        elif len(found) == _MOST:
            left[names[place]] = f"the page shows {_MOST} columns at most"
        else:
            found.append(covariate)
    return found, left


def read_as(covariate: Covariate, column: pd.Series) -> Covariate:
    """The same covariate of other scans; what cannot be read so is missing."""
    if covariate.is_number:
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
        return Covariate(covariate.name, True, values, np.isfinite(values))
    known = column.notna().to_numpy()
    return Covariate(covariate.name, False, column.map(_label).to_numpy(dtype=object), known)


def _is_first(name: str) -> bool:
    return any(_FIRST.fullmatch(word) for word in re.split(r"[^A-Za-z]+", name))


def _read(name: str, column: pd.Series) -> Covariate | str:
    """The column as a covariate, or why it is none."""
    known = column.notna().to_numpy()
    if known.sum() < _FEWEST:
        return f"it has {int(known.sum())} values, and {_FEWEST} are needed"
    distinct = column[known].nunique()
    if distinct < 2:
        return "it has the same value for all scans"
    labels = any(_LABELS.fullmatch(word) for word in re.split(r"[^A-Za-z]+", name))
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric and distinct > 2 and not labels:
        values = column.to_numpy(dtype=float, na_value=np.nan)
        if not np.isfinite(values[known]).all():
            return "it has infinite values"
        return Covariate(name, True, values, known)
    if distinct > _MOST_GROUPS:
        return f"it has {distinct} different values, and no order"
    return Covariate(name, False, column.map(_label).to_numpy(dtype=object), known)


def _label(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _natural(text: str) -> list[tuple[int, float, str]]:
    return [
        (0, float(part), "") if part.isdecimal() else (1, 0.0, part)
        for part in re.split(r"(\d+)", text)
    ]
