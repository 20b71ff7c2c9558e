"""Voxel grids: where the voxels of an array lie in the scanner's space, and arrays moved between grids.

Axes are those of the array; a grid is canonical when they run to the right, front and top (RAS+).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]

_CANONICAL = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])  # nibabel's code for RAS+
_SKEW = 1e-3  # largest cosine between two axes that still counts as rounding: 0.06 degrees
_SAME_SIZE = 1e-4  # relative: headers hold float32


@dataclass(frozen=True, eq=False)
class Grid:
    """`shape`, three ints, and `affine` (4, 4), from voxel indices to millimetres."""

    shape: tuple[int, ...]
    affine: Array

    @property
    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The affine as plain data."""
        return tuple(tuple(map(float, row)) for row in self.affine)

    @property
    def voxel_size(self) -> Array:
        """Edge lengths of a voxel (3,)."""
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))

    @property
    def orientation(self) -> str:
        """Where the axes run to, such as "LAS": the nearest anatomical direction of each."""
        return "".join(str(code) for code in orientations.aff2axcodes(self.affine))

    @property
    def orthogonal(self) -> bool:
        """Whether the axes are at right angles, however the grid is turned."""
        axes = self.affine[:3, :3] / self.voxel_size
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() < _SKEW)

    def canonical(self) -> tuple[Grid, Array]:
        """This grid with its axes swapped and flipped to RAS+, and the swap, for `reorient`."""
        swap = orientations.io_orientation(self.affine)
        shape = tuple(self.shape[int(axis)] for axis in np.argsort(swap[:, 0]))
        return Grid(shape, self.affine @ orientations.inv_ornt_aff(swap, self.shape)), swap

    def with_voxels(self, size: Sequence[float]) -> Grid:
        """The grid of voxels of that size, at right angles, that covers this grid's field of view.

        Axes and centre stay, up to what a shear needs (the nearest rotation); so does the grid
        itself if it has such voxels already. Up to half a voxel at an edge may lie outside.
        """
        if self.orthogonal and np.allclose(self.voxel_size, size, rtol=_SAME_SIZE, atol=0):
            return self
        axes = self.affine[:3, :3] / self.voxel_size
        extent = self.voxel_size * self.shape  # mm
        if not self.orthogonal:
            u, _, v = np.linalg.svd(axes)
            axes = u @ v  # the nearest orthogonal matrix: the polar factor
            extent = np.abs(axes.T @ self.affine[:3, :3]) @ self.shape  # of the box around it
        shape = np.maximum(1, np.ceil(extent / size - 1e-3)).astype(int)
        middle = self.affine @ [*(np.array(self.shape) - 1) / 2, 1]
        affine = np.eye(4)
        affine[:3, :3] = axes * size
        affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((shape - 1) / 2)
        return Grid(tuple(int(n) for n in shape), affine)

    def window(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """The grid of the voxels from index `start` on, which may be negative."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ start
        return Grid(tuple(shape), affine)

    def same_as(self, other: Grid) -> bool:
        """Whether shapes agree, and no voxel lies further off than a tenth of a voxel."""
        if tuple(self.shape) != tuple(other.shape):
            return False
        corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(self.shape) - 1)
        shift = (self.affine - other.affine) @ np.c_[corners, np.ones(8)].T
        return bool(np.linalg.norm(shift[:3], axis=0).max() < 0.1 * self.voxel_size.min())

    def __str__(self) -> str:
        return f"{by(self.shape)} voxels of {by(self.voxel_size)} mm, {self.orientation}"


def by(numbers: Any) -> str:
    """Numbers as in 2x2x2.5."""
    return "x".join(f"{number:.4g}" for number in numbers)


def reorient(array: Array, swap: Array) -> Array:
    """A view of an array on the scan's own grid, turned to the canonical one."""
    return np.asarray(orientations.apply_orientation(array, swap))


def reorient_back(array: Array, swap: Array) -> Array:
    """A view of an array on the canonical grid, turned to the scan's own."""
    back = orientations.ornt_transform(_CANONICAL, swap)
    return np.asarray(orientations.apply_orientation(array, back))


def window(array: Array, start: Sequence[int], shape: Sequence[int], fill: float) -> Array:
    """The part of `array` from index `start` on, of that shape; `fill` where there is none.

    The inverse, up to what was cut off, is `window(part, -start, array.shape, fill)`.
    """
    out = np.full(shape, fill, array.dtype)
    first = np.maximum(start, 0)
    last = np.minimum(np.add(start, shape), array.shape)
    if (last > first).all():
        to = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, start, strict=True))
        out[to] = array[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    return out


def resample(array: Array, source: Grid, target: Grid, order: int, fill: float = 0.0) -> Array:
    """Values of `array`, which lies on `source`, at the voxel centres of `target`.

    `order` 0 takes the nearest voxel, 1 is linear, 3 a cubic spline. Beyond the outermost centres
    the outermost value counts where both grids have the same axes, and `fill` where they do not.
    """
    step = np.linalg.inv(source.affine) @ target.affine
    matrix, offset = step[:3, :3], step[:3, 3]
    aligned = np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-6
    return np.asarray(
        ndimage.affine_transform(
            array,
            np.diag(matrix) if aligned else matrix,
            offset,
            target.shape,
            order=order,
            mode="nearest" if aligned else "grid-constant",
            cval=fill,
        )
    )


def smoothing(source: Grid, target: Grid) -> Array:
    """FWHM (3,) in mm of the blur due before `source` is resampled to `target`.

    A voxel measures a mean over its own width. So the point spread of a wider one is reached by a
    Gaussian whose squared FWHM is the difference of the squared widths; 0 along axes that are not
    made coarser (Cardoso et al. 2015, "Scale factor point spread function matching: beyond
    aliasing in image resampling", MICCAI).
    """
    old, new = source.voxel_size, target.voxel_size
    coarser = new > old * (1 + _SAME_SIZE)
    return np.sqrt(np.where(coarser, new**2 - old**2, 0.0))


def smooth(array: Array, grid: Grid, fwhm: Array) -> Array:
    """`array`, on `grid`, blurred by a Gaussian of that FWHM (3,) in mm."""
    deviations = fwhm / (2 * np.sqrt(2 * np.log(2))) / grid.voxel_size
    for axis, deviation in enumerate(deviations):
        if deviation > 0:
            array = ndimage.gaussian_filter1d(array, float(deviation), axis, mode="nearest")
    return array
