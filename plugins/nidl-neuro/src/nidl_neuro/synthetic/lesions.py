"""Focal lesions: irregular dark spots in the white matter, with their masks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.synthetic.anatomy import (
    FLUID,
    MEASURED,
    Anatomy,
    Map,
    deep_white_matter,
    render,
)
from nidl_neuro.synthetic.deformation import Array, Axes, Deformation, regular_axes, spline
from nidl_neuro.synthetic.factors import normal

_KNOTS = 5  # an axis, of the lattice that makes the outline irregular
_EDGE = 1.5  # mm over which a lesion fades, if voxels were points


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion in the person's own space."""

    centre: NDArray[np.float64]  # (3,) mm
    radius: float  # mm, before the outline is made irregular
    severity: float  # 0 to 1: how far its middle goes from tissue to fluid
    outline: Array = field(repr=False)  # (1, 5, 5, 5), relative to the radius
    volume_ml: float = 0.0


def draw_lesion(rng: np.random.Generator, deformation: Deformation) -> Lesion:
    """A lesion of 6 to 13 mm radius about a random point deep in the person's white matter.

    The point is drawn in MNI152, so that it is the same place in a brain of any shape.
    """
    deep = deep_white_matter()
    lesion = Lesion(
        centre=deformation.where(deep[int(rng.random() * len(deep))]),
        radius=6 + 7 * rng.random() ** 2,
        severity=0.5 + 0.4 * rng.random(),
        outline=0.3 * normal(rng, (1, _KNOTS, _KNOTS, _KNOTS)),
    )
    return Lesion(**{**vars(lesion), "volume_ml": _volume(lesion, deformation)})


def apply(
    lesion: Lesion, body: Anatomy, axes: Axes, voxel: float
) -> tuple[Map, Map, NDArray[np.bool_]]:
    """The ideal T1 and the grey matter (*S) with the lesion in them, and its mask (*S).

    The mask holds the voxels at least half lesion; in a grid too coarse to have one, the nearest.
    """
    part = _profile(lesion, axes, voxel) * np.clip(body.grey + body.white, 0, 1)
    dark = np.float32(lesion.severity) * part
    t1 = body.t1 - dark * np.clip(body.t1 - FLUID, 0, None)
    mask = part >= 0.5
    if not mask.any():
        nearest = (np.abs(a - c).argmin() for a, c in zip(axes, lesion.centre, strict=True))
        mask[tuple(nearest)] = True
    return t1, body.grey * (1 - dark), mask


def _volume(lesion: Lesion, deformation: Deformation) -> float:
    step = 1.5
    axes = regular_axes(lesion.centre, (33, 33, 33), step)
    body = render(deformation, 1.0, axes, MEASURED)
    _, _, mask = apply(lesion, body, axes, step)
    return float(mask.sum()) * step**3 / 1000


def _profile(lesion: Lesion, axes: Axes, voxel: float) -> Map:
    """How much of each point (*S) is lesion, 0 to 1: a ball with an irregular, soft edge."""
    reach = 2 * lesion.radius
    offsets = [axis - centre for axis, centre in zip(axes, lesion.centre, strict=True)]
    x, y, z = np.meshgrid(*offsets, indexing="ij", sparse=True)
    distance = np.sqrt(x**2 + y**2 + z**2) / lesion.radius
    knots = regular_axes(lesion.centre, (_KNOTS,) * 3, reach / (_KNOTS - 1))
    inside = distance + spline(lesion.outline, knots, axes)[0] - 1
    return np.asarray(np.clip(0.5 - inside * lesion.radius / (_EDGE + voxel), 0, 1), np.float32)
