"""Latents given a covariate: what the mean brain of an age, or of a sex, looks like to a model.

N scans, L latents.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nidl_core.errors import DataError, InvalidParameter, NidlError, ShapeError
from nidl_core.parameters import check_int
from nidl_neuro.covariates import label, read, read_as
from nidl_neuro.data import Scans
from nidl_neuro.decoding import posterior
from nidl_neuro.traversal import Traversal, background, decode

Array = NDArray[Any]


def along(
    model: Any, data: Scans, covariate: str, *, at: Sequence[Any] | None = None, steps: int = 7
) -> tuple[Conditional, Traversal]:
    """The volumes at the mean latents of values of a covariate, and the regression behind them.

    `at` are the values; without it, `steps` of them over the range in the data, or all levels. What
    they mean, and what not: see `Conditional`; its `r2_` says how much of the latents the covariate
    explains, and where that is next to nothing, so are the changes. Raises `DataError` for a
    covariate that the data have not, and what `Conditional.fit` raises.
    """
    given = conditional(model, data, covariate)
    values = given.even(steps) if at is None else list(at)
    return given, decode(model, given.mean(values), covariate, values, outside=background(data))


def draws(model: Any, data: Scans, covariate: str, at: Any, n: int = 5, seed: int = 0) -> Traversal:
    """Conditional samples: volumes at `n` latents drawn from p(z | covariate = at), numbered from 1."""
    z = conditional(model, data, covariate).draw(at, n, seed)
    name = f"{covariate} {at}, draw"
    return decode(model, z, name, range(1, n + 1), outside=background(data))


def conditional(model: Any, data: Scans, covariate: str) -> Conditional:
    """The regression of the scans' latents (means of q(z | x)) on one of their covariates."""
    if covariate not in data.covariates:
        known = ", ".join(map(str, data.covariates.columns)) or "none: no table came with them"
        raise DataError(f"the scans have no covariate {covariate!r}. They have: {known}.")
    return Conditional(covariate).fit(posterior(model, data)[0], data.covariates[covariate])


