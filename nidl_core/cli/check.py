"""`nidl check`: the conformance kit on an installed plugin, without pytest."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

from nidl_core.errors import SpecError
from nidl_core.registry import REGISTRIES

if TYPE_CHECKING:
    from nidl_core.testing import Report, Result


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command of this module."""
    check = commands.add_parser(
        "check",
        help="check the components of an installed plugin",
        description="Run the conformance checks on the components of an installed distribution.",
    )
    check.add_argument("distribution", metavar="DISTRIBUTION", help="as pip knows it: nidl-vae")
    check.add_argument("--name", metavar="NAME", help="one of its components only")
    check.add_argument("--json", action="store_true", help="for programs")
    check.add_argument("--verbose", action="store_true", help="show the checks that passed as well")
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    _require(arguments.distribution)  # before torch is imported
    from nidl_core.testing import installed, run_checks

    all_cases, name = installed(arguments.distribution), arguments.name
    cases = [c for c in all_cases if name is None or (c.entry and c.entry.answers(name))]
    if not cases:
        names = ", ".join(sorted({c.entry.name for c in all_cases if c.entry}))
        raise SpecError(
            f"{arguments.distribution} has no component named {name!r}. It has: {names}."
        )
    print(f"{len(cases)} cases of {arguments.distribution}", file=sys.stderr)

    def each(result: Result) -> None:
        if arguments.verbose or result.outcome == "failed":
            told = f": {result.text}" if result.text else ""
            print(f"{result.outcome}  {result.case}  {result.check}{told}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checks provoke some, and tests make errors of them
        report = run_checks(cases, each=each)
    if arguments.json:
        print(json.dumps(_facts(report), indent=1))
    else:
        _print(report)
    return 0 if report.ok else 1


def _require(distribution: str) -> None:
    from packaging.utils import canonicalize_name

    names = {e.distribution for registry in REGISTRIES.values() for e in registry.entries()}
    if canonicalize_name(distribution) not in {canonicalize_name(name) for name in names}:
        raise SpecError(
            f"no installed distribution {distribution!r} has components. Installed: "
            f"{', '.join(sorted(names)) or 'none'}."
        )


def _facts(report: Report) -> dict[str, Any]:
    results = [
        {
            "case": r.case,
            "check": r.check,
            "outcome": r.outcome,
            "text": r.text,
            "seconds": round(r.seconds, 3),
        }
        for r in report.results
    ]
    return {"ok": report.ok, "counts": report.counts, "results": results}


def _print(report: Report) -> None:
    """A line a case, then what was expected to fail and why, then the sum."""
    cases = list(dict.fromkeys(result.case for result in report.results))
    width = max(map(len, cases))
    for case in cases:
        outcomes = [result.outcome for result in report.results if result.case == case]
        counts = {name: outcomes.count(name) for name in report.counts}
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        print(f"{case.ljust(width)}  {said}")
    for outcome in ("expected failure", "skipped"):
        reasons: dict[tuple[str, str], int] = {}
        for result in report.of(outcome):
            key = result.check, result.text
            reasons[key] = reasons.get(key, 0) + 1
        for (name, text), times in reasons.items():
            print(f"{outcome}{f' ({times} times)' if times > 1 else ''}: {name}: {text}")
    print(f"in all: {', '.join(f'{count} {name}' for name, count in report.counts.items())}")
