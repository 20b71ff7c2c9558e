"""Small pieces that several sections of the page are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nidl_neuro.report.facts import Facts
from nidl_neuro.report.markup import MINUS, TIMES, Html, el, number
from nidl_neuro.report.verdicts import Verdict


def verdict_box(verdict: Verdict) -> Html:
    """A verdict, coloured by its mood."""
    return el(
        "div",
        el("p", el("strong", verdict.head)),
        el("p", verdict.text),
        class_=f"note {verdict.mood}",
    )


def ramp_legend(limit: float, low: str, high: str) -> Html:
    """What the colours of signed maps mean: the limit, and what is below and above 0."""
    end = number(limit, 2)
    return el(
        "p",
        el(
            "span",
            f"{MINUS}{end}, {low}",
            el("i", class_="key ramp", aria_hidden="true"),
            f"+{end}, {high}",
        ),
        class_="legend",
    )


def left_out_list(reasons: Mapping[str, str]) -> Html | None:
    """Columns left out and why, folded; nothing where there are none."""
    if not reasons:
        return None
    return el(
        "details",
        el("summary", f"{len(reasons)} column{'s' * (len(reasons) != 1)} left out, and why"),
        el("ul", (el("li", f"{name}: {why}") for name, why in reasons.items()), class_="plain"),
    )


def pairs_list(pairs: Mapping[str, Any]) -> Html:
    """Names and values."""
    return el(
        "dl", ((el("dt", name), el("dd", value)) for name, value in pairs.items()), class_="facts"
    )


def scans_told(facts: Facts) -> str:
    """How many scans: "30 + 10 held out"."""
    if facts.val is None:
        return str(len(facts.data.data))
    return f"{len(facts.data.data)} + {len(facts.val.data)} held out"


def picked(facts: Facts) -> str:
    """The scans that PCA and the probes looked at."""
    seen, every = facts.probing.scans, len(facts.data.data)
    return f"{'the' if seen == every else f'{seen} of the'} {every} {facts.data.name}"


def components_told(size: int) -> str:
    """ "8 components"."""
    return f"{size} component{'s' * (size != 1)}"


def count_told(value: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{value:,}".replace(",", "\u202f")


def by_told(values: Iterable[Any]) -> str:
    """Numbers as in 2 by 2 by 2.5, with the sign."""
    return f" {TIMES} ".join(map(str, values))
