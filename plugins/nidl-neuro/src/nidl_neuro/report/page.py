"""The page: sections in order, put into the template."""

from __future__ import annotations

import datetime
import html
from importlib import resources
from string import Template

from nidl_neuro.report import anatomy, latent_space, learning, overview
from nidl_neuro.report.brains import Brains
from nidl_neuro.report.facts import Facts
from nidl_neuro.report.markup import Html, el, join
from nidl_neuro.report.pictures import Painter, ramp


def page(facts: Facts, brains: Brains, title: str) -> str:
    """The whole page as HTML; it refers to nothing outside itself."""
    painter = Painter.of(brains, facts.about.voxel_size)
    parts = [
        ("summary", "In short", overview.summary(facts)),
        ("model", "What was trained on what", overview.model(facts)),
        ("training", "Training", learning.training(facts)),
        ("bounds", "The bound, beside PCA", learning.bounds(facts)),
        ("reconstructions", "Reconstructions", anatomy.reconstructions(facts, brains, painter)),
        ("worst", "Worst reconstructed", anatomy.poorest(facts, brains, painter)),
        ("samples", "Samples", anatomy.samples(brains, painter)),
        ("traversals", "Traversals", anatomy.traversals(facts, brains, painter)),
        ("dimensions", "Use of the latents", latent_space.dimensions(facts)),
        ("covariates", "Latents and covariates", latent_space.covariates(facts)),
        ("probe", "Linear probe", latent_space.probe(facts)),
        ("refused", "Left out, and notes", overview.refused(facts)),
    ]
    return _template().substitute(
        title=html.escape(title),
        ramp=ramp(),
        header=_header(facts, title),
        nav=el(
            "nav",
            el("ol", (el("li", el("a", name, href=f"#{anchor}")) for anchor, name, _ in parts)),
            aria_label="Contents",
        ),
        body=join(
            el(
                "section",
                el("h2", name, id=f"{anchor}-head"),
                body,
                id=anchor,
                aria_labelledby=f"{anchor}-head",
            )
            for anchor, name, body in parts
        ),
        footer=_footer(facts),
    )


def _template() -> Template:
    return Template((resources.files(__package__) / "template.html").read_text(encoding="utf-8"))


def _header(facts: Facts, title: str) -> Html:
    estimator = facts.about.parts[0]
    held = "" if facts.val is None else f", and {len(facts.val.data)} held out"
    return el(
        "header",
        el("h1", title),
        el(
            "p",
            f"How {estimator.id} does on {len(facts.data.data)} brain scans{held}.",
            class_="lead",
        ),
    )


def _footer(facts: Facts) -> Html:
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    version = facts.about.versions.get("nidl-neuro", "")
    return el(
        "footer",
        el(
            "p",
            f"Written by nidl-neuro {version} on {today}. Everything is in this file: it needs no network.",
        ),
    )
