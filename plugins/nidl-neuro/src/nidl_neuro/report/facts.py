"""Everything that the report says in numbers: plain values and arrays, nothing drawn.

N scans, L latent dimensions, S the prepared grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.covariates import Covariate, read_as
from nidl_neuro.data import Scans
from nidl_neuro.overlap import people
from nidl_neuro.report.about import About, about, mask_of, voxels_of
from nidl_neuro.report.apart import Apart, apart
from nidl_neuro.report.covariates import chosen
from nidl_neuro.report.history import History, curves
from nidl_neuro.report.latents import Posterior, correlation, correlation_ratio, posterior
from nidl_neuro.report.pca import PCA
from nidl_neuro.report.probing import Probe, cross_validated, held_out

_MOST_PROBED = 1000  # scans that the PCA and the probes look at
_ROWS = 16  # volumes in memory at once
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Group:
    """Some scans, and how the model does on them. The bound and its parts are means, in nats."""

    name: str
    data: Scans
    latents: Posterior
    bound: float
    errors: Floats  # root mean square over the voxels that count, of each scan: (N,)
    baseline: float  # the same over all scans, of as many principal components

    @property
    def kl(self) -> float:
        """KL(q(z | x) || prior)."""
        return float(self.latents.kl.sum())

    @property
    def fit(self) -> float:
        """E[log p(x | z)]: the bound without the KL."""
        return self.bound + self.kl

    @property
    def error(self) -> float:
        """Root mean square over all scans and the voxels that count."""
        return float(np.sqrt(np.square(self.errors).mean()))


@dataclass(frozen=True, eq=False)
class Probing:
    """The linear probes, and how they were made."""

    probes: tuple[Probe, ...]
    left_out: Mapping[str, str]  # covariate -> why it has none
    held_out: bool  # learnt on the data and scored on held-out scans; else cross-validated
    components: int  # of the PCA beside it: fewer than L where there are too few scans
    scans: int  # that the PCA was fitted on, and the probes learn from
    people: int  # whom these scans are of


@dataclass(frozen=True, eq=False)
class Facts:
    """All of it."""

    about: About
    history: History
    data: Group
    val: Group | None
    apart: Apart | None  # how the held-out scans differ from the data
    covariates: tuple[Covariate, ...]
    links: Floats  # |r| or eta of each dimension with each covariate: (L, covariates)
    left_out: Mapping[str, str]  # column -> why it is not shown
    probing: Probing
    refused: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The scans of the report, and the held-out ones where there are any."""
        return (self.data,) if self.val is None else (self.data, self.val)


def gather(model: Any, data: Scans, val: Scans | None = None, *, seed: int = 0) -> Facts:
    """Compute the facts of a fitted model on scans, and on held-out ones.

    `seed` is that of cross-validation, and of the scans that PCA and probes see if there are more
    than 1000. Volumes are read a few at a time. Raises `DataError` if all held-out scans are among
    the data.
    """
    parted = None if val is None else apart(data, val)
    rows = _some(len(data), seed)
    latents = posterior(model, data)
    pca = PCA(_Picked(data.x, rows), mask_of(model), latents.mean.shape[1])
    name = "scans of this report" if val is None else "main scans"
    own = _group(model, data, latents, name, pca.squared_error)
    further, scores = None, None
    if parted is not None:
        new = parted.data
        scores, squared_error = pca.transform(new.x)
        further = _group(model, new, posterior(model, new), "held-out scans", squared_error)
    covariates, left_out = chosen(data.covariates)
    whose = np.array(people(data))[rows]
    results = {}
    for covariate in covariates:
        seen, means = covariate.take(rows), latents.mean[rows]
        if further is None or parted is None or scores is None:
            found = cross_validated(seen, means, pca.scores, whose, seed)
        elif covariate.name not in further.data.covariates.columns:
            found = "the held-out scans' table does not have it"
        else:
            other = read_as(covariate, further.data.covariates[covariate.name])
            other = other.without(parted.of_known)
            pairs = (means, further.latents.mean), (pca.scores, scores)
            found = held_out(seen, other, *pairs, whose)
        results[covariate.name] = found
    groups = [own] if further is None else [own, further]
    return Facts(
        about=about(model, data),
        history=curves(getattr(model, "history_", None) or []),
        data=own,
        val=further,
        apart=parted,
        covariates=tuple(covariates),
        links=_links(latents, covariates),
        left_out=left_out,
        probing=Probing(
            tuple(probe for probe in results.values() if isinstance(probe, Probe)),
            {name: why for name, why in results.items() if isinstance(why, str)},
            held_out=val is not None,
            components=pca.scores.shape[1],
            scans=len(rows),
            people=len(set(whose)),
        ),
        refused={name: why for group in groups for name, why in group.data.cohort.refused.items()},
        notes=tuple(dict.fromkeys(note for group in groups for note in _notes(group.data))),
    )


def rms_errors(model: Any, x: Any) -> Floats:
    """What reconstructions miss of each row of x (N, 1, *S), root mean square: (N,)."""
    mask, errors = mask_of(model), []
    for start in range(0, len(x), _ROWS):
        rows = np.asarray(x[start : start + _ROWS])
        missed = (np.asarray(model.reconstruct(rows), dtype=np.float64) - rows)[:, 0]
        counted = missed.reshape(len(rows), -1) if mask is None else missed[:, mask]
        errors.append(np.sqrt(np.square(counted).mean(axis=1)))
    return np.concatenate(errors)


def _group(model: Any, data: Scans, latents: Posterior, name: str, squared_error: Floats) -> Group:
    baseline = float(np.sqrt(squared_error.mean() / voxels_of(model)))
    bound, errors = float(model.score(data)), rms_errors(model, data.x)
    return Group(name, data, latents, bound, errors, baseline)


def _some(count: int, seed: int) -> NDArray[np.intp]:
    """All rows, or as many as are probed, by chance and in order."""
    if count <= _MOST_PROBED:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _MOST_PROBED, replace=False))


def _notes(data: Scans) -> list[str]:
    """What a person should know, without what was left out: that has a table of its own."""
    return [note for note in data.notes if not note.startswith("left out: ")]


class _Picked:
    """Some rows of x, read when they are indexed by a slice."""

    def __init__(self, x: Any, rows: NDArray[np.intp]) -> None:
        self._x, self._rows = x, rows
        self.shape = (len(rows), *x.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: slice) -> Any:
        return self._x[self._rows[index]]


def _links(latents: Posterior, covariates: list[Covariate]) -> Floats:
    links = np.full((latents.mean.shape[1], len(covariates)), np.nan)
    for column, covariate in enumerate(covariates):
        values = covariate.values[covariate.known]
        for row, latent in enumerate(latents.mean[covariate.known].T):
            if covariate.is_number:
                links[row, column] = abs(correlation(latent, values.astype(float)))
            else:
                links[row, column] = correlation_ratio(latent, values)
    return links
