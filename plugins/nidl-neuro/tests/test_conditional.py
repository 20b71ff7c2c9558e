"""Latents given a covariate: scipy's regression, group means, draws of the right spread."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nidl_core.errors import DataError, InvalidParameter, NidlError, ShapeError
from nidl_neuro.conditional import Conditional
from nidl_neuro.report.covariates import chosen

N, L = 40, 3


def made(seed=0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, N)
    z = np.outer(age, [0.05, -0.02, 0.0]) + rng.normal(size=(N, L)) @ rng.normal(size=(L, L))
    return z, age


def test_the_mean_is_scipys_regression_line():
    z, age = made()
    given = Conditional("age").fit(z, age)
    at = [25.0, 50.0, 70.0]
    for dimension in range(L):
        line = stats.linregress(age, z[:, dimension])
        expected = line.intercept + line.slope * np.array(at)
        np.testing.assert_allclose(given.mean(at)[:, dimension], expected, rtol=1e-9)
        assert given.r2_[dimension] == pytest.approx(line.rvalue**2, rel=1e-9)
    assert given.values_ == (age.min(), age.max())


def test_the_covariance_is_that_of_the_residuals():
    z, age = made()
    given = Conditional("age").fit(z, age)
    left = z - given.mean(age)
    np.testing.assert_allclose(given.covariance_, left.T @ left / (N - 2), rtol=1e-9)


def test_levels_have_their_own_means():
    z, _ = made()
    sex = np.array(["F", "M", "M", "F", "M"] * 8)
    given = Conditional("sex").fit(z, pd.Series(sex, index=range(100, 140)))
    assert given.values_ == ("F", "M")
    np.testing.assert_allclose(given.mean(["M", "F"])[0], z[sex == "M"].mean(axis=0))
    np.testing.assert_allclose(given.mean("F")[0], z[sex == "F"].mean(axis=0))
    assert given.even() == ["F", "M"]
    f = stats.f_oneway(z[sex == "F", 0], z[sex == "M", 0]).statistic
    r2 = given.r2_[0]
    assert r2 / (1 - r2) * (N - 2) == pytest.approx(f)


def test_true_and_false_are_levels():
    z, age = made()
    given = Conditional("old").fit(z, age > 50)
    np.testing.assert_allclose(given.mean([True])[0], z[age > 50].mean(axis=0))


def test_codes_of_a_site_are_groups_as_in_the_report():
    z, _ = made()
    site = np.array([1, 3, 2, 1, 3] * 8)
    given = Conditional("site").fit(z, site)
    assert given.values_ == ("1", "2", "3")
    for at in (2, 2.0, np.float32(2), "2"):
        np.testing.assert_allclose(given.mean([at])[0], z[site == 2].mean(axis=0))
    (shown,), _ = chosen(pd.DataFrame({"site": site}))
    assert tuple(shown.groups) == given.values_
    assert Conditional("site").fit(z, site + 0.5).values_ == (1.5, 3.5)  # no codes


@pytest.mark.parametrize(
    "column",
    [
        pd.array([20, None, *range(22, 60)], dtype="Int64"),
        [20, None, *range(22, 60)],
        [20, pd.NA, *range(22, 60)],
        pd.Series([20.0, np.nan, *range(22, 60)], dtype=object),
    ],
    ids=["Int64", "None", "NA", "object"],
)
def test_numbers_of_which_one_is_missing_are_numbers(column):
    z, _ = made()
    given = Conditional("age").fit(z, pd.Series(column) if hasattr(column, "dtype") else column)
    kept = np.arange(N) != 1
    ages = np.array([20, 0, *range(22, 60)])[kept]
    np.testing.assert_allclose(
        given.mean([25.5]), Conditional("age").fit(z[kept], ages).mean([25.5])
    )
    assert given.count_ == N - 1


def test_infinite_values_are_refused_in_words():
    z, age = made()
    age[3] = np.inf
    with pytest.raises(
        DataError, match="age cannot be regressed on: it has infinite values. Leave"
    ):
        Conditional("age").fit(z, age)


def test_draws_have_the_mean_and_spread_of_the_model():
    z, age = made()
    given = Conditional("age").fit(z, age)
    drawn = given.draw(40.0, 20_000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), given.mean([40.0])[0], atol=0.08)
    spread = np.sqrt(np.outer(np.diag(given.covariance_), np.diag(given.covariance_)))
    np.testing.assert_allclose(np.cov(drawn.T) / spread, given.covariance_ / spread, atol=0.04)
    np.testing.assert_array_equal(drawn, given.draw(40.0, 20_000, seed=1))
    assert not np.array_equal(drawn, given.draw(40.0, 20_000, seed=2))


def test_scans_without_a_value_are_left_out():
    z, age = made()
    gaps = age.copy()
    gaps[::4] = np.nan
    given = Conditional("age").fit(z, gaps)
    kept = ~np.isnan(gaps)
    np.testing.assert_allclose(
        given.mean([30.0, 60.0]), Conditional("age").fit(z[kept], age[kept]).mean([30.0, 60.0])
    )
    assert given.count_ == kept.sum()


def test_values_to_look_at_reach_over_the_range():
    z, age = made()
    even = Conditional("age").fit(z, age).even(5)
    np.testing.assert_allclose(even, np.linspace(age.min(), age.max(), 5))


def test_an_extrapolation_warns():
    z, age = made()
    given = Conditional("age").fit(z, age)
    with pytest.warns(
        UserWarning, match=r"age 95 lies outside the range that was seen.*extrapolation"
    ):
        given.mean([50, 95])


def test_what_cannot_be_learned_or_asked_is_refused():
    z, age = made()
    with pytest.raises(NidlError, match="not fitted"):
        Conditional("age").mean([50])
    with pytest.raises(ShapeError, match=r"belong together, got \(40, 3\) and 39"):
        Conditional("age").fit(z, age[:-1])
    with pytest.raises(DataError, match="age has 1 values in 40 scans: too little"):
        Conditional("age").fit(z, np.full(N, 50.0))
    with pytest.raises(DataError, match="a value for each scan"):
        Conditional("name").fit(z, [f"person {i}" for i in range(N)])
    given = Conditional("sex").fit(z, ["F", "M"] * 20)
    with pytest.raises(
        InvalidParameter, match=r"at must be a sex that was seen: 'F', 'M', got at='X'"
    ):
        given.mean(["F", "X"])
    with pytest.raises(InvalidParameter, match="finite numbers of age"):
        Conditional("age").fit(z, age).mean(["old"])
