"""Sections on the whole: in short, what was trained on what, what was left out."""

from __future__ import annotations

from typing import Any

from nidl_neuro.bound import bits
from nidl_neuro.report import verdicts
from nidl_neuro.report.facts import Facts
from nidl_neuro.report.markup import DASH, Html, el, join, number, table
from nidl_neuro.report.parts import by_told, count_told, pairs_list, scans_told, verdict_box


def summary(facts: Facts) -> Html:
    """The few numbers to know, and the verdicts."""
    about, last = facts.about, facts.groups[-1]
    latents, held = facts.data.latents, facts.val is not None
    whose = "held-out scans" if held else "all scans"
    tiles = [
        ("Scans", str(len(facts.data.data)), f"and {len(last.data)} held out" if held else ""),
        ("Evidence lower bound", number(last.bound, 5), f"nats per scan, {whose}"),
        (
            "What a voxel costs",
            number(bits(last.bound, about.voxels), 4),
            f"bits (lower is better), {whose}",
        ),
        ("Error of reconstructions", number(last.error), f"root mean square, {whose}"),
        ("Latent dimensions in use", f"{int(latents.active.sum())} of {len(latents.kl)}", ""),
        ("KL of the latents", number(last.kl), f"nats per scan, {whose}"),
    ]
    found = [*verdicts.cautions(facts), verdicts.on_collapse(latents)]
    behind = verdicts.on_baseline(last)
    if latents.active.any() and (off := verdicts.on_prior(latents)):
        found.append(off)
    if behind is not None:
        found.append(behind)
    elif facts.val is not None:
        found.append(verdicts.on_generalisation(facts.data, facts.val))
    return join(
        [
            el(
                "dl",
                (
                    el(
                        "div",
                        el("dt", name),
                        el("dd", value, el("small", unit) if unit else None),
                        class_="tile",
                    )
                    for name, value, unit in tiles
                ),
                class_="tiles",
            ),
            [verdict_box(verdict) for verdict in found],
        ]
    )


def model(facts: Facts) -> Html:
    """What was trained on what."""
    about = facts.about
    mask = (
        f"{count_told(about.voxels)} voxels in the mask"
        if about.has_mask
        else f"all {count_told(about.voxels)} voxels: there is no mask"
    )
    grid = {
        "Scans of this page": scans_told(facts),
        "Grid": f"{by_told(about.grid)} voxels of {by_told(f'{mm:.4g}' for mm in about.voxel_size)} mm",
        "Counted in the bound": mask,
        "Epochs": str(facts.history.epochs) if facts.history.epochs else "not recorded",
        "Seed": "not recorded" if about.seed is None else str(about.seed),
        "Trained numbers": count_told(about.weights),
    }
    return join(
        [
            pairs_list(grid),
            table(
                ("Part", "Component", "Parameters"),
                (
                    (part.role, [part.id, el("br"), el("small", part.origin)], part.params or DASH)
                    for part in about.parts
                ),
                caption="The model, by name",
            ),
            el("h3", "Preparation of each scan"),
            pairs_list(
                {name.replace("_", " "): value for name, value in about.preparation.items()}
            ),
            el(
                "details",
                el("summary", "All parameters of the estimator"),
                pairs_list(about.params),
            ),
            el(
                "details",
                el("summary", "Versions on the machine that wrote this page"),
                pairs_list(about.versions),
            ),
        ]
    )


def refused(facts: Facts) -> Html:
    """Scans left out, and notes."""
    parts: list[Any] = []
    if facts.refused:
        parts.append(
            table(
                ("Scan", "Why it was left out"),
                facts.refused.items(),
                caption=f"{len(facts.refused)} left out of this report",
            )
        )
    else:
        parts.append(el("p", "No scan was left out."))
    if facts.notes:
        parts += [
            el("h3", "Notes on how scans were found"),
            el("ul", (el("li", note) for note in facts.notes), class_="plain"),
        ]
    return join(parts)
