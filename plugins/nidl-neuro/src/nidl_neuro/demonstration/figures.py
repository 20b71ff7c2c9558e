"""The figures of the demo: reconstructions of held-out scans, and one lesion as it is found."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[Any]
_INK, _TRUTH = "#1f2430", "#ffb000"


def reconstructions(x: Array, back: Array, mask: Array, titles: list[str]) -> Figure:
    """Axial slices of scans (n, *S), of what the model makes of them, and of the difference."""
    level = round(float(mask.nonzero()[2].mean()))
    change = x - back
    low, high = np.percentile(x[:, mask], (0.5, 99.5))
    most = float(np.percentile(np.abs(change[:, mask]), 99.5))
    figure, panels = _panels(3, len(x), x.shape[1] / x.shape[2])
    figure.suptitle("Held-out synthetic scans, and their reconstructions", color=_INK, fontsize=13)
    for column, title in enumerate(titles):
        panels[0, column].set_title(title, color=_INK, fontsize=9)
        inside = mask[:, :, level]
        _show(panels[0, column], x[column, :, :, level], "gray", low, high)
        _show(
            panels[1, column], np.where(inside, back[column, :, :, level], low), "gray", low, high
        )
        residual = np.where(inside, change[column, :, :, level], 0)
        shown = _show(panels[2, column], residual, "RdBu_r", -most, most)
    for row, told in enumerate(("scan", "model", "scan - model")):
        panels[row, 0].set_ylabel(told, color=_INK, fontsize=9)
    _bar(figure, shown, panels[2], "sd of the scan")
    return figure


def lesion(scan: Array, truth: Array, maps: dict[str, Array], brain: Array, title: str) -> Figure:
    """One scan (*S) cut through its lesion in three planes, and maps of it, 0 or more; the truth is outlined."""
    place = [round(float(axis.mean())) for axis in truth.nonzero()]
    widest = max(scan.shape[0], scan.shape[1]) / max(scan.shape[1], scan.shape[2])
    figure, panels = _panels(3, 1 + len(maps), widest)
    figure.suptitle(title, color=_INK, fontsize=13)
    low, high = np.percentile(scan[brain], (0.5, 99.5))
    for row, axis in enumerate((2, 1, 0)):
        cut = [one.take(place[axis], axis) for one in (scan, truth, brain)]
        _show(panels[row, 0], cut[0], "gray", low, high)
        panels[row, 0].set_ylabel(("axial", "coronal", "sagittal")[row], color=_INK, fontsize=9)
        for column, values in enumerate(maps.values(), start=1):
            most = float(np.percentile(values[brain], 99.9))
            image = np.where(cut[2], values.take(place[axis], axis), 0)
            shown = _show(panels[row, column], image, "magma", 0, most)
            if row == 2:
                _bar(figure, shown, [panels[row, column]], "", location="bottom")
        for panel in panels[row]:
            panel.contour(cut[1].T, levels=[0.5], colors=[_TRUTH], linewidths=1)
    for panel, name in zip(panels[0], ("scan, the true lesion outlined", *maps), strict=True):
        panel.set_title(name, color=_INK, fontsize=9)
    return figure


def _panels(rows: int, columns: int, ratio: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(1.9 * columns * max(ratio, 0.9) + 1.2, 2.1 * rows + 0.7))
    figure.set_layout_engine("constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(panel: Any, image: Array, colours: str, low: float, high: float) -> Any:
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)
    return panel.imshow(image.T, origin="lower", cmap=colours, vmin=low, vmax=high)


def _bar(figure: Figure, shown: Any, panels: Any, unit: str, location: str = "right") -> None:
    bar = figure.colorbar(shown, ax=list(panels), shrink=0.8, label=unit, location=location)
    bar.ax.tick_params(labelsize=7, colors=_INK)
