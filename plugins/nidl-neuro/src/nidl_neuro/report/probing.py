"""Linear probes: how much of a covariate can be read from latents, by a linear model.

A number: ridge regression, R2. Groups: logistic regression, balanced accuracy. Both on features
scaled to mean 0 and standard deviation 1, by the training folds alone. All scans of a person are in
one fold: latents that know who someone is would else be rewarded for it.

N scans; `people` (N,) says whose they are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nidl_neuro.covariates import Covariate

Floats = NDArray[np.float64]
Names = NDArray[np.str_]
Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]
FOLDS = 5
_FEWEST = 10  # people to learn from
_PENALTIES = np.logspace(-3, 4, 15)


@dataclass(frozen=True)
class Probe:
    """What came out for one covariate. `score` and `baseline` are R2 or balanced accuracy."""

    name: str
    is_number: bool
    score: float  # from the model's latents
    baseline: float  # from as many principal components
    chance: float
    scans: int  # that were predicted
    note: str = ""


def cross_validated(
    covariate: Covariate, latents: Floats, components: Floats, people: Names, seed: int
) -> Probe | str:
    """The probe of one covariate by `FOLDS`-fold cross-validation, or why there is none.

    Latents (N, L) and components (N, K) are split alike. The score is that of all scans together,
    each predicted by a model that saw no scan of its person.
    """
    is_number, known, note = covariate.is_number, covariate.known, ""
    if why := _too_few(people[known]):
        return why
    if not is_number:
        known, note = _with_enough(covariate, people, FOLDS)
        if len(set(covariate.values[known])) < 2:
            return f"fewer than two groups have scans of {FOLDS} people"
    y, people = _target(covariate, known), people[known]
    folds = _folds(y, people, is_number, seed)
    if any(len(set(y[train])) < 2 for train, _ in folds):
        return "without the people of one fold, it does not vary"

    def score(features: Floats) -> float:
        x, predicted = features[known], np.empty_like(y)
        for train, test in folds:
            model = _fitted(x[train], y[train], people[train], is_number)
            predicted[test] = model.predict(x[test])
        return _score(is_number, y, predicted)

    return Probe(
        covariate.name,
        is_number,
        score(latents),
        score(components),
        _chance(is_number, y),
        len(y),
        note,
    )


def held_out(
    covariate: Covariate,
    other: Covariate,
    latents: tuple[Floats, Floats],
    components: tuple[Floats, Floats],
    people: Names,
) -> Probe | str:
    """The probe of one covariate, learnt on some scans and scored on `other`, or why there is none.

    `latents` and `components` are those of the scans to learn from, whose `people` are given, and of
    the others. `other` must know nothing of scans of these people.
    """
    is_number, train, test, note = covariate.is_number, covariate.known, other.known, ""
    if why := _too_few(people[train]):
        return why
    if not is_number:
        train, note = _with_enough(covariate, people, 2)
        test = test & np.isin(other.values, list(set(covariate.values[train])))
    y, truth = _target(covariate, train), _target(other, test)
    if len(set(y)) < 2 or len(set(truth)) < 2:
        return "the scans to learn from, or those held out, do not vary in it"

    def score(pair: tuple[Floats, Floats]) -> float:
        model = _fitted(pair[0][train], y, people[train], is_number)
        return _score(is_number, truth, model.predict(pair[1][test]))

    return Probe(
        covariate.name,
        is_number,
        score(latents),
        score(components),
        _chance(is_number, truth),
        len(truth),
        note,
    )


def _folds(y: NDArray[Any], people: Names, is_number: bool, seed: int) -> Folds:
    """Rows to learn from and rows to predict; everyone's scans are in one fold."""
    several = len(set(people)) < len(people)
    kinds = (GroupKFold, StratifiedGroupKFold) if several else (KFold, StratifiedKFold)
    splitter = kinds[not is_number](FOLDS, shuffle=True, random_state=seed)
    parts = splitter.split(y, y, people if several else None)
    return [(train, test) for train, test in parts if len(test)]


def _fitted(x: Floats, y: NDArray[Any], people: Names, is_number: bool) -> Any:
    """The linear model; the penalty of a ridge by leaving out scans, or everyone's scans together."""
    if is_number:
        several = len(set(people)) < len(people)
        inner = list(GroupKFold(FOLDS).split(x, y, people)) if several else None
        score = "neg_mean_squared_error" if several else None
        model: Any = RidgeCV(_PENALTIES, cv=inner, scoring=score)
    else:
        model = LogisticRegression(class_weight="balanced", max_iter=5000)
    with warnings.catch_warnings():  # that a solver stopped early: the prediction stands for itself
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), model).fit(x, y)


def _with_enough(covariate: Covariate, people: Names, least: int) -> tuple[NDArray[np.bool_], str]:
    """The scans (N,) in groups of at least so many people, and which groups that leaves out."""
    small = [
        group
        for group in covariate.groups
        if len(set(people[covariate.known & (covariate.values == group)])) < least
    ]
    keep = covariate.known & ~np.isin(covariate.values, small)
    return keep, f"without {', '.join(small)} (fewer than {least} people)" if small else ""


def _target(covariate: Covariate, rows: NDArray[np.bool_]) -> NDArray[Any]:
    return covariate.values[rows].astype(float if covariate.is_number else str)


def _score(is_number: bool, truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    if is_number:
        return float(r2_score(truth, predicted))
    # balanced accuracy; scikit-learn's warns of predictions that no held-out scan has
    return float(np.mean([(predicted[truth == group] == group).mean() for group in set(truth)]))


def _chance(is_number: bool, truth: NDArray[Any]) -> float:
    """The most that a guess can expect that does not look at the scan."""
    return 0.0 if is_number else 1 / len(set(truth))


def _too_few(people: Names) -> str:
    count = len(set(people))
    return f"it has values of {count} people, a probe needs {_FEWEST}" if count < _FEWEST else ""
