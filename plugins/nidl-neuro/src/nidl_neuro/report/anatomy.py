"""Sections with brains: reconstructions, samples, traversals."""

from __future__ import annotations

import numpy as np

from nidl_neuro.report.brains import Brains, worst
from nidl_neuro.report.facts import Facts
from nidl_neuro.report.markup import DASH, MINUS, Html, el, join, number, table
from nidl_neuro.report.parts import ramp_legend
from nidl_neuro.report.pictures import Painter

_MOST_ROWS = 12  # of the table of the worst scans


def reconstructions(facts: Facts, brains: Brains, painter: Painter) -> Html:
    """Scans beside what the model makes of them."""
    group = facts.groups[-1]
    cards = [
        painter.example(
            example,
            example.id,
            f"error {number(example.error)}, number {example.rank} of {example.of} from the best",
        )
        for example in brains.examples
    ]
    outline = (
        "The blue line is the edge of the mask: outside it nothing counts. "
        if facts.about.has_mask
        else "The model has no mask: all voxels count. "
    )
    return join(
        [
            el(
                "p",
                f"A well, a middling and a poorly reconstructed one of the {len(group.data)} {group.name}. {outline}Left is left; slices run through the middle of the {'mask' if facts.about.has_mask else 'grid'}.",
            ),
            ramp_legend(painter.missed, "scan darker than reconstruction", "scan brighter"),
            cards,
        ]
    )


def poorest(facts: Facts, brains: Brains, painter: Painter) -> Html:
    """The scans that the model reconstructs worst."""
    median = float(np.median(np.concatenate([group.errors for group in facts.groups])))
    rows = []
    count = sum(len(group.errors) for group in facts.groups)
    for group, rank in worst(facts, min(_MOST_ROWS, max(3, count // 4))):
        row = int(np.argsort(group.errors, kind="stable")[rank])
        error = float(group.errors[row])
        times = f"{number(error / median)} times" if median else DASH
        rows.append((group.data.ids[row], number(error), times, group.name))
    return join(
        [
            el(
                "p",
                "Look at these first: motion, artefacts, lesions, failed registration and wrong orientation end up here, as does healthy anatomy that the model has rarely seen.",
            ),
            table(
                ("Scan", "Error", "Of the median", "Among"),
                rows,
                caption="The largest errors of reconstruction (root mean square over the voxels that "
                "count), and how many times the median of all scans they are",
            ),
            [
                painter.example(
                    example, f"{example.id} ({example.group})", f"error {number(example.error)}"
                )
                for example in brains.worst
            ],
        ]
    )


def samples(brains: Brains, painter: Painter) -> Html:
    """Brains that nobody has."""
    figures = [painter.sample(volume, place) for place, volume in enumerate(brains.samples, 1)]
    return join(
        [
            el(
                "p",
                "Brains of no one: latents drawn from the prior, decoded. They should look as varied as the scans, and as much like brains as the reconstructions do. They are means of p(x | z), without the noise of a scan.",
            ),
            el("div", figures, class_="slices"),
        ]
    )


def traversals(facts: Facts, brains: Brains, painter: Painter) -> Html:
    """What each dimension does to the brain."""
    if not brains.traversals:
        return el("p", "No latent dimension is in use, so there is nothing to traverse.")
    latents = facts.data.latents
    cards = [
        painter.traversal(
            one,
            f"KL {number(float(latents.kl[one.dimension]))} nats. {_strongest(facts, one.dimension)}",
        )
        for one in brains.traversals
    ]
    return join(
        [
            el(
                "p",
                f"One dimension at a time goes from {MINUS}2 to +2 standard deviations of the scans' latents, the others keeping their mean: the average brain, changed. Shown are the {len(cards)} with the largest KL of those in use. A dimension is no cause: what it changes is what went together in these scans.",
            ),
            ramp_legend(painter.changed, "darker at +2", "brighter at +2"),
            el("div", cards, class_="grid2"),
        ]
    )


def _strongest(facts: Facts, dimension: int) -> str:
    """What goes with a dimension most, in words; nothing without covariates."""
    links = facts.links[dimension] if facts.covariates else np.array([np.nan])
    if np.isnan(links).all():
        return ""
    best = int(np.nanargmax(links))
    covariate = facts.covariates[best]
    return f"Goes most with {covariate.name} ({'|r|' if covariate.is_number else 'η'} = {links[best]:.2f})."
