"""Data to learn on: a cohort of synthetic brains whose causes are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from nidl_core.errors import InvalidParameter
from nidl_neuro.synthetic.cohort import SyntheticCohort, SyntheticScan
from nidl_neuro.synthetic.factors import SITES

__all__ = ["SyntheticCohort", "SyntheticScan", "synthetic_cohort"]


def synthetic_cohort(
    n: int = 100,
    *,
    size: int | tuple[int, int, int] = 64,
    seed: int = 0,
    sites: int = 2,
    lesions: float = 0.0,
    age: tuple[float, float] = (20.0, 85.0),
) -> SyntheticCohort:
    """`n` synthetic T1-weighted brain scans, each computed when it is asked for.

    The anatomy is that of MNI152 (the maps that nilearn carries, nothing is downloaded), pulled back
    through a smooth invertible deformation that a person's age, sex, size and shape determine, and
    seen by the scanner of a site. Nobody was scanned: use it for demos, for tests, and to measure
    disentanglement, site leakage and anomaly detection where the truth is known, never as evidence
    about brains.

    A person depends on `seed` and index alone: neither on `n` nor on the order of access, and in mm
    not on `size`. `sites`, `lesions` and `age` change what they name, and nothing else. The scanners
    of the sites and the modes of shape are those of all cohorts, whatever the seed.

    n: people.
    size: voxels, (X, Y, Z) or one number for all; 8 to 256. The voxels are isotropic, of the size at
        which the grid covers 168 x 192 x 168 mm: 3 mm for 64 and for (56, 64, 56).
    seed: which people, 0 or more.
    sites: from how many scanners, 1 to 26, named "A", "B", ... Each person has one by chance.
    lesions: the probability with which a person has a focal lesion of the white matter.
    age: the youngest and the oldest, within 18 to 95 years; uniform between them.

    Raises `InvalidParameter`.

    >>> cohort = synthetic_cohort(20, size=32)
    >>> scan = cohort[3]
    >>> scan.array.shape, scan.id, scan.lesion
    ((32, 32, 32), 'sub-0004', None)
    >>> older = cohort.counterfactual(3, age=80)
    >>> older.factors["ventricle_ml"] > scan.factors["ventricle_ml"]
    True
    """
    _check_count("n", n, 1, None)
    _check_count("seed", seed, 0, None)
    _check_count("sites", sites, 1, len(SITES))
    if not _is_number(lesions) or not 0 <= lesions <= 1:
        raise InvalidParameter("lesions", lesions, "a probability, from 0 to 1")
    return SyntheticCohort(
        n=int(n),
        size=_checked_size(size),
        seed=int(seed),
        sites=int(sites),
        lesions=float(lesions),
        age=_checked_ages(age),
    )


def _check_count(parameter: str, value: object, least: int, most: int | None) -> None:
    if _is_int(value) and least <= value and (most is None or value <= most):  # type: ignore[operator]
        return
    upto = f"from {least} to {most}" if most is not None else f"of at least {least}"
    raise InvalidParameter(parameter, value, f"an int {upto}")


def _checked_size(size: object) -> tuple[int, int, int]:
    counts = [size] * 3 if _is_int(size) else size
    if isinstance(counts, Sequence) and len(counts) == 3:
        if all(_is_int(count) and 8 <= count <= 256 for count in counts):
            first, second, third = (int(count) for count in counts)
            return first, second, third
    raise InvalidParameter("size", size, "an int from 8 to 256, or three of them, (X, Y, Z)")


def _checked_ages(age: object) -> tuple[float, float]:
    if isinstance(age, Sequence) and len(age) == 2 and all(_is_number(limit) for limit in age):
        if 18 <= age[0] <= age[1] <= 95:
            return float(age[0]), float(age[1])
    raise InvalidParameter("age", age, "(youngest, oldest) within 18 to 95 years")


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
