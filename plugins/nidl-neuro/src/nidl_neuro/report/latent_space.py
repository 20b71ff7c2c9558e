"""Sections on the latents: use, covariates, linear probes."""

from __future__ import annotations

import numpy as np

from nidl_neuro.covariates import Covariate
from nidl_neuro.report import charts, verdicts
from nidl_neuro.report.facts import Facts
from nidl_neuro.report.latents import ACTIVE, correlation, correlation_ratio
from nidl_neuro.report.markup import Html, el, join, number, table
from nidl_neuro.report.parts import left_out_list, picked, verdict_box

_MOST_ROWS = 12  # dimensions in the table of links


def dimensions(facts: Facts) -> Html:
    """KL and activity of each dimension."""
    latents = facts.data.latents
    order = latents.order
    chart = charts.bars(
        latents.kl[order],
        [f"z{k}" for k in order],
        [bool(latents.active[k]) for k in order],
        across="latent dimension: active first, then by KL",
        up="KL, nats",
        label=f"KL of each of {len(order)} latent dimensions; {int(latents.active.sum())} are active",
    )
    rows = (
        (
            f"z{k}",
            number(float(latents.kl[k])),
            number(float(latents.spread[k])),
            number(float(latents.mean[:, k].mean())),
            "yes" if latents.active[k] else "no",
        )
        for k in order
    )
    return join(
        [
            verdict_box(verdicts.on_collapse(latents)),
            el(
                "div",
                el(
                    "figure",
                    chart,
                    charts.legend(["active", "not active"], ["bar0", "off"]),
                    el("figcaption", "KL(q(z | x) ‖ N(0, 1)), averaged over the scans."),
                    class_="card",
                ),
                el(
                    "div",
                    el("h3", "How to read it"),
                    el(
                        "p",
                        f"A dimension is called active if its posterior mean varies between scans with a variance above {ACTIVE:g} (Burda, Grosse & Salakhutdinov 2016). The KL is the most that a dimension can tell about a scan, in nats, on average; a dimension that is not active counts as unused, whatever its KL.",
                        class_="hint",
                    ),
                    el(
                        "p",
                        "Dimensions are numbered from 0, as the columns of transform; signs and order mean nothing, and another training may share them out otherwise.",
                        class_="hint",
                    ),
                    class_="card",
                ),
                class_="grid2",
            ),
            el(
                "details",
                el("summary", "All dimensions as a table"),
                table(
                    ("Dimension", "KL, nats", "variance of the mean", "mean", "active"),
                    rows,
                    caption=f"Over {len(latents.mean)} scans",
                ),
            ),
        ]
    )


def covariates(facts: Facts) -> Html:
    """Latents against what the table says."""
    if not facts.covariates:
        return join(
            [
                el(
                    "p",
                    "The scans came without covariates that could be shown: hand in a table (such as participants.tsv) with columns like age, sex or site.",
                ),
                left_out_list(facts.left_out),
            ]
        )
    shown = [int(k) for k in facts.data.latents.order][:_MOST_ROWS]
    chart = charts.heat(
        facts.links[shown].T,
        [covariate.name for covariate in facts.covariates],
        [f"z{k}" for k in shown],
        label="Strength of the link between covariates and latent dimensions",
    )
    cards = [
        _against(facts, column, covariate) for column, covariate in enumerate(facts.covariates)
    ]
    return join(
        [
            el(
                "p",
                "Each covariate beside the latent dimension that goes with it most. That dimension was picked after looking at all of them, so its r or η is on the high side; the linear probe below has no such bias.",
            ),
            el(
                "figure",
                chart,
                el(
                    "figcaption",
                    "|r| (numbers) or η (groups) of each covariate with each latent dimension: 0 is no link, 1 is a perfect one. With few scans, and with many groups, values well above 0 arise by chance.",
                ),
                class_="card",
            ),
            el("div", cards, class_="grid2"),
            left_out_list(facts.left_out),
        ]
    )


def probe(facts: Facts) -> Html:
    """What a linear model reads from the latents."""
    probing = facts.probing
    if not probing.probes:
        return join([el("p", "There is no covariate to probe."), left_out_list(probing.left_out)])
    how = (
        f"learnt on {picked(facts)} and scored on held-out ones, which neither the probe nor PCA "
        "has seen"
        if probing.held_out
        else f"scored by 5-fold cross-validation on {picked(facts)}. PCA saw these scans, and so did "
        "the model if it was trained on them, though not their covariates: scores on new scans may be "
        "lower"
    )
    if probing.people < probing.scans:
        how += f". These scans are of {probing.people} people" + (
            "" if probing.held_out else ", and all of a person's are in one fold"
        )
    named = [(p.name, p.score, p.baseline, p.chance) for p in probing.probes]
    size = probing.components
    cards = []
    for is_number, head in ((True, "Numbers: R²"), (False, "Groups: balanced accuracy")):
        rows = [
            row for row, p in zip(named, probing.probes, strict=True) if p.is_number == is_number
        ]
        if rows:
            chart = charts.compared(rows, label=f"{head}: latents beside PCA")
            keys = charts.legend(["latents", f"PCA ({size})", "chance"], ["dot0", "dot2", "tick"])
            cards.append(el("figure", el("h3", head), chart, keys, class_="card"))
    table_rows = (
        (
            p.name,
            number(p.score),
            number(p.baseline),
            number(p.chance),
            str(p.scans),
            ", ".join(filter(None, ("R²" if p.is_number else "balanced accuracy", p.note))),
        )
        for p in probing.probes
    )
    return join(
        [
            el(
                "p",
                f"How much of each covariate can a linear model read from the {len(facts.data.latents.kl)} latents of a scan? Beside it, the same from {size} principal component{'s' * (size != 1)} of the same voxels; {how}.",
            ),
            el(
                "p",
                "R² is the share of variance explained: 0 is as good as always saying the mean, below 0 is worse. Balanced accuracy is the mean over groups of the share that is recognised; guessing gets one over the number of groups. A site that can be read well is a warning: results may be about scanners.",
            ),
            el("div", cards, class_="grid2"),
            table(
                ("Covariate", "Latents", f"PCA ({size})", "Chance", "Scans", "Measure"),
                table_rows,
                caption="In the charts, scores below 0 are drawn at 0. Ridge regression for numbers, logistic regression for groups.",
            ),
            left_out_list(probing.left_out),
        ]
    )


def _against(facts: Facts, column: int, covariate: Covariate) -> Html | None:
    links = facts.links[:, column]
    if np.isnan(links).all():
        return None
    best = int(np.nanargmax(links))
    known = covariate.known
    latent = facts.data.latents.mean[known, best]
    ids = np.array(facts.data.data.ids, dtype=object)[known]
    values = covariate.values[known]
    if covariate.is_number:
        r = correlation(latent, values.astype(float))
        told = f"r = {number(r, 2)}, {len(values)} scans"
        chart = charts.scatter(
            values.astype(float),
            latent,
            across=covariate.name,
            up=f"z{best}",
            label=f"z{best} against {covariate.name}: {told}",
            ids=list(ids),
        )
    else:
        told = f"η = {number(correlation_ratio(latent, values), 2)}, {len(values)} scans"
        groups = {name: latent[values == name] for name in covariate.groups}
        chart = charts.boxes(
            groups,
            up=f"z{best}",
            label=f"z{best} by {covariate.name}: {told}",
            ids={name: list(ids[values == name]) for name in groups},
        )
    return el(
        "figure",
        el("h3", covariate.name),
        chart,
        el("figcaption", f"z{best}: {told}"),
        class_="card",
    )
