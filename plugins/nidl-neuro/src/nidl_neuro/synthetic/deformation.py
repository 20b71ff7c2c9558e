"""Smooth invertible maps of space: velocities on a lattice, their exponential, and its interpolation.

Everything is in mm of MNI152 space (RAS+) and knows no voxel grid, so that a person has the same
shape at any resolution. Shapes: M lattice nodes (i, j, k), S any grid of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Array = NDArray[np.float64]
Axes = tuple[Array, Array, Array]  # the coordinates of a regular grid, in mm, one 1-D array an axis

CENTRE = np.array([0.0, -17.0, 5.0])  # of the brain of MNI152; heads grow and shrink about it
STEP = 6.0  # of the lattice, in mm
_RADII = np.array([70.0, 90.0, 77.0])  # of that brain


def regular_axes(centre: Sequence[float] | Array, counts: Sequence[int], step: float) -> Axes:
    """The axes of a grid of `counts` points, `step` mm apart, about `centre`."""
    first, second, third = (
        c + step * (np.arange(n) - (n - 1) / 2) for c, n in zip(centre, counts, strict=True)
    )
    return first, second, third


LATTICE = regular_axes(CENTRE, (31, 37, 33), STEP)  # 90 mm to each side, 108 and 96
_COARSE_STEP = 24.0
_COARSE = regular_axes(CENTRE, (10, 11, 10), _COARSE_STEP)  # reaches over the lattice
RESIDUAL_SHAPE = (3, *(len(axis) for axis in _COARSE))
SHAPE_MODES = ("elongation", "flatness", "taper", "bend")


@dataclass(frozen=True)
class Deformation:
    """y -> x(y): where in MNI152 space the anatomy at point y of a person comes from.

    x(y) = p + u(p) with p = CENTRE + (y - CENTRE) / scale, and u a cubic B-spline on the lattice,
    constant beyond its border.
    """

    displacement: Array  # (3, *M), u in mm
    scale: float  # size of the head relative to MNI152, a factor of length

    def at(self, axes: Axes) -> Array:
        """x (3, *S) in mm at the points of a regular grid."""
        points = self._unscaled(axes)
        moved = spline(self.displacement, LATTICE, points)
        for axis, grid in enumerate(np.meshgrid(*points, indexing="ij", sparse=True)):
            moved[axis] += grid
        return moved

    def where(self, place: Array) -> Array:
        """The point y (3,) of the person whose anatomy comes from `place` x (3,), to 1 mm."""
        near = CENTRE
        for count, step in [(33, 6.0), (9, 1.0)]:
            axes = regular_axes(near, (count,) * 3, step)
            offsets = self.at(axes) - place[:, None, None, None]
            nearest = np.unravel_index(np.argmin((offsets**2).sum(axis=0)), (count,) * 3)
            near = np.array([axis[i] for axis, i in zip(axes, nearest, strict=True)])
        return near

    def jacobian(self, axes: Axes) -> Array:
        """det dx/dy (S) at the points of a regular grid: below 1 where the person is larger."""
        points = self._unscaled(axes)
        slopes = [spline(self.displacement, LATTICE, points, slope_along=axis) for axis in range(3)]
        matrix = np.moveaxis(np.stack(slopes, axis=1), (0, 1), (-2, -1)) + np.eye(3)
        return np.asarray(np.linalg.det(matrix)) / self.scale**3

    def _unscaled(self, axes: Axes) -> Axes:
        first, second, third = (
            c + (axis - c) / self.scale for c, axis in zip(CENTRE, axes, strict=True)
        )
        return first, second, third


def exponential(velocity: Array, squarings: int = 5) -> Array:
    """The displacement (3, *M) at time 1 of the flow of a stationary `velocity` (3, *M), in mm.

    Scaling and squaring: Arsigny et al. 2006, A log-Euclidean framework for statistics on
    diffeomorphisms.
    """
    u = velocity / (STEP * 2**squarings)  # in steps of the lattice
    nodes = np.indices(u.shape[1:], dtype=np.float64)
    for _ in range(squarings):
        there = nodes + u
        u = u + [ndimage.map_coordinates(c, there, order=1, mode="nearest") for c in u]
    return np.asarray(u * STEP)


def shape_modes() -> Array:
    """Velocities (4, 3, *M) of the modes of shape that all people share, in mm per unit.

    Elongation: longer and narrower. Flatness: lower, longer and wider. Taper: wider in front,
    narrower behind. Bend: both poles to the right, the middle to the left.
    """
    radii = zip(np.meshgrid(*LATTICE, indexing="ij"), CENTRE, _RADII, strict=True)
    x, y, z = (np.tanh((grid - centre) / radius) for grid, centre, radius in radii)
    zero = np.zeros_like(x)
    # A person's image is pulled back, so that what is to grow along an axis flows inwards.
    fields = [
        (2.0 * x, -3.0 * y, zero),
        (-0.7 * x, -0.9 * y, 2.2 * z),
        (-4.0 * x * y, zero, zero),
        (-4.0 * (y**2 - 0.25), 1.5 * x * y, zero),
    ]
    return np.array([np.stack(field) for field in fields])


def individual(coefficients: Array) -> Array:
    """A smooth velocity (3, *M) in mm from `coefficients` (3, 10, 11, 10) on a lattice of 24 mm."""
    return spline(coefficients, _COARSE, LATTICE)


def spline(values: Array, lattice: Axes, points: Axes, slope_along: int | None = None) -> Array:
    """The cubic B-spline with coefficients `values` (c, *lattice) on the grid of `points`: (c, *S).

    With `slope_along` an axis: its derivative along that axis. Sparse matrices, one an axis: fast,
    and the same to the last bit however many threads there are.
    """
    for axis in range(3):
        weights = _weights(lattice[axis], points[axis], slope=axis == slope_along)
        moved = np.moveaxis(values, axis + 1, 0)
        product = weights @ moved.reshape(len(moved), -1)
        values = np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis + 1)
    return np.ascontiguousarray(values)


def _weights(lattice: Array, points: Array, slope: bool) -> sparse.csr_array:
    """(points, nodes): the weights of the four nodes next to each point."""
    step, last = lattice[1] - lattice[0], len(lattice) - 1
    place = np.clip((points - lattice[0]) / step, 0, last)
    cell = np.floor(place).astype(int)
    t = place - cell
    if slope:
        inside = ((points > lattice[0]) & (points < lattice[-1])) / (2 * step)
        pieces = np.stack([-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2]) * inside
    else:
        cubics = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * t * (1 + t - t**2) + 1, t**3]
        pieces = np.stack(cubics) / 6
    rows = np.tile(np.arange(len(points)), 4)
    nodes = np.clip([cell - 1, cell, cell + 1, cell + 2], 0, last)  # the border is repeated
    shape = (len(points), len(lattice))
    return sparse.csr_array((np.ravel(pieces), (rows, nodes.ravel())), shape=shape)
