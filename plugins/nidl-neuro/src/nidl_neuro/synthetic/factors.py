"""Who a synthetic person is: the causes, drawn from (seed, index), and what follows from them.

A causal model in the sense of Pearl: each person has their own noise, and equations lead from age,
sex and that noise to the size and state of the brain. An intervention keeps the noise. The effects
are of the order found in large cohorts (Bethlehem et al. 2022, Brain charts for the human lifespan).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.synthetic.deformation import RESIDUAL_SHAPE, SHAPE_MODES

SITES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PURPOSES = ("person", "residual", "lesion", "scan")


@dataclass(frozen=True)
class Intervention:
    """Causes set from outside; None leaves one as it was drawn."""

    age: float | None = None
    sex: str | None = None
    site: str | None = None
    lesion: bool | None = None


@dataclass(frozen=True, eq=False)
class Person:
    """All that makes an anatomy, but for a lesion. Sizes are relative to MNI152."""

    age: float  # years
    sex: str  # "F" or "M"
    site: str
    head_scale: float  # a factor of length
    cortical_thickness: float  # a factor, at most 1
    ventricle_growth: float  # mm of flow towards the lateral ventricles
    shape: NDArray[np.float64]  # (4,), standard normal within 2.5
    residual: NDArray[np.float64] = field(repr=False)  # (3, 10, 11, 10) mm, the individual shape


def draw_person(
    seed: int, index: int, ages: tuple[float, float], sites: int, do: Intervention
) -> Person:
    """The person `index` of the population `seed`, under the intervention `do`."""
    rng = generator(seed, index, "person")
    drawn, noise = rng.random(3), normal(rng, 3 + len(SHAPE_MODES))
    age = ages[0] + (ages[1] - ages[0]) * drawn[0] if do.age is None else do.age
    sex = "FM"[int(2 * drawn[1])] if do.sex is None else do.sex
    site = SITES[int(sites * drawn[2])] if do.site is None else do.site
    male, size, decades = float(sex == "M"), noise[0], max(age - 20, 0) / 10
    thickness = 0.975 - 0.02 * decades - 0.005 * male + 0.005 * size + 0.015 * noise[1]
    growth = (0.48 + 0.05 * male) * decades**1.5 - 0.8 + 0.4 * size + 1.2 * noise[2]
    return Person(
        age=float(age),
        sex=sex,
        site=site,
        head_scale=float(0.915 + 0.04 * male + 0.02 * size),
        cortical_thickness=float(np.clip(thickness, 0.7, 1)),
        ventricle_growth=float(growth),
        shape=noise[3:],
        residual=3.0 * normal(generator(seed, index, "residual"), RESIDUAL_SHAPE),
    )


def generator(seed: int, index: int, purpose: str) -> np.random.Generator:
    """The random numbers of one person for one purpose, independent of all others."""
    key = (index, _PURPOSES.index(purpose))
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


def normal(rng: np.random.Generator, shape: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal numbers; those beyond 2.5 are moved there, so that no anatomy is extreme."""
    return np.clip(rng.standard_normal(shape), -2.5, 2.5)
