"""Linear probes: how much of a covariate can be read from latents, by a linear model.

A number: ridge regression, R2. Groups: logistic regression, balanced accuracy. Both on features
scaled to mean 0 and standard deviation 1, by the training folds alone.
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
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nidl_neuro.report.covariates import Covariate

Floats = NDArray[np.float64]
FOLDS = 5
_FEWEST = 10  # scans to learn from
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
    covariate: Covariate, latents: Floats, components: Floats, seed: int
) -> Probe | str:
    """The probe of one covariate by `FOLDS`-fold cross-validation, or why there is none.

    Latents (N, L) and components (N, K) are split alike. The score is that of all scans together,
    each predicted by a model that did not see it.
    """
    is_number, known, note = covariate.is_number, covariate.known, ""
    if known.sum() < _FEWEST:
        return _too_few(known)
    folds: Any = KFold(FOLDS, shuffle=True, random_state=seed)
    if not is_number:
        known, note = _with_enough(covariate, FOLDS)
        if len(set(covariate.values[known])) < 2:
            return f"fewer than two groups have {FOLDS} scans"
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    y = _target(covariate, known)

    def score(features: Floats) -> float:
        predicted = _quiet(cross_val_predict, _model(is_number), features[known], y, cv=folds)
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
) -> Probe | str:
    """The probe of one covariate, learnt on some scans and scored on `other`, or why there is none.

    `latents` and `components` are those of the scans to learn from and of the others.
    """
    is_number, train, test, note = covariate.is_number, covariate.known, other.known, ""
    if train.sum() < _FEWEST:
        return _too_few(train)
    if not is_number:
        train, note = _with_enough(covariate, 2)
        test = test & np.isin(other.values, list(set(covariate.values[train])))
    y, truth = _target(covariate, train), _target(other, test)
    if len(set(y)) < 2 or len(set(truth)) < 2:
        return "the scans to learn from, or those held out, do not vary in it"

    def score(pair: tuple[Floats, Floats]) -> float:
        model = _quiet(_model(is_number).fit, pair[0][train], y)
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


def _with_enough(covariate: Covariate, least: int) -> tuple[NDArray[np.bool_], str]:
    """The scans (N,) in groups of at least so many, and which groups that leaves out."""
    counts = {
        group: int((covariate.values[covariate.known] == group).sum()) for group in covariate.groups
    }
    small = [group for group, count in counts.items() if count < least]
    keep = covariate.known & ~np.isin(covariate.values, small)
    return keep, f"without {', '.join(small)} (fewer than {least} scans)" if small else ""


def _model(is_number: bool) -> Any:
    if is_number:
        return make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))
    return make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000)
    )


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


def _too_few(known: NDArray[np.bool_]) -> str:
    return f"it has {int(known.sum())} values, a probe needs {_FEWEST}"


def _quiet(call: Any, *args: Any, **params: Any) -> Any:
    """Without the warning that a solver stopped early: the prediction stands for itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return call(*args, **params)
