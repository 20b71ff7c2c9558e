"""`nidl doctor`: what is installed, from where, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import groupby
from typing import Any


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    doctor = commands.add_parser("doctor", help="what is installed, and what is wrong with it")
    doctor.add_argument(
        "--load", action="store_true", help="import every plugin, each in a process"
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="for one import, in seconds (60)",
    )
    doctor.set_defaults(run=_doctor)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _doctor(arguments: argparse.Namespace) -> int:
    from nidl_core.doctor import examine

    report = examine(load=arguments.load, timeout=arguments.timeout, tell=_progress)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        _print(report, loaded=arguments.load)
    return 1 if report["problems"] else 0


def _progress(name: str) -> None:
    if sys.stderr.isatty():
        print(f"importing {name} ...", file=sys.stderr)


def _print(report: dict[str, Any], *, loaded: bool) -> None:
    python, core, torch = report["python"], report["core"], report["torch"]
    print(f"Python {python['version']}, {python['executable']}")
    print(f"nidl-core {core['version'] or '?'}, {core['place']}")
    if torch:
        told = torch.get("error") or f"imported in {torch['seconds']:.1f} s"
        print(f"torch {torch.get('version', '')}: {told}")
    for one in report["distributions"]:
        where = f"{one['source']} (editable)" if one["editable"] else one["place"]
        where += f", from {one['source']}" if one["source"] and not one["editable"] else ""
        wants = f", for nidl-core {one['core_range']}" if one["core_range"] else ""
        print(f"\n{one['name']} {one['version']}{wants}, in {where}")
        for kind, points in groupby(
            [*one["components"], *one["hooks"]], key=lambda point: point["kind"]
        ):
            print(f"  {kind:<12} {', '.join(_point(point) for point in points)}")
    for title in ("problems", "notes"):
        if report[title]:
            count = len(report[title])
            print(f"\n{count} {title if count > 1 else title[:-1]}")
        for finding in report[title]:
            print(f"- {finding['text']}")
            if finding["remedy"]:
                print(f"  {finding['remedy']}")
    if not report["problems"]:
        more = "" if loaded else " `nidl doctor --load` imports every plugin, too."
        print(f"\nNo problems found.{more}")


def _point(point: dict[str, Any]) -> str:
    if point["status"] == "disabled":
        return f"{point['name']} (disabled)"
    if point["status"] != "ok":
        return f"{point['name']} (broken)"
    return (
        point["name"] if point["seconds"] is None else f"{point['name']} {point['seconds']:.2f} s"
    )
