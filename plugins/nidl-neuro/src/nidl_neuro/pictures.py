"""Traversals as pictures: orthogonal slices of each step, and what changes.

Left is on the left (neurological convention), front on the right of a sagittal slice. It needs
matplotlib: `pip install 'nidl-neuro[figures]'`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nidl_core.errors import InvalidParameter, NidlError, ShapeError
from nidl_neuro.replacing import replacing
from nidl_neuro.traversal import Traversal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]

_PLANES = ("sagittal", "coronal", "axial")  # across axis 0, 1, 2
_INK, _PAPER = "#1f2430", "#ffffff"
_INCHES = 1.25  # width of a column


def picture(
    traversal: Traversal,
    affine: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    at: Sequence[int] | None = None,
) -> Figure:
    """Three slices of each step, and below them their differences from the step in the middle.

    `affine` is that of the prepared grid. The slices meet in voxel `at`, by default the middle of the
    bool `mask` (*S), or of the grid. One grey scale holds for all steps, one colour scale for all
    differences. Raises `NidlError` without matplotlib, `ShapeError`, `InvalidParameter`.
    """
    volumes = _checked(traversal)
    place = _place(volumes.shape[1:], mask, at)
    middle = len(volumes) // 2
    change = volumes - volumes[middle]
    size = _voxel_size(affine)
    heights = [size[_across(a)[1]] * volumes.shape[1 + _across(a)[1]] for a in range(3)]
    figure, panels = _panels(heights * 2, len(volumes), _width(volumes, size))
    figure.suptitle(f"Along {traversal.name}", color=_INK, fontsize=12)
    grey, most = _limits(volumes, mask), _most(change)
    for column, step in enumerate(traversal.steps):
        for axis, plane in enumerate(_PLANES):
            top, below = panels[axis][column], panels[3 + axis][column]
            _show(top, _slice(volumes[column], axis, place), axis, size, "gray", *grey)
            shown = _show(
                below, _slice(change[column], axis, place), axis, size, "RdBu_r", -most, most
            )
            if column == 0:
                top.set_ylabel(plane, color=_INK, fontsize=8)
                below.set_ylabel(f"{plane}\nchange", color=_INK, fontsize=8)
        panels[0][column].set_title(_told(traversal, step), color=_INK, fontsize=9)
    _mark_sides(panels[1][0])
    bar = figure.colorbar(shown, ax=[panel for row in panels[3:] for panel in row], shrink=0.6)
    bar.ax.tick_params(labelsize=7, colors=_INK)
    return figure


def overview(
    traversals: Sequence[Traversal],
    affine: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    at: Sequence[int] | None = None,
    axis: int = 2,
) -> Figure:
    """Several traversals of as many steps, a row each: one slice of each step, and last minus first.

    `axis` 0, 1 or 2 is the one that the slice lies across; the rest is as for `picture`.
    """
    if not traversals or len({len(one.steps) for one in traversals}) > 1:
        raise InvalidParameter(
            "traversals",
            [len(one.steps) for one in traversals],
            "at least one, all of the same number of steps",
        )
    if axis not in (0, 1, 2):
        raise InvalidParameter("axis", axis, "0, 1 or 2")
    volumes = np.stack([_checked(one) for one in traversals])  # (rows, K, *S)
    place = _place(volumes.shape[2:], mask, at)
    size = _voxel_size(affine)
    height = size[_across(axis)[1]] * volumes.shape[2 + _across(axis)[1]]
    width = size[_across(axis)[0]] * volumes.shape[2 + _across(axis)[0]]
    change = volumes[:, -1] - volumes[:, 0]
    grey, most = _limits(volumes, mask), _most(change)
    figure, panels = _panels([height] * len(volumes), volumes.shape[1] + 1, width)
    for row, (traversal, panel) in enumerate(zip(traversals, panels, strict=True)):
        for column, step in enumerate(traversal.steps):
            image = _slice(volumes[row, column], axis, place)
            _show(panel[column], image, axis, size, "gray", *grey)
            if row == 0:
                panel[column].set_title(_told(traversal, step), color=_INK, fontsize=9)
        panel[0].set_ylabel(traversal.name, color=_INK, fontsize=9)
        image = _slice(change[row], axis, place)
        shown = _show(panel[-1], image, axis, size, "RdBu_r", -most, most)
    panels[0][-1].set_title("last - first", color=_INK, fontsize=9)
    if axis:
        _mark_sides(panels[0][0])
    bar = figure.colorbar(shown, ax=[panel[-1] for panel in panels], shrink=0.6)
    bar.ax.tick_params(labelsize=7, colors=_INK)
    return figure


def write_picture(
    path: str | os.PathLike[str], figure: Figure, *, overwrite: bool = False, dpi: int = 120
) -> Path:
    """A figure as a .png file. Raises `InvalidParameter` for another ending, `DataError`."""
    path = Path(path)
    if path.suffix != ".png":
        raise InvalidParameter("path", str(path), "the path of a .png file")
    with replacing(path, overwrite=overwrite) as part:
        figure.savefig(part, dpi=dpi, facecolor=_PAPER)
    return path


def _panels(heights: Sequence[float], columns: int, width: float) -> tuple[Figure, Any]:
    """A figure with rows of these heights (mm), and its axes [row][column]; columns are of `width`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise NidlError("figures need matplotlib: pip install 'nidl-neuro[figures]'") from err
    inches = _INCHES / width
    across, down = columns * _INCHES + 1.2, sum(heights) * inches + 0.8
    figure = Figure(figsize=(across, down), layout="constrained")
    panels = figure.subplots(
        len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": list(heights)}
    )
    return figure, panels


