"""HTML that is safe by default: whatever text is put into it is escaped."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import Any

MINUS, TIMES, DASH = "\u2212", "\u00d7", "\u2013"  # true signs, not those of a keyboard
_NUMBER = re.compile(
    rf"[-+{MINUS}]?\d[\d.,\u202f]*(e[-+{MINUS}]?\d+)?( times)?|[\w.+-]{{1,16}}"
)  # no line break within
_VOID = frozenset({"br", "img", "input"})


class Html(str):
    """Text that is HTML already, and goes in as it is."""


def el(tag: str, *children: Any, **attributes: Any) -> Html:
    """An element of HTML or SVG. Children and values of attributes are escaped, but for `Html`.

    Lists and generators are flattened, None and False leave no trace. `class_` and `for_` are
    written without their underscore, other underscores as hyphens: `stroke_width`.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Html:
    """All of them, one after the other, escaped but for `Html`."""
    parts: list[str] = []
    for child in children:
        if child is None or child is False:
            continue
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, (str, int, float)):
            parts.append(html.escape(_text(child)))
        else:
            parts.append(join(child))
    return Html("".join(parts))


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], *, caption: str) -> Html:
    """A table below its caption; it scrolls by itself where it is wider than the screen."""
    return join(
        [
            el("p", caption, class_="hint above"),
            el(
                "div",
                el(
                    "table",
                    el("thead", el("tr", (el("th", cell, scope="col") for cell in head))),
                    el("tbody", (el("tr", (_cell(cell) for cell in row)) for row in rows)),
                    aria_label=caption,
                ),
                class_="scroll",
                tabindex=0,
                role="region",
                aria_label=caption,
            ),
        ]
    )


def number(value: float, digits: int = 3) -> str:
    """A number for people, to so many significant digits, with a true minus; thousands are whole."""
    if not math.isfinite(value):
        return DASH
    size = abs(value)
    if value == int(value) or size >= 1000:
        text = f"{value:,.0f}".replace(",", "\u202f")
    elif size < 1e-3:
        text = f"{value:.{digits - 1}e}"
    else:
        text = f"{value:#.{digits}g}".rstrip(".")
    return text.replace("-", MINUS)


def _cell(content: Any) -> Html:
    return el("td", content, class_="n" if _NUMBER.fullmatch(str(content)) else None)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
