"""Brain volumes as figures of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.report import slices
from nidl_neuro.report.brains import STEPS, Brains, Example, Traversal
from nidl_neuro.report.markup import Html, el, number

_VIEWS = "sagittal, coronal and axial slice"


@dataclass(frozen=True, eq=False)
class Painter:
    """Draws all volumes alike: the same slices, and the same shades for the same values."""

    window: slices.Window
    mask: NDArray[np.bool_] | None
    limits: tuple[float, float]  # black and white
    missed: float  # of a residual that is drawn brightest
    changed: float  # the same of a traversal's difference

    @classmethod
    def of(cls, brains: Brains, voxel_size: Sequence[float], pixels: int = 150) -> Painter:
        """Limits by percentiles of what is to be drawn."""
        shown = [*brains.examples, *brains.worst]
        mask = brains.mask
        inside = [_counted(example.scan, mask) for example in shown]
        residuals = [_counted(example.scan - example.reconstruction, mask) for example in shown]
        changes = [_counted(traversal.change, mask) for traversal in brains.traversals]
        low, high = np.percentile(np.concatenate(inside), [0.5, 99.5])
        shape = shown[0].scan.shape
        return cls(
            slices.window(mask, voxel_size, shape, pixels),
            mask,
            (float(low), float(high)),
            float(np.percentile(np.abs(np.concatenate(residuals)), 99.5)) or 1.0,
            float(np.percentile(np.abs(np.concatenate(changes)), 99.8)) or 1.0 if changes else 1.0,
        )

    def example(self, example: Example, title: str, more: str) -> Html:
        """A scan, its reconstruction, and what it misses."""
        name = example.id
        residual = example.scan - example.reconstruction
        return el(
            "div",
            el("h3", title),
            el("p", more, class_="hint"),
            el(
                "div",
                _figure(
                    slices.grey(example.scan, self.window, self.limits, self.mask),
                    f"Scan {name}: {_VIEWS}" + ("" if self.mask is None else ", the mask outlined"),
                    "scan",
                ),
                _figure(
                    self._inside(example.reconstruction),
                    f"Reconstruction of {name}: {_VIEWS}",
                    "reconstruction",
                ),
                _figure(
                    slices.signed(self._cut(residual), self.window, self.missed),
                    f"Scan less reconstruction of {name}: {_VIEWS}",
                    "residual: scan less reconstruction",
                ),
                class_="slices",
            ),
            class_="scan card",
        )

    def sample(self, volume: NDArray[Any], place: int) -> Html:
        """A brain drawn from the prior."""
        return _figure(self._inside(volume), f"Sample {place} from the prior: {_VIEWS}", None)

    def traversal(self, traversal: Traversal, about: str) -> Html:
        """A brain that a slider changes along one dimension, and the difference from end to end."""
        name = f"z{traversal.dimension}"
        steps = [f"+{number(step)}" if step > 0 else number(step) for step in STEPS]
        frames = [
            el(
                "div",
                el("img", src=slices.png(self._inside(volume)), alt=f"{name} at {step}: {_VIEWS}"),
                class_="brain frame on" if place == len(steps) // 2 else "brain frame",
            )
            for place, (step, volume) in enumerate(zip(steps, traversal.volumes, strict=True))
        ]
        slider = el(
            "label",
            name,
            el(
                "input",
                type="range",
                min=0,
                max=len(steps) - 1,
                step=1,
                value=len(steps) // 2,
                data_steps="|".join(steps),
                aria_label=f"Value of {name}",
            ),
            el("output", steps[len(steps) // 2]),
            class_="slide",
        )
        change = slices.signed(self._cut(traversal.change), self.window, self.changed)
        return el(
            "div",
            el("h3", f"Dimension {name}"),
            el("p", about, class_="hint"),
            el("div", frames, class_="frames"),
            slider,
            el("p", f"What changes from {steps[0]} to {steps[-1]}:", class_="hint"),
            el(
                "div",
                el(
                    "img",
                    src=slices.png(change),
                    alt=f"Difference between {name} at {steps[-1]} and at {steps[0]}: {_VIEWS}",
                ),
                class_="brain",
            ),
            class_="card traversal still",
        )

    def _inside(self, volume: NDArray[Any]) -> NDArray[np.uint8]:
        """In grey; black outside the mask, where the model says nothing."""
        shown = volume if self.mask is None else np.where(self.mask, volume, self.limits[0])
        return slices.grey(shown, self.window, self.limits)

    def _cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        return volume if self.mask is None else np.where(self.mask, volume, 0)


def ramp() -> str:
    """The colours of signed maps, from minus to plus, as the stops of a CSS gradient."""
    return ", ".join(
        f"rgb({', '.join(map(str, slices.coloured(np.array(v)).tolist()))})"
        for v in np.linspace(-1, 1, 9)
    )


def _counted(volume: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[Any]:
    return np.asarray(volume.ravel() if mask is None else volume[mask])


def _figure(pixels: NDArray[np.uint8], alt: str, caption: str | None) -> Html:
    return el(
        "figure",
        el("img", src=slices.png(pixels), alt=alt, width=pixels.shape[1], height=pixels.shape[0]),
        el("figcaption", caption) if caption else None,
    )
