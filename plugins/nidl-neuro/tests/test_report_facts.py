"""The numbers of a report, each against another way to compute it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import decomposition
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch.distributions import Normal, kl_divergence

from nidl_neuro.bound import bits
from nidl_neuro.covariates import Covariate, read_as
from nidl_neuro.report import probing
from nidl_neuro.report.covariates import chosen
from nidl_neuro.report.history import Curve, curves, settled
from nidl_neuro.report.latents import Posterior, correlation, correlation_ratio
from nidl_neuro.report.pca import PCA
from nidl_neuro.report.probing import Probe, cross_validated, held_out

RNG = np.random.default_rng(0)


def numeric(values, name="age"):
    values = np.asarray(values, dtype=float)
    return Covariate(name, True, values, np.isfinite(values))


def apart(count):
    """As many scans of as many people."""
    return np.arange(count).astype(str)


def groups(values, name="site"):
    values = np.array(values, dtype=object)
    return Covariate(name, False, values, np.array([v is not None for v in values]))


# Latents ----------------------------------------------------------------------------------------


def test_kl_by_dimension_is_torch_s():
    mean, sd = RNG.normal(size=(7, 3)), RNG.uniform(0.1, 2, size=(7, 3))
    q = Normal(torch.tensor(mean), torch.tensor(sd))
    expected = kl_divergence(q, Normal(torch.zeros(7, 3), torch.ones(7, 3))).mean(0)
    np.testing.assert_allclose(Posterior(mean, sd).kl, expected, rtol=1e-6)


def test_a_unit_is_active_from_a_variance_of_its_mean_of_a_hundredth():
    signs = np.array([1.0, -1.0] * 5)[:, None]
    mean = signs * np.sqrt([0.0101, 0.0099, 4.0]) + 3  # variances, exactly
    latents = Posterior(mean, np.ones_like(mean))
    np.testing.assert_allclose(latents.spread, [0.0101, 0.0099, 4.0])
    assert latents.active.tolist() == [True, False, True]


def test_dimensions_in_use_come_first_then_those_of_large_kl():
    mean = np.array([[0.5, 5.0, 1.0, 6.0], [0.0, 5.0, 2.0, 6.0]])
    latents = Posterior(mean, np.ones_like(mean))
    assert np.argsort(-latents.kl).tolist() == [3, 1, 2, 0]
    assert latents.order.tolist() == [2, 0, 3, 1]


def test_correlation_is_pearson_s_and_nothing_without_variation():
    x, y = RNG.normal(size=(2, 20))
    assert correlation(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert math.isnan(correlation(x, np.ones(20)))


def test_the_correlation_ratio_is_that_of_an_analysis_of_variance():
    x, group = RNG.normal(size=30), np.array(["a", "b", "c"] * 10, dtype=object)
    f = stats.f_oneway(*(x[group == g] for g in "abc")).statistic
    assert correlation_ratio(x, group) == pytest.approx(math.sqrt(f * 2 / (f * 2 + 27)))
    assert math.isnan(correlation_ratio(np.ones(30), group))


# Curves -----------------------------------------------------------------------------------------


def row(epoch, bound, kl, stage="train", **more):
    rec = -bound - kl
    parts = {"elbo": bound, "rec_loss": rec, "kl_loss": kl, "loss": rec + kl}
    return {"epoch": epoch, **{f"{stage}/{name}": value for name, value in parts.items()}, **more}


def test_the_bound_is_its_fit_less_the_kl_in_every_epoch():
    history = curves([row(0, -100.0, 3.0), {**row(1, -90.0, 4.0), **row(1, -95.0, 5.0, "val")}])
    assert [(c.stage, c.epochs, c.values) for c in history.bound] == [
        ("train", (1, 2), (-100.0, -90.0)),
        ("val", (2,), (-95.0,)),
    ]
    for bound, fit, kl in zip(history.bound, history.fit, history.kl, strict=True):
        np.testing.assert_allclose(bound.values, np.subtract(fit.values, kl.values))
    assert history.adds_up


def test_parts_that_a_loss_defines_its_own_way_are_left_out():
    history = curves([{**row(0, -100.0, 3.0), "train/rec_loss": 7.0}])
    assert not history.adds_up
    assert history.fit == history.kl == ()
    assert history.bound[0].values == (-100.0,)


def test_no_history_and_epochs_that_are_not_finite_leave_no_points():
    assert curves([]).bound == ()
    assert curves([{"epoch": 0, "train/loss": 1.0}]).bound == ()
    history = curves([row(0, float("nan"), 1.0), row(1, -5.0, 1.0)])
    assert history.bound[0].epochs == (2,)


def test_an_epoch_that_went_wrong_takes_no_other_with_it():
    wrong = {**row(1, float("nan"), 4.0), **row(1, -95.0, 5.0, "val")}
    history = curves([row(0, -100.0, 3.0), wrong, row(2, -80.0, float("inf")), row(3, -70.0, 5.0)])
    assert history.adds_up
    assert history.bound[0].epochs == (1, 3, 4)
    assert history.kl[0].epochs == (1, 2, 4)
    assert history.not_finite == (2,)
    nothing = curves([dict.fromkeys(row(0, 1.0, 1.0), float("nan"))] * 2)
    assert (nothing.bound, nothing.not_finite) == ((), (1, 2))


def test_the_frame_leaves_out_first_epochs_that_would_press_the_later_ones_flat():
    steep = (-900.0, -30.0, *np.linspace(-20, -10, 10).tolist())
    one = Curve("bound", "train", tuple(range(1, 13)), steep)
    low, high = settled([one])
    later = steep[3:]
    assert (low, high) == (min(later) - (max(later) - min(later)) / 2, -10.0)
    even = Curve("bound", "val", tuple(range(1, 13)), tuple(np.linspace(-90.0, -10.0, 12)))
    assert settled([even]) is None
    assert settled([one, even]) is not None
    for few in ((1.0,), (1.0, 2.0), (3.0, 3.0, 3.0)):
        assert settled([Curve("bound", "train", tuple(range(1, len(few) + 1)), few)]) is None


def test_bits_per_voxel_are_those_of_a_uniform_guess():
    voxels = 50
    assert bits(voxels * math.log(1 / 256), voxels) == pytest.approx(8)


# PCA --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [10**6, 4 * 36])  # in one block of rows, and in eleven
def test_components_are_scikit_learn_s(at_once, monkeypatch):
    monkeypatch.setattr("nidl_neuro.report.pca._VALUES", at_once)
    count = 42
    x = RNG.normal(size=(count, 1, 3, 4, 5)) * np.linspace(1, 5, 5)
    other = RNG.normal(size=(7, 1, 3, 4, 5))
    mask = RNG.random((3, 4, 5)) < 0.6
    ours, theirs = PCA(x, mask, 3), decomposition.PCA(3, svd_solver="full")
    flat, flat_other = x[:, 0, mask], other[:, 0, mask]
    expected = theirs.fit_transform(flat)
    np.testing.assert_allclose(np.abs(ours.scores), np.abs(expected), atol=1e-8)
    left = np.square(flat - theirs.inverse_transform(expected)).sum(1)
    np.testing.assert_allclose(ours.squared_error, left, atol=1e-8)
    scores, squares = ours.transform(other)
    expected = theirs.transform(flat_other)
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), atol=1e-8)
    left = np.square(flat_other - theirs.inverse_transform(expected)).sum(1)
    np.testing.assert_allclose(squares, left, atol=1e-8)


def test_there_are_no_more_components_than_scans_less_one():
    x = RNG.normal(size=(4, 1, 2, 2, 2))
    assert PCA(x, None, 9).scores.shape == (4, 3)
    one = PCA(x[:1], None, 2)
    assert one.scores.shape == (1, 0)
    assert one.squared_error.tolist() == [0.0]


# Covariates -------------------------------------------------------------------------------------


def test_columns_are_read_as_what_they_are():
    table = pd.DataFrame(
        {
            "notes": [f"text {i}" for i in range(20)],
            "score": np.linspace(0, 1, 20),
            "scanner": [1, 2, 3, 1] * 5,
            "treated": [True, False] * 10,
            "SEX": ["F", "M"] * 10,
            "constant": 1,
            "rare": [1.5] * 3 + [None] * 17,
            "Age": [20.0] * 9 + [None] + [30.5] * 5 + [41.0] * 5,
            "endless": [np.inf] * 3 + list(range(17)),
        }
    )
    found, left = chosen(table)
    assert [c.name for c in found] == ["scanner", "SEX", "Age", "score", "treated"]
    assert [c.is_number for c in found] == [False, False, True, True, False]
    assert found[0].groups == ["1", "2", "3"]
    assert found[4].groups == ["False", "True"]
    assert found[2].known.sum() == 19
    assert left == {
        "notes": "it has a value of its own for each scan",
        "constant": "it has the same value for all scans",
        "rare": "it has 3 values, and 6 are needed",
        "endless": "it has infinite values",
    }


def test_numbers_with_a_gap_are_numbers_and_parts_of_one_are_no_codes():
    table = pd.DataFrame(
        {
            "iq": pd.array([90, None, *range(100, 118)], dtype="Int64"),
            "plain": pd.Series([90, None, *range(100, 118)], dtype=object),
            "site_1": pd.array([1, 2, None, 4] * 5, dtype="Int64"),
            "site_gain": np.linspace(0, 1, 20),
        }
    )
    found, left = chosen(table)
    assert {c.name: c.is_number for c in found} == {
        "iq": True,
        "plain": True,
        "site_1": False,
        "site_gain": True,
    }
    assert left == {}
    assert next(c for c in found if c.name == "site_1").groups == ["1", "2", "4"]
    again = read_as(found[0], table[found[0].name])
    np.testing.assert_array_equal(again.values, found[0].values)


def test_names_of_the_scans_are_no_covariate():
    found, left = chosen(pd.DataFrame({"subject": [f"P{i:02}" for i in range(10)]}))
    assert found == []
    assert left == {"subject": "it has a value of its own for each scan"}


def test_a_page_shows_twelve_columns_at_most_and_says_so():
    table = pd.DataFrame(RNG.normal(size=(10, 14)), columns=[f"x{i}" for i in range(13)] + ["age"])
    found, left = chosen(table)
    assert found[0].name == "age"
    assert len(found) == 12
    assert left == dict.fromkeys(["x11", "x12"], "the page shows 12 columns at most")


def test_groups_are_in_the_order_of_a_person():
    assert groups(["s10", "s9", "s1", None]).groups == ["s1", "s9", "s10"]


def test_the_same_column_of_other_scans_is_read_alike():
    age = read_as(numeric([1.0]), pd.Series(["33", "unknown", None]))
    assert age.known.tolist() == [True, False, False]
    assert age.values[0] == 33
    site = read_as(groups(["1"]), pd.Series([1.0, None, 2.0]))
    assert site.values[site.known].tolist() == ["1", "2"]


# Probes -----------------------------------------------------------------------------------------


def test_a_number_is_probed_by_ridge_regression_with_every_scan_held_out_once():
    z, noise = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 3))
    y = z @ [2.0, -1.0, 0.5] + RNG.normal(size=40)
    y[5] = np.nan
    probe = cross_validated(numeric(y), z, noise, apart(40), 1)

    def expected(features):
        features, target = features[np.isfinite(y)], y[np.isfinite(y)]
        predicted = np.empty_like(target)
        for train, test in KFold(5, shuffle=True, random_state=1).split(features):
            scaler = StandardScaler().fit(features[train])
            model = RidgeCV(np.logspace(-3, 4, 15))
            model.fit(scaler.transform(features[train]), target[train])
            predicted[test] = model.predict(scaler.transform(features[test]))
        return r2_score(target, predicted)

    assert probe == Probe("age", True, expected(z), expected(noise), 0.0, 39)
    assert probe.score > 0.5 > probe.baseline


def test_groups_are_probed_by_logistic_regression_and_balanced_accuracy():
    y = ["a"] * 25 + ["b"] * 12 + ["c"] * 3
    z = RNG.normal(size=(40, 2)) + np.array([[float(name == "a"), 0] for name in y])
    probe = cross_validated(groups(y), z, z[:, 1:], apart(40), 0)
    target, features = np.array(y)[:37], z[:37]
    predicted = np.empty_like(target)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(features, target):
        scaler = StandardScaler().fit(features[train])
        model = LogisticRegression(class_weight="balanced", max_iter=5000)
        model.fit(scaler.transform(features[train]), target[train])
        predicted[test] = model.predict(scaler.transform(features[test]))
    assert probe.score == pytest.approx(balanced_accuracy_score(target, predicted))
    assert probe.chance == 0.5
    assert probe.scans == 37
    assert probe.note == "without c (fewer than 5 people)"


def test_labels_that_were_shuffled_are_read_no_better_than_by_chance():
    scores = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        probe = cross_validated(
            groups(list(rng.permutation(["a", "b"] * 30))),
            *[rng.normal(size=(60, 4))] * 2,
            apart(60),
            seed,
        )
        scores.append(probe.score - probe.chance)
    assert abs(np.mean(scores)) < 0.08


def test_held_out_scans_are_predicted_by_what_others_taught():
    z, further = RNG.normal(size=(30, 2)), RNG.normal(size=(12, 2))
    y, truth = z[:, 0] * 3 + 50, further[:, 0] * 3 + 50
    probe = held_out(
        numeric(y), numeric(truth), (z, further), (z[:, 1:], further[:, 1:]), apart(30)
    )
    scaler = StandardScaler().fit(z)
    model = RidgeCV(np.logspace(-3, 4, 15)).fit(scaler.transform(z), y)
    expected = r2_score(truth, model.predict(scaler.transform(further)))
    assert probe.score == pytest.approx(expected)
    assert probe.score > 0.99 > probe.baseline
    assert probe.scans == 12


def test_held_out_scans_of_unknown_groups_do_not_count():
    z = RNG.normal(size=(20, 2))
    own, other = ["a", "b"] * 10, ["a", "b", "new", None] * 5
    probe = held_out(groups(own), groups(other), (z, z), (z, z), apart(20))
    assert probe.scans == 10
    assert probe.chance == 0.5


@pytest.mark.parametrize(
    ("covariate", "why"),
    [
        (numeric([1.0, 2.0] * 4), "it has values of 8 people, a probe needs 10"),
        (groups(["a"] * 9 + ["b"] * 3), "fewer than two groups have scans of 5 people"),
    ],
)
def test_what_cannot_be_probed_is_told(covariate, why):
    z = RNG.normal(size=(len(covariate.values), 2))
    assert cross_validated(covariate, z, z, apart(len(z)), 0) == why


def test_held_out_scans_that_are_all_alike_are_told():
    z = RNG.normal(size=(12, 1))
    why = held_out(numeric(np.arange(12.0)), numeric([5.0] * 12), (z, z), (z, z), apart(12))
    assert why == "the scans to learn from, or those held out, do not vary in it"


# Several scans of a person ----------------------------------------------------------------------


def of_few(seed, count=20, sessions=4, width=16):
    """Latents that only know who it is, and a number and a group that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(count), sessions)
    z = rng.normal(size=(count, width))[who] + 0.2 * rng.normal(size=(len(who), width))
    return z, rng.normal(size=count)[who], rng.permutation(["F", "M"] * (count // 2))[who], who


def test_latents_that_know_only_who_it_is_tell_nothing_else():
    found = []
    for seed in range(10):
        z, iq, sex, who = of_few(seed)
        pair = z, z, who.astype(str), seed
        number, group = cross_validated(numeric(iq), *pair), cross_validated(groups(sex), *pair)
        assert (number.scans, group.scans) == (80, 80)
        found.append((number.score, group.score))
    r2, accuracy = np.mean(found, axis=0)
    assert -0.4 < r2 < 0.05  # the penalty too is chosen by people: by scans it would be far below
    assert abs(accuracy - 0.5) < 0.1


def test_every_scan_is_predicted_once_by_what_saw_no_other_of_its_person():
    _, iq, sex, who = of_few(0)
    mixed = np.array(["a", "b", "b", "c"] * 20)  # varies within everyone
    for y, is_number in ((iq, True), (sex, False), (mixed, False)):
        folds = probing._folds(y, who.astype(str), is_number, 3)
        assert len(folds) == 5
        assert sorted(np.concatenate([test for _, test in folds])) == list(range(80))
        for train, test in folds:
            assert not set(who[train]) & set(who[test])


def test_a_number_of_few_people_is_a_grouped_ridge_regression():
    z, iq, _, who = of_few(1, sessions=3)
    y = iq + z[:, 0]
    probe = cross_validated(numeric(y), z, z, who.astype(str), 2)
    predicted = np.empty_like(y)
    outer = GroupKFold(5, shuffle=True, random_state=2)
    for train, test in outer.split(z, y, who.astype(str)):
        scaler = StandardScaler().fit(z[train])
        x, seen = scaler.transform(z[train]), who[train].astype(str)
        errors = [
            np.mean(
                [
                    np.mean(
                        (Ridge(penalty).fit(x[a], y[train][a]).predict(x[b]) - y[train][b]) ** 2
                    )
                    for a, b in GroupKFold(5).split(x, groups=seen)
                ]
            )
            for penalty in np.logspace(-3, 4, 15)
        ]
        best = Ridge(np.logspace(-3, 4, 15)[int(np.argmin(errors))]).fit(x, y[train])
        predicted[test] = best.predict(scaler.transform(z[test]))
    assert probe.score == pytest.approx(r2_score(y, predicted))


def test_many_scans_of_few_people_are_not_probed():
    z, iq, _, who = of_few(0, count=8, sessions=9)
    pair = z, z, who.astype(str)
    why = "it has values of 8 people, a probe needs 10"
    assert cross_validated(numeric(iq), *pair, 0) == why
    assert held_out(numeric(iq), numeric(iq), (z, z), (z, z), who.astype(str)) == why
    z, _, _, who = of_few(0, count=12)
    group = np.where(who < 3, "rare", np.where(who % 2, "a", "b"))
    probe = cross_validated(groups(group), z, z, who.astype(str), 0)
    assert probe == "fewer than two groups have scans of 5 people"
