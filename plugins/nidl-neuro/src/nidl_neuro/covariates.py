"""What a column of a table is: a number for each scan, or the group that each belongs to.

The report and traversals along a covariate read columns by the same rules, so that they agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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

    def without(self, rows: NDArray[np.bool_]) -> Covariate:
        """The same, as if nothing were known of these scans (N,)."""
        return Covariate(self.name, self.is_number, self.values, self.known & ~rows)


def read(name: str, column: pd.Series) -> Covariate | str:
    """The column as a covariate, or why it cannot be one.

    It is a number if its values are, if there are more than two of them, and if they are not codes:
    whole numbers in a column whose name says that they stand for something (site, sex, diagnosis, ...).
    Anything else names groups.
    """
    if column.dtype == object:
        column = column.convert_dtypes()  # numbers among which one is missing are numbers
    known = column.notna().to_numpy(dtype=bool)
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric:
        values = column.to_numpy(dtype=float, na_value=np.nan)
        if not np.isfinite(values[known]).all():
            return "it has infinite values"
        words = re.split(r"[^A-Za-z]+", name)
        coded = any(map(_LABELS.fullmatch, words)) and (values[known] % 1 == 0).all()
        if len(np.unique(values[known])) > 2 and not coded:
            return Covariate(name, True, values, known)
    return Covariate(name, False, _labels(column), known)


def read_as(covariate: Covariate, column: pd.Series) -> Covariate:
    """The same covariate of other scans; what cannot be read so is missing."""
    if covariate.is_number:
        numbers = pd.to_numeric(column, errors="coerce")
        values = numbers.to_numpy(dtype=float, na_value=np.nan)
        return Covariate(covariate.name, True, values, np.isfinite(values))
    known = column.notna().to_numpy(dtype=bool)
    return Covariate(covariate.name, False, _labels(column), known)


def label(value: Any) -> str:
    """The name of a group, as a person would write it: 2 and 2.0 are one."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _labels(column: pd.Series) -> NDArray[Any]:
    return np.array([label(value) for value in column], dtype=object)


def _natural(text: str) -> list[tuple[int, float, str]]:
    return [
        (0, float(part), "") if part.isdecimal() else (1, 0.0, part)
        for part in re.split(r"(\d+)", text)
    ]
