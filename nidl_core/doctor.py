"""What is installed, from where, and what is wrong with it: `nidl doctor`.

Without `load` all of it is read from metadata, and no plugin is imported. With it, each plugin is
imported in a process of its own.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nidl_core
from nidl_core import discovery, hooks
from nidl_core.diagnosis import (
    GROUPS,
    HOOKS,
    Finding,
    diagnose,
    editable,
    installed_version,
    source,
)
from nidl_core.discovery import CORE, SWITCH, Distribution, Point, canonical, disabled
from nidl_core.errors import singular
from nidl_core.probe import probe
from nidl_core.registry import INTERFACE_VERSION, REGISTRIES


def examine(
    *, load: bool = False, timeout: float = 60.0, tell: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """The report, as plain data: `python`, `core`, `torch`, `distributions`, `problems`, `notes`.

    `timeout` is for one import, in seconds; `tell` is called with the name of each distribution before
    it is imported.
    """
    everything = discovery.distributions()
    found = sorted(discovery.counted(everything), key=lambda one: canonical(one.name))
    findings = [*diagnose(everything), *_met_so_far()]
    outcomes: dict[Point, dict[str, Any]] = {}
    torch = None
    for one in found if load else []:
        tell(one.name)
        tried, torch_of = _tried(one, timeout)
        outcomes |= tried
        torch = torch_of or torch
        findings += _outcome_faults(one, tried)
    findings = list(dict.fromkeys(findings))
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "core": {
            "version": installed_version(CORE),
            "place": str(Path(nidl_core.__file__).parent),
            "interface_version": INTERFACE_VERSION,
        },
        "torch": torch,
        "distributions": [_described(one, outcomes) for one in found],
        "problems": [_plain(finding) for finding in findings if finding.is_problem],
        "notes": [_plain(finding) for finding in findings if not finding.is_problem],
    }


def _plain(finding: Finding) -> dict[str, str]:
    facts = asdict(finding)
    del facts["is_problem"]
    return facts


def _described(one: Distribution, outcomes: dict[Point, dict[str, Any]]) -> dict[str, Any]:
    points = []
    for point in one.points:
        if kind := GROUPS.get(point.group):
            outcome = outcomes.get(point, {})
            status = "disabled" if disabled(one.name, point.name) else outcome.get("error") or "ok"
            facts = {"kind": kind, "name": point.name, "id": point.id, "target": point.target}
            points.append({**facts, "status": status, "seconds": outcome.get("seconds")})
    points.sort(key=lambda facts: (facts["kind"], facts["name"]))
    return {
        "name": one.name,
        "version": one.version,
        "place": one.place,
        "editable": editable(one) is not None,
        "source": str(editable(one) or source(one)[0]) or None,
        "core_range": _core_range(one),
        "components": [facts for facts in points if facts["kind"] != "hooks"],
        "hooks": [facts for facts in points if facts["kind"] == "hooks"],
    }


def _met_so_far() -> Iterator[Finding]:
    """Faults that this process ran into before it asked."""
    for registry in REGISTRIES.values():
        for entry_id, fault in list(registry.faults.items()):
            yield Finding("broken", entry_id.partition(":")[0], str(fault))
    for plugin, reason in list(hooks.faults.items()):
        text = f"the hook plugin {plugin} failed: {reason}"
        yield Finding("broken", plugin.partition(":")[0], text)


def _tried(one: Distribution, timeout: float) -> tuple[dict[Point, dict[str, Any]], Any]:
    """The outcome of each point's import, and that of torch."""
    points = [p for p in one.points if p.group in GROUPS and not disabled(one.name, p.name)]
    events = [p for p in points if p.group == HOOKS]
    others = [p for p in points if p.group != HOOKS]
    tried = probe(events, torch=False, timeout=timeout)
    heavy = [p for p in events if "torch" in tried[p].get("heavy", ())]
    again = probe([*others, *heavy], torch=True, timeout=timeout)
    for point in heavy:  # what it does to torch is seen where torch is there before
        tried[point]["changed"] = again.pop(point).get("changed", [])
    torch = again.pop(None, None)
    return {p: outcome for p, outcome in {**tried, **again}.items() if p is not None}, torch


def _outcome_faults(one: Distribution, outcomes: dict[Point, dict[str, Any]]) -> Iterator[Finding]:
    out = f"{SWITCH}={one.name} leaves it out. Upgrade, repair or uninstall {one.name}."
    for point, seen in outcomes.items():
        noun = "hook plugin" if point.group == HOOKS else singular(GROUPS[point.group])
        who = f"the {noun} {point.name!r} of {one.name} {one.version}"
        if seen["error"]:
            text = f"{who} cannot be used ({point.target}): {seen['error']}"
            yield Finding("broken", one.name, text, out)
        if changed := seen.get("changed"):
            more = f" and {len(changed) - 5} more" if changed[5:] else ""
            text = f"the import of {who} changes {', '.join(changed[:5])}{more}, for everybody"
            yield Finding("side-effect", one.name, text, out)
        if printed := seen.get("printed"):
            text = f"the import of {who} prints to standard output: {printed[:80]!r}"
            yield Finding(
                "side-effect", one.name, text, f"Ask the author of {one.name} to log instead."
            )
        if threads := seen.get("threads"):
            text = f"the import of {who} leaves threads running: {', '.join(threads)}"
            yield Finding("side-effect", one.name, text, out)
        for warned in seen.get("warned", ()):
            text = f"the import of {who} warns: {warned[:200]}"
            yield Finding("warning", one.name, text, is_problem=False)
        if said := seen.get("said"):
            text = f"the import of {who} writes to standard error: {said[:80]!r}"
            yield Finding("warning", one.name, text, is_problem=False)
        if (seconds := seen["seconds"] or 0) > discovery.SLOW:
            text = f"the import of {who} takes {seconds:.1f} s"
            yield Finding("slow", one.name, text, is_problem=False)
        if point.group == HOOKS and (heavy := seen.get("heavy")):
            text = f"{who} imports {', '.join(heavy)}, for which `nidl --help` has to wait"
            yield Finding("slow", one.name, text, is_problem=False)


def _core_range(one: Distribution) -> str | None:
    try:
        wanted = [r for r in discovery.applicable(one.requires) if canonical(r.name) == CORE]
    except ValueError:
        return None
    return str(wanted[0].specifier) if wanted else None
