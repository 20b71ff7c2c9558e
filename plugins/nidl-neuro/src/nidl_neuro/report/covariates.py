"""Which columns of the scans' table the page can set beside latents."""

from __future__ import annotations

import re

import pandas as pd

from nidl_neuro.covariates import Covariate, read

_MOST = 12  # covariates on a page
_MOST_GROUPS = 12
_FEWEST = 6  # scans with a value
_FIRST = re.compile(r"age|sex|gender|site|scanner|cent(er|re)|group|diagnosis|dx|bmi|iq", re.I)


def chosen(table: pd.DataFrame) -> tuple[list[Covariate], dict[str, str]]:
    """The columns to show, age, sex, site and their like first, and why others are left out."""
    found: list[Covariate] = []
    left: dict[str, str] = {}
    names = list(map(str, table.columns))
    places = sorted(range(len(names)), key=lambda i: not _is_first(names[i]))
    for place in places:
        covariate = _shown(names[place], table.iloc[:, place])
        if isinstance(covariate, str):
            left[names[place]] = covariate
        elif len(found) == _MOST:
            left[names[place]] = f"the page shows {_MOST} columns at most"
        else:
            found.append(covariate)
    return found, left


def _is_first(name: str) -> bool:
    return any(_FIRST.fullmatch(word) for word in re.split(r"[^A-Za-z]+", name))


def _shown(name: str, column: pd.Series) -> Covariate | str:
    """The column as a covariate, or why the page has no place for it."""
    covariate = read(name, column)
    if isinstance(covariate, str):
        return covariate
    count = int(covariate.known.sum())
    if count < _FEWEST:
        return f"it has {count} values, and {_FEWEST} are needed"
    distinct = len(set(covariate.values[covariate.known].tolist()))
    if distinct < 2:
        return "it has the same value for all scans"
    if not covariate.is_number and distinct == count:
        return "it has a value of its own for each scan"
    if not covariate.is_number and distinct > _MOST_GROUPS:
        return f"it has {distinct} different values, and no order"
    return covariate