def _show(
    panel: Any, image: Array, axis: int, size: Array, colours: str, low: float, high: float
) -> Any:
    first, second = _across(axis)
    shown = panel.imshow(
        image.T,
        origin="lower",
        cmap=colours,
        vmin=low,
        vmax=high,
        aspect=size[second] / size[first],
        interpolation="nearest",
    )
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)
    return shown


def _mark_sides(panel: Any) -> None:
    for side, x in (("L", 0.02), ("R", 0.98)):
        panel.text(
            x,
            0.98,
            side,
            transform=panel.transAxes,
            ha="left" if side == "L" else "right",
            va="top",
            color="#ffffff",
            fontsize=7,
        )


def _across(axis: int) -> tuple[int, int]:
    """The axes that run to the right and up in a slice across `axis`."""
    return ((1, 2), (0, 2), (0, 1))[axis]


def _slice(volume: Array, axis: int, place: Sequence[int]) -> Array:
    return np.asarray(volume.take(place[axis], axis))


def _checked(traversal: Traversal) -> Array:
    volumes = np.asarray(traversal.volumes)
    if volumes.ndim != 5 or volumes.shape[1] != 1:
        raise ShapeError(f"volumes have the shape (K, 1, X, Y, Z), got {volumes.shape}.")
    return np.asarray(volumes[:, 0])


def _place(shape: Sequence[int], mask: ArrayLike | None, at: Sequence[int] | None) -> list[int]:
    if at is not None:
        if len(at) != 3 or not all(0 <= i < n for i, n in zip(at, shape, strict=True)):
            raise InvalidParameter("at", tuple(at), f"a voxel of a grid of shape {tuple(shape)}")
        return [int(i) for i in at]
    if mask is None:
        return [n // 2 for n in shape]
    inside = np.asarray(mask)
    if inside.shape != tuple(shape):
        raise ShapeError(f"the mask must have the shape {tuple(shape)}, got {inside.shape}.")
    return [round(float(i.mean())) for i in inside.nonzero()]


def _voxel_size(affine: ArrayLike) -> Array:
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ShapeError(f"an affine has the shape (4, 4), got {matrix.shape}.")
    return np.asarray(np.sqrt((matrix[:3, :3] ** 2).sum(axis=0)))


def _width(volumes: Array, size: Array) -> float:
    """The widest of the three slices, in mm."""
    return float(
        max(size[_across(axis)[0]] * volumes.shape[1 + _across(axis)[0]] for axis in range(3))
    )


def _limits(volumes: Array, mask: ArrayLike | None) -> tuple[float, float]:
    """The range of grey: that of nearly all voxels."""
    inside = volumes if mask is None else volumes[..., np.asarray(mask)]
    low, high = np.percentile(inside, (0.5, 99.5))
    return float(low), float(high if high > low else low + 1)


def _most(change: Array) -> float:
    return float(np.abs(change).max()) or 1.0


def _told(traversal: Traversal, step: Any) -> str:
    if isinstance(step, (int, float, np.number)) and not isinstance(step, bool):
        sign = "+" if traversal.unit == "sd" and step else ""
        return f"{step:{sign}.3g} {traversal.unit}".strip()
    return str(step)