class Conditional:
    """p(z | c), by a linear regression of latents on one covariate: z = a + b c + e, e ~ N(0, C).

    A number (age) has a slope; of anything else (sex, site, codes such as 1, 2, 3 of a site included)
    each value has a mean of its own: see `covariates.read`, which is also the report's rule.
    Coefficients are those of least squares, and C is the residual covariance, over N - rank degrees of
    freedom. Decoded, `mean` gives the volume at the mean latents of an age: neither the mean volume
    of that age, nor anyone's. `draw` gives latents of made-up people of that age. Both tell what
    goes along with the covariate in these scans (its associates included: a site that scanned the
    old, say), not what it causes; and they know of it only what is linear in the latents.

    Attributes
    ----------
    covariate : str
    values_ : the (smallest, largest) number seen, or the names of the levels
    r2_ : array (L,)
        Share of each latent's variance that the covariate explains in these scans, 0 to 1.
    covariance_ : array (L, L), C

    Example
    -------
    >>> latents = [[0.0, 1.0], [1.0, 1.5], [2.0, 0.5], [3.0, 1.0]]
    >>> given = Conditional("age").fit(latents, [20, 30, 40, 50])
    >>> given.mean([25, 35]).round(2).tolist()
    [[0.5, 1.1], [1.5, 1.0]]
    """

    values_: tuple[Any, ...]
    r2_: Array
    covariance_: Array

    def __init__(self, covariate: str = "covariate") -> None:
        self.covariate = covariate
        self.count_ = 0
        self._levels: list[str] | None = None

    def fit(self, latents: ArrayLike, values: Any) -> Conditional:
        """Latents (N, L), and the covariate of each scan (N,); scans without a value are left out.

        Raises `ShapeError`; `DataError` for less than three scans, a covariate that does not vary,
        or infinite values.
        """
        z = np.asarray(latents, dtype=np.float64)
        column = _column(values)
        if z.ndim != 2 or len(z) != len(column):
            raise ShapeError(
                f"latents (N, L) and N values of {self.covariate} belong together, got {z.shape} and "
                f"{len(column)}."
            )
        found = read(self.covariate, column)
        if isinstance(found, str):
            raise DataError(
                f"{self.covariate} cannot be regressed on: {found}. Leave them empty, or leave these "
                "scans out."
            )
        self._covariate = found
        z, column = z[found.known], found.values[found.known]
        seen = np.unique(column)
        if len(z) < 3 or len(seen) < 2:
            raise DataError(
                f"{self.covariate} has {len(seen)} values in {len(z)} scans: too little to learn what "
                "goes along with it."
            )
        self._levels = None if found.is_number else found.groups
        self.values_ = (float(seen[0]), float(seen[-1])) if found.is_number else tuple(found.groups)
        self._shift = float(column.mean()) if found.is_number else 0.0
        self._scale = float(column.std(ddof=1)) if found.is_number else 1.0
        design = self._design(column)
        self._weights, _, rank, _ = np.linalg.lstsq(design, z, rcond=None)
        if len(z) <= rank:
            raise DataError(
                f"{self.covariate} has {len(seen)} values in {len(z)} scans: a value for each scan. Group "
                "them, or choose another covariate."
            )
        left = z - design @ self._weights
        self.covariance_ = left.T @ left / (len(z) - rank)
        total = ((z - z.mean(axis=0)) ** 2).sum(axis=0)
        self.r2_ = 1 - np.divide(
            (left**2).sum(axis=0), total, out=np.ones_like(total), where=total > 0
        )
        self.count_ = len(z)
        return self

    def mean(self, at: Sequence[Any] | Any) -> Array:
        """E[z | c] at K values: (K, L). Warns outside the range of numbers that were seen.

        Raises `InvalidParameter` for a level that was not seen, or what is no number.
        """
        return np.asarray(self._design(self._checked(at)) @ self._weights)

    def draw(self, at: Any, n: int, seed: int = 0) -> Array:
        """`n` draws from p(z | c) at one value: (n, L)."""
        check_int("n", n, least=1)
        mean = self.mean([at])[0]
        rng = np.random.default_rng(seed)
        return rng.multivariate_normal(mean, self.covariance_, size=n, method="eigh")

    def even(self, steps: int = 7) -> list[Any]:
        """Values to look at: evenly from the smallest number to the largest, or all levels."""
        check_int("steps", steps, least=2)
        if self._levels is not None:
            return list(self._levels)
        low, high = self.values_
        return [float(value) for value in np.linspace(low, high, steps)]

    def _checked(self, at: Any) -> Array:
        if not self.count_:
            raise NidlError("this Conditional is not fitted. Call fit(latents, values) first.")
        values = list(at) if isinstance(at, (list, tuple, np.ndarray, pd.Series)) else [at]
        if self._levels is not None:
            if strange := [value for value in values if label(value) not in self._levels]:
                known = ", ".join(map(repr, self._levels))
                raise InvalidParameter(
                    "at", strange[0], f"a {self.covariate} that was seen: {known}"
                )
            return np.array(list(map(label, values)), dtype=object)
        column = read_as(self._covariate, pd.Series(values))
        if not column.known.all():
            raise InvalidParameter("at", values, f"finite numbers of {self.covariate}")
        low, high = self.values_
        if outside := [value for value in column.values if not low <= value <= high]:
            warnings.warn(
                f"{self.covariate} {outside[0]:g} lies outside the range that was seen, {low:g} to "
                f"{high:g}: the volume is an extrapolation.",
                UserWarning,
                stacklevel=3,
            )
        return column.values

    def _design(self, column: Array) -> Array:
        if self._levels is None:
            numbers = (column.astype(np.float64) - self._shift) / self._scale
            return np.stack([np.ones_like(numbers), numbers], axis=1)
        return np.array([[float(value == level) for level in self._levels] for value in column])


def _column(values: Any) -> pd.Series:
    """A value for each scan in a column of its own index; a nullable type stays."""
    if isinstance(values, pd.Series):
        return values.reset_index(drop=True)
    return pd.Series(list(values))
