"""Sections on the training: curves of the bound, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nidl_neuro.bound import bits
from nidl_neuro.report import charts
from nidl_neuro.report.facts import Facts, Group
from nidl_neuro.report.history import Curve, settled
from nidl_neuro.report.markup import MINUS, Html, el, join, number, table
from nidl_neuro.report.parts import components_told, count_told, picked

_STAGES = {"train": "training", "val": "validation"}


def training(facts: Facts) -> Html:
    """Curves of the true bound and its parts."""
    history, voxels = facts.history, facts.about.voxels
    if not history.bound:
        why = (
            f"No epoch of {history.epochs} had a finite bound"
            if history.not_finite
            else "The model file holds no history of a training with a bound"
        )
        return el("p", f"{why}, so there are no curves to draw.")
    once = history.epochs == 1
    beta = facts.about.beta
    costs = [
        Curve(c.name, c.stage, c.epochs, tuple(bits(v, voxels) for v in c.values))
        for c in history.bound
    ]
    cards = [
        _curves(
            history.bound,
            "Evidence lower bound",
            "nats per scan",
            "The true bound on log p(scan): higher is better.",
        ),
        _curves(
            costs,
            "What a voxel costs",
            "bits per voxel",
            f"The same bound, turned round and divided by {count_told(voxels)} voxels and by ln 2: lower is better. Voxels are continuous here, in the units of the prepared scans, so it may lie on either side of 0.",
        ),
        _curves(
            history.fit,
            "First part: fit",
            "nats per scan",
            "How well scans are explained by what their latents decode to: E[log p(x | z)]. Higher is better.",
        ),
        _curves(
            history.kl,
            "Second part: KL",
            "nats per scan",
            "KL(q(z | x) ‖ prior): what the latents cost. They tell at most so much about a scan; at 0 they tell nothing.",
        ),
    ]
    notes = [
        f"bound = fit {MINUS} KL. Training figures are means over an epoch in which the weights change, so they lag behind validation figures, which are of the epoch's end."
    ]
    if once:
        notes.append("The training had one epoch: a dot stands where a curve would be.")
    if beta not in (None, 1):
        notes.append(
            f"It was trained with beta = {beta:g}, so the objective was not the bound; drawn here is the true bound."
        )
    if not history.adds_up:
        notes.append(
            "The loss logged parts of its own that do not add up to the bound; they are left out."
        )
    if count := len(history.not_finite):
        first = history.not_finite[0]
        notes.append(
            f"In {count} epoch{'s' * (count != 1)}, the first being {first}, the bound was not finite: "
            "the curves have no point there."
        )
    if not any(curve.stage == "val" for curve in history.bound):
        notes.append(
            "There was no validation during training, so overfitting cannot be seen in these curves."
        )
    return join([[el("p", note) for note in notes], el("div", cards, class_="grid2")])


def bounds(facts: Facts) -> Html:
    """The bound of the saved model on the scans, and its error beside PCA."""
    voxels, size = facts.about.voxels, facts.probing.components
    measures: list[tuple[str, Callable[[Group], str]]] = [
        ("scans", lambda group: str(len(group.data))),
        ("bound, nats per scan", lambda group: number(group.bound, 6)),
        ("fit, nats per scan", lambda group: number(group.fit, 6)),
        ("KL, nats per scan", lambda group: number(group.kl, 4)),
        ("cost, bits per voxel", lambda group: number(bits(group.bound, voxels), 4)),
        ("error of reconstructions", lambda group: number(group.error, 4)),
        (f"error of PCA ({size})", lambda group: number(group.baseline, 4)),
    ]
    more = (
        "those held out are new to it"
        if facts.val is not None
        else "on new scans it will be larger"
    )
    return join(
        [
            table(
                ("", *(group.name for group in facts.groups)),
                ((name, *(told(group) for group in facts.groups)) for name, told in measures),
                caption="The trained model. Errors are root mean squares over the voxels that count, in "
                "the units of the prepared scans.",
            ),
            el(
                "p",
                f"PCA with {components_told(size)} was fitted on {picked(facts)}, "
                f"and has the smallest error on these that a linear model of its "
                f"size can have; {more}. A small error is not all: the bound also counts how sure the "
                "model is.",
                class_="hint",
            ),
        ]
    )


def _curves(curves: Iterable[Curve], head: str, unit: str, about: str) -> Html | None:
    curves = tuple(curves)
    if not curves:
        return None
    series = {_STAGES[curve.stage]: (curve.epochs, curve.values) for curve in curves}
    ends = "; ".join(f"{name} {number(ys[-1], 4)} at the end" for name, (_, ys) in series.items())
    frame = settled(curves)
    if frame is not None:
        outside = [
            (epoch, value)
            for curve in curves
            for epoch, value in zip(curve.epochs, curve.values, strict=True)
            if not frame[0] <= value <= frame[1]
        ]
        about += (
            f" Values up to epoch {max(outside)[0]} lie outside the frame, "
            f"the first of them {number(outside[0][1], 4)}."
        )
    label = f"{head} by epoch: {ends}"
    chart = charts.lines(series, across="epoch", up=unit, label=label, within=frame)
    return el(
        "figure",
        el("h3", head),
        chart,
        charts.legend(list(series), [f"c{i}" for i in range(len(series))]),
        el("figcaption", f"{about} ({ends}.)"),
        class_="card",
    )
