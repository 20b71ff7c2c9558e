"""`nidl list` and `nidl show`: what is installed, and what a component takes."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
from collections.abc import Sequence
from typing import Any

from nidl_core.cli import completion
from nidl_core.errors import ComponentError, NidlError, SpecError, UnknownComponent
from nidl_core.registry import REGISTRIES, Entry, accepted_parameters, registry


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands of this module."""
    kinds = tuple(REGISTRIES)

    listing = commands.add_parser("list", help="list the installed components")
    listing.add_argument("kind", nargs="?", choices=kinds, metavar="KIND", help=", ".join(kinds))
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="show one component: origin, parameters, documentation")
    name = show.add_argument("id", metavar="ID", help="a name, or distribution:name")
    completion.of_components(name)
    show.add_argument(
        "--kind", choices=kinds, metavar="KIND", help="if the name is of several kinds"
    )
    show.add_argument("--json", action="store_true", help="for programs")
    show.set_defaults(run=_show)


def _list(arguments: argparse.Namespace) -> int:
    kinds = [arguments.kind] if arguments.kind else list(REGISTRIES)
    entries = [entry for kind in kinds for entry in registry(kind).entries()]
    if arguments.json:
        print(json.dumps([_facts(entry) for entry in entries], indent=1))
        return 0
    if not entries:
        print("No components are installed. Begin with: pip install 'nidl-core[all]'")
        return 0
    rows = [("KIND", "NAME", "DISTRIBUTION", "VERSION", "")]
    rows += [
        (e.kind, e.name, e.distribution, e.version, registry(e.kind).status(e)) for e in entries
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[4]]).rstrip())
    return 0


def _show(arguments: argparse.Namespace) -> int:
    kinds = [arguments.kind] if arguments.kind else list(REGISTRIES)
    found, misses = [], []
    for kind in kinds:
        try:
            found.append(registry(kind).entry(arguments.id))
        except UnknownComponent as miss:
            misses.append(miss)
    if not found:
        raise _most_helpful(misses)
    shown = [{**_facts(entry), **_inside(entry)} for entry in found]
    if arguments.json:
        print(json.dumps(shown, indent=1, default=repr))
    else:
        for facts in shown:
            _print_component(facts)
    return int(any(facts["parameters"] is None for facts in shown))  # one that is broken


def _most_helpful(misses: list[UnknownComponent]) -> NidlError:
    """The miss that knows who provides the name, or a near name; else a plain one."""
    helpful = (m for m in misses if m.providers or m.close)
    plain = SpecError(
        f"no component named {misses[0].name!r}. `nidl list` shows what is installed."
    )
    return next(helpful, plain)


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "id": entry.id,
        "distribution": entry.distribution,
        "version": entry.version,
        "target": entry.target,
        "status": registry(entry.kind).status(entry) or "ok",
    }


def _inside(entry: Entry) -> dict[str, Any]:
    """Parameters, documentation and choices; they need the component's import."""
    try:
        cls = registry(entry.kind).get(entry.id)
    except ComponentError as fault:
        return {"status": str(fault), "parameters": None, "choices": {}, "doc": None}
    parameters = {
        name: "(required)" if p.default is p.empty else p.default
        for name, p in accepted_parameters(cls).items()
    }
    inside = {"parameters": parameters, "choices": {}, "doc": inspect.getdoc(cls)}
    try:  # parameter -> names, of which it takes one
        choices: dict[str, Sequence[str]] = getattr(cls, "choices", dict)()
        inside["choices"] = {str(name): list(map(str, names)) for name, names in choices.items()}
    except Exception as err:  # a stranger's code: the rest can be shown
        inside["status"] = f"its choices cannot be listed: {type(err).__name__}: {err}"
    return inside


def _print_component(facts: dict[str, Any]) -> None:
    print(f"{facts['id']} {facts['version']}   one of the {facts['kind']}: {facts['target']}")
    if facts["parameters"] is None:
        print(f"\n  {facts['status']}\n")
        return
    print("\nParameters")
    for name, default in facts["parameters"].items():
        value = default if default == "(required)" else f"= {default!r}"
        print(f"  {name} {value}")
    print(f"{'' if facts['parameters'] else '  none'}\n{facts['doc'] or ''}\n")
    if facts["status"] != "ok":
        print(f"({facts['status']})\n")
    for name, names in facts["choices"].items():
        print(f"{name}: one of {len(names)}\n{_columns(names)}\n")


def _columns(names: Sequence[str]) -> str:
    """The names in columns, as many as the terminal is wide, read downwards."""
    wide = max(map(len, names), default=0) + 2
    across = max(1, (shutil.get_terminal_size().columns - 2) // wide)
    down = -(-len(names) // across)
    rows = (names[i::down] for i in range(down))
    return "\n".join("  " + "".join(f"{n:<{wide}}" for n in row).rstrip() for row in rows)
