"""The demo's figures: reconstructions, samples, and a map of the latent space."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

_INK = "#1f2430"


def reconstructions(x: Any, back: Any, labels: Any) -> Figure:
    """Held-out images above what the model makes of them, two of each class; x (N, 1, H, W)."""
    chosen = np.concatenate([np.flatnonzero(labels == c)[:2] for c in np.unique(labels)])
    figure = Figure(figsize=(10, 4.3))
    figure.suptitle("Held-out digits, and their reconstructions", color=_INK, fontsize=13, y=0.97)
    half = len(chosen) // 2
    grid = figure.subplots(4, half, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
    for column in range(half):
        for row in (0, 1):
            index = chosen[row * half + column]
            _show(grid[2 * row, column], x[index, 0], "Greys")
            _show(grid[2 * row + 1, column], back[index, 0], "Blues")
    for row in (0, 2):
        grid[row, 0].set_ylabel("image", rotation=0, ha="right", va="center", color=_INK)
        grid[row + 1, 0].set_ylabel("model", rotation=0, ha="right", va="center", color="#2a5d9c")
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.02, top=0.86)
    return figure


def samples(x: Any) -> Figure:
    """A square of images drawn from the prior; x (n * n, 1, H, W)."""
    side = int(len(x) ** 0.5)
    figure = Figure(figsize=(6, 6.4))
    figure.suptitle(
        "Digits that nobody wrote: samples from the prior", color=_INK, fontsize=13, y=0.975
    )
    grid = figure.subplots(side, side, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
    for axes, image in zip(grid.flat, x[:, 0], strict=False):
        _show(axes, image, "Blues")
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.93)
    return figure


def latent_map(z: Any, x: Any, labels: Any) -> Figure:
    """Held-out images at their place in a two-dimensional t-SNE view of the latents z (N, L)."""
    import matplotlib as mpl
    from sklearn.manifold import TSNE

    place = TSNE(init="pca", perplexity=30, random_state=0).fit_transform(z)
    figure = Figure(figsize=(9, 8))
    axes = figure.subplots()
    colours = mpl.colormaps["tab10"]
    for point, image, label in zip(place, x[:, 0], labels, strict=True):
        rgba = np.ones((*image.shape, 4))
        rgba[..., :3] = colours(int(label) % 10)[:3]
        rgba[..., 3] = np.clip(image, 0, 1)
        box = OffsetImage(rgba, zoom=2.1, interpolation="nearest")
        axes.add_artist(AnnotationBbox(box, point, frameon=False))
    for label in np.unique(labels):
        axes.scatter([], [], color=colours(int(label) % 10), label=str(label), s=60)
    axes.legend(title="digit", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    margin = 4
    axes.set_xlim(place[:, 0].min() - margin, place[:, 0].max() + margin)
    axes.set_ylim(place[:, 1].min() - margin, place[:, 1].max() + margin)
    axes.set_axis_off()
    axes.set_title(
        f"Where the model puts held-out digits: t-SNE of {z.shape[1]} latents, labels never seen",
        color=_INK,
        fontsize=13,
    )
    figure.subplots_adjust(left=0.02, right=0.9, bottom=0.02, top=0.94)
    return figure


def _show(axes: Any, image: Any, colours: str) -> None:
    axes.imshow(image, cmap=colours, vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d5d9e0")
