"""Charts as inline SVG, 360 units wide, so that their text is readable on a phone; colours are CSS classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.report.markup import DASH, MINUS, Html, el, number

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 10, 12, 38
Floats = NDArray[np.float64]
Scale = Callable[[float], float]


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str,
    up: str,
    label: str,
    whole: bool = True,
    within: tuple[float, float] | None = None,
) -> Html:
    """Lines by name, each (x, y); a single point is drawn as a dot. `label` is the alternative text.

    `within` are the smallest and largest y to draw: a line begins where it enters for good.
    """
    height = 220
    x, y, frame = _plane(
        [v for xs, _ in series.values() for v in xs],
        within or [v for _, ys in series.values() for v in ys],
        across=across,
        up=up,
        height=height,
        whole=whole,
    )
    marks = []
    for place, (name, (xs, ys)) in enumerate(series.items()):
        xs, ys = _entering(xs, ys, *within) if within else (xs, ys)
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        title = el("title", f"{name}: {number(ys[-1])} at the end")
        if len(xs) == 1:
            marks.append(
                el("circle", title, cx=_at(x(xs[0])), cy=_at(y(ys[0])), r=4, class_=f"dot c{place}")
            )
        else:
            marks.append(el("polyline", title, points=points, class_=f"line c{place}"))
    return _svg(height, label, frame, marks)


def scatter(
    xs: Floats, ys: Floats, *, across: str, up: str, label: str, ids: Sequence[str]
) -> Html:
    """One dot a scan, with its id as tooltip, and the least-squares line."""
    height = 220
    x, y, frame = _plane(xs, ys, across=across, up=up, height=height)
    dots = [
        el(
            "circle",
            el("title", f"{name}: {number(a)}, {number(b)}"),
            cx=_at(x(a)),
            cy=_at(y(b)),
            r=3.2,
            class_="dot c0 soft",
        )
        for name, a, b in zip(ids, xs, ys, strict=True)
    ]
    line = None
    if np.ptp(xs) > 0:
        slope, start = np.polyfit(xs, ys, 1)
        ends = np.array([xs.min(), xs.max()])
        points = " ".join(f"{x(a):.1f},{y(start + slope * a):.1f}" for a in ends)
        line = el("polyline", points=points, class_="line c1")
    return _svg(height, label, frame, dots, line)


def boxes(
    groups: Mapping[str, Floats], *, up: str, label: str, ids: Mapping[str, Sequence[str]]
) -> Html:
    """A box a group (quartiles, median; whiskers to 1.5 times the box), with a dot for each scan."""
    height = 220
    every = np.concatenate(list(groups.values()))
    _, y, frame = _plane(
        [0.0, float(len(groups))], every, across="", up=up, height=height, has_ticks=False
    )
    step = (WIDTH - _LEFT - _RIGHT) / len(groups)
    marks: list[Any] = []
    for place, (name, values) in enumerate(groups.items()):
        middle = _LEFT + step * (place + 0.5)
        half = min(26.0, step * 0.3)
        low, median, high = np.percentile(values, [25, 50, 75])
        reach = 1.5 * (high - low)
        bottom, top = values[values >= low - reach].min(), values[values <= high + reach].max()
        marks += [
            el(
                "line",
                x1=_at(middle),
                x2=_at(middle),
                y1=_at(y(bottom)),
                y2=_at(y(top)),
                class_="whisker",
            ),
            el(
                "rect",
                x=_at(middle - half),
                y=_at(y(high)),
                width=_at(2 * half),
                height=_at(y(low) - y(high)),
                class_="box",
            ),
            el(
                "line",
                x1=_at(middle - half),
                x2=_at(middle + half),
                y1=_at(y(median)),
                y2=_at(y(median)),
                class_="median",
            ),
            _text(middle, height - 22, _short(name, 12 if len(groups) < 5 else 6), "middle"),
            _text(
                middle,
                height - 8,
                f"n = {len(values)}" if len(groups) < 7 else str(len(values)),
                "middle",
                "faint",
            ),
        ]
        spread = np.linspace(-0.6, 0.6, 7) * half
        marks += [
            el(
                "circle",
                el("title", f"{one}: {number(value)}"),
                cx=_at(middle + spread[i % 7]),
                cy=_at(y(value)),
                r=2.6,
                class_="dot c0 soft",
            )
            for i, (one, value) in enumerate(zip(ids[name], values, strict=True))
        ]
    return _svg(height, label, frame, marks)


def bars(
    values: Floats, names: Sequence[str], lit: Sequence[bool], *, across: str, up: str, label: str
) -> Html:
    """Upright bars from 0; those not `lit` are pale."""
    height = 220
    _, y, frame = _plane(
        [0.0, 1.0], [0.0, *map(float, values)], across=across, up=up, height=height, has_ticks=False
    )
    step = (WIDTH - _LEFT - _RIGHT) / len(values)
    marks: list[Any] = []
    every = math.ceil(len(values) / 12)
    for place, (value, name, on) in enumerate(zip(values, names, lit, strict=True)):
        left = _LEFT + step * (place + 0.12)
        top = y(float(value))
        title = el("title", f"{name}: {number(float(value))}")
        marks.append(
            el(
                "rect",
                title,
                x=_at(left),
                y=_at(top),
                width=_at(step * 0.76),
                height=_at(max(0.8, y(0.0) - top)),
                class_="bar c0" if on else "bar off",
            )
        )
        if place % every == 0:
            marks.append(_text(_LEFT + step * (place + 0.5), height - 23, name, "middle"))
    return _svg(height, label, frame, marks)


def heat(values: Floats, rows: Sequence[str], columns: Sequence[str], *, label: str) -> Html:
    """A table of numbers from 0 to 1 as shades, each with its number; NaN stays empty."""
    left, cell, top = 116, 24, 26
    width = (WIDTH - left - 4) / max(1, len(columns))
    height = top + cell * len(rows) + 6
    marks: list[Any] = [
        _text(left + width * (place + 0.5), top - 8, name, "middle")
        for place, name in enumerate(columns)
    ]
    for row, name in enumerate(rows):
        above = top + cell * row
        marks.append(_text(left - 8, above + 16, _short(name, 15), "end", title=name))
        for column, value in enumerate(values[row]):
            x = left + width * column
            if np.isnan(value):
                marks.append(_text(x + width / 2, above + 16, DASH, "middle", "faint"))
                continue
            title = el("title", f"{name}, dimension {columns[column]}: {value:.2f}")
            marks.append(
                el(
                    "rect",
                    title,
                    x=_at(x + 1),
                    y=above + 1,
                    width=_at(width - 2),
                    height=cell - 2,
                    rx=3,
                    class_="cell",
                    style=f"--v:{min(1.0, max(0.0, float(value))):.3f}",
                )
            )
            if width > 21:
                on = "strong" if value > 0.7 else "tick"
                marks.append(
                    _text(
                        x + width / 2,
                        above + 16,
                        f"{value:.1f}".lstrip("0") if value < 0.95 else "1",
                        "middle",
                        on,
                    )
                )
    return _svg(height, label, marks)


def compared(rows: Sequence[tuple[str, float, float, float]], *, label: str) -> Html:
    """One row a name: two dots, of the model and the baseline, from 0 to 1, and a tick for chance."""
    left, right, cell = 104.0, WIDTH - 12.0, 30
    height = 12 + cell * len(rows) + 26

    def x(value: float) -> float:
        return left + (right - left) * min(1.0, max(0.0, value))

    bottom = height - 26
    marks: list[Any] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        marks.append(el("line", x1=_at(x(tick)), x2=_at(x(tick)), y1=8, y2=bottom, class_="grid"))
        marks.append(_text(x(tick), height - 10, f"{tick:g}", "middle"))
    for place, (name, score, baseline, chance) in enumerate(rows):
        y = 12 + cell * (place + 0.5)
        ends = sorted((x(score), x(baseline)))
        marks += [
            _text(left - 10, y + 4, _short(name, 15), "end", title=name),
            el(
                "line",
                x1=_at(x(chance)),
                x2=_at(x(chance)),
                y1=_at(y - 9),
                y2=_at(y + 9),
                class_="chance",
            ),
            el("line", x1=_at(ends[0]), x2=_at(ends[1]), y1=_at(y), y2=_at(y), class_="whisker"),
            el(
                "circle",
                el("title", f"PCA: {number(baseline)}"),
                cx=_at(x(baseline)),
                cy=_at(y),
                r=5.5,
                class_="dot c2 hollow",
            ),
            el(
                "circle",
                el("title", f"latents: {number(score)}"),
                cx=_at(x(score)),
                cy=_at(y),
                r=5,
                class_="dot c0",
            ),
        ]
    return _svg(height, label, marks)


def legend(names: Sequence[str], kinds: Sequence[str]) -> Html:
    """What the colours mean, in words under a chart."""
    return el(
        "p",
        (
            el("span", el("i", class_=f"key {kind}", aria_hidden="true"), name)
            for name, kind in zip(names, kinds, strict=True)
        ),
        class_="legend",
    )


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers within [low, high], about `most` of them."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / most))
    step = next((step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= most), step * 10)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _plane(
    xs: Sequence[float] | Floats,
    ys: Sequence[float] | Floats,
    *,
    across: str,
    up: str,
    height: int,
    whole: bool = False,
    has_ticks: bool = True,
) -> tuple[Scale, Scale, list[Any]]:
    """Scales from values to places, and the frame with its ticks and names."""
    low_x, high_x = _room(xs, 0.0 if whole else 0.04)
    low_y, high_y = _room(ys, 0.06)
    if min(ys) == 0:
        low_y = 0.0

    def x(value: float) -> float:
        return _LEFT + (value - low_x) / (high_x - low_x) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return height - _BOTTOM - (value - low_y) / (high_y - low_y) * (height - _TOP - _BOTTOM)

    frame: list[Any] = []
    for tick, told in _told(ticks(low_y, high_y)):
        place = _at(y(tick))
        frame.append(el("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=place, y2=place, class_="grid"))
        frame.append(_text(_LEFT - 6, y(tick) + 4, told, "end"))
    for tick, told in _told(ticks(low_x, high_x, whole=whole)) if has_ticks else []:
        frame.append(_text(x(tick), height - 22, told, "middle"))
    frame.append(
        _text((WIDTH + _LEFT - _RIGHT) / 2, height - 6, _short(across, 44), "middle", "name")
    )
    frame.append(_text(10, (height - _BOTTOM + _TOP) / 2, up, "middle", "name", turned=True))
    return x, y, frame


def _room(values: Sequence[float] | Floats, share: float) -> tuple[float, float]:
    low, high = float(min(values)), float(max(values))
    if low == high:
        margin = abs(low) * 0.1 or 0.5
        return low - margin, high + margin
    return low - share * (high - low), high + share * (high - low)


def _entering(
    xs: Sequence[float], ys: Sequence[float], low: float, high: float
) -> tuple[Sequence[float], Sequence[float]]:
    """The line from where it last comes into [low, high]; its end must be in it."""
    start = max((i + 1 for i, value in enumerate(ys) if not low <= value <= high), default=0)
    if start == 0:
        return xs, ys
    before, after = ys[start - 1], ys[start]
    edge = low if before < low else high
    share = (edge - before) / (after - before)
    at = xs[start - 1] + share * (xs[start] - xs[start - 1])
    return [at, *xs[start:]], [edge, *ys[start:]]


def _told(places: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks and their numbers, with as many decimals as their distance needs."""
    step = places[1] - places[0] if len(places) > 1 else 0.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 3
    told = (f"{place + 0.0:,.{digits}f}" for place in places)
    return [
        (place, text.replace(",", "\u202f").replace("-", MINUS))
        for place, text in zip(places, told, strict=True)
    ]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _at(place: float) -> str:
    return f"{place:.1f}"


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str,
    kind: str = "tick",
    *,
    turned: bool = False,
    title: str | None = None,
) -> Html:
    turn = f"rotate(-90 {x:.1f} {y:.1f})" if turned else None
    return el(
        "text",
        el("title", title) if title else None,
        text,
        x=_at(x),
        y=_at(y),
        text_anchor=anchor,
        class_=kind,
        transform=turn,
    )


def _svg(height: float, label: str, *marks: Any) -> Html:
    return el("svg", marks, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=label)
