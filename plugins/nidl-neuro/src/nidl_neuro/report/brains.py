"""Volumes for the pictures: scans beside their reconstructions, samples, traversals.

S is the prepared grid; everything is as prepared, not in scanner units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.report.about import mask_of
from nidl_neuro.report.facts import Facts, Group
from nidl_neuro.report.latents import Posterior

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # standard deviations of the scans' posterior means
_DIMENSIONS = 6
_SAMPLES = 6
_WORST = 3
Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Example:
    """A scan, what the model makes of it, and its error: the rank-th smallest of `of`."""

    id: str
    group: str
    scan: Volume  # (*S)
    reconstruction: Volume
    error: float
    rank: int
    of: int


@dataclass(frozen=True, eq=False)
class Traversal:
    """What the decoder makes of one dimension at each of `STEPS`, the others at their mean."""

    dimension: int
    volumes: tuple[Volume, ...]

    @property
    def change(self) -> Volume:
        """The last less the first."""
        return np.asarray(self.volumes[-1] - self.volumes[0])


@dataclass(frozen=True, eq=False)
class Brains:
    """All volumes that the page shows."""

    examples: tuple[Example, ...]
    worst: tuple[Example, ...]
    samples: tuple[Volume, ...]
    traversals: tuple[Traversal, ...]
    mask: NDArray[np.bool_] | None  # (*S)


def collect(model: Any, facts: Facts, *, seed: int = 0) -> Brains:
    """Good, middling and poor reconstructions, the worst of all, samples, and traversals."""
    shown = facts.groups[-1]
    order = np.argsort(shown.errors, kind="stable")
    ranks = sorted({round(share * (len(order) - 1)) for share in (0.1, 0.5, 0.9)})
    return Brains(
        examples=tuple(_example(model, shown, order, rank) for rank in ranks),
        worst=tuple(
            _example(model, group, np.argsort(group.errors, kind="stable"), rank)
            for group, rank in worst(facts, _WORST)
        ),
        samples=tuple(model.sample(_SAMPLES, seed=seed).float().cpu().numpy()[:, 0]),
        traversals=tuple(_traversal(model, facts.data.latents, k) for k in _most_active(facts)),
        mask=mask_of(model),
    )


def worst(facts: Facts, most: int) -> list[tuple[Group, int]]:
    """The scans with the largest errors, the worst first: their group, and their rank from the smallest."""
    ranked = [
        (float(error), group, rank)
        for group in facts.groups
        for rank, error in enumerate(np.sort(group.errors, kind="stable"))
    ]
    ranked.sort(key=lambda one: -one[0])
    return [(group, rank) for _, group, rank in ranked[:most]]


def _most_active(facts: Facts) -> list[int]:
    latents = facts.data.latents
    return [int(k) for k in latents.order if latents.active[k]][:_DIMENSIONS]


def _example(model: Any, group: Group, order: NDArray[np.intp], rank: int) -> Example:
    row = int(order[rank])
    scan = np.asarray(group.data.x[row : row + 1])
    back = np.asarray(model.reconstruct(scan))
    error = float(group.errors[row])
    return Example(
        group.data.ids[row], group.name, scan[0, 0], back[0, 0], error, rank + 1, len(order)
    )


def _traversal(model: Any, latents: Posterior, dimension: int) -> Traversal:
    z = np.repeat(latents.mean.mean(axis=0)[None], len(STEPS), axis=0)
    z[:, dimension] += np.array(STEPS) * latents.mean[:, dimension].std(ddof=1)
    volumes = np.asarray(model.inverse_transform(z.astype(np.float32)))[:, 0]
    return Traversal(dimension, tuple(volumes))
