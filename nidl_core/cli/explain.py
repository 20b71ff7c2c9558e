"""`nidl explain`: what a spec resolves to, defaults filled in; and what a model file says of itself."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nidl_core import specs
from nidl_core.cli import completion, settings
from nidl_core.errors import ComponentError, ModelFileError, NidlError, singular
from nidl_core.registry import Entry, estimators, registry

_SAID = ("parameter", "kind", "id", "distribution", "version")  # of each component, in a model file
_SOURCES = {"given": "given", "default": "default", "estimator": "from the estimator", "file": ""}
_WIDEST = 40  # characters: longer values push their source to the right


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command of this module."""
    explain = commands.add_parser(
        "explain",
        help="show what a spec resolves to, defaults filled in, or what a model file holds",
    )
    spec = explain.add_argument(
        "spec", metavar="SPEC", type=Path, help="a .toml, .json or .nidl file"
    )
    completion.of_files(spec, "toml", "json", "nidl")
    explain.add_argument("--json", action="store_true", help="as a spec, which may be fitted")
    settings.add(explain)
    explain.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.spec.suffix == ".nidl":
        if arguments.settings:
            raise NidlError("--set goes with a spec: what a model file holds is done.")
        explained = _of_model(arguments.spec)
    else:
        spec = specs.read(arguments.spec)
        explained = resolve(*settings.configured(spec, arguments.settings))
        if "data" in spec:
            explained["data"] = spec["data"]
    if arguments.json:
        print(as_json(explained))
    else:
        _print(explained[specs.RESOLVED])
        if "data" in explained:
            print("data")
            source = "" if arguments.spec.suffix == ".nidl" else "given"
            _print_rows({n: (_brief(value), source) for n, value in explained["data"].items()})
    return 0


def as_json(explained: Mapping[str, Any]) -> str:
    """The text of `resolve`'s answer; objects are shown by their repr."""
    return json.dumps(explained, indent=1, default=repr)


def resolve(estimator: Any, given: set[str]) -> dict[str, Any]:
    """The spec of an estimator, everything filled in, and under "resolved" where it comes from.

    `given` are the parameters that the estimator did not get by default. Builds no network.
    """
    entry = estimators.entry_of(type(estimator))
    assert entry is not None  # it was found by name
    params: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    components = []
    for name, value in estimator.get_params(deep=False).items():
        source = "given" if name in given else "default"
        if name in estimator.components and estimator.recipe(name) is not None:
            described, value = _component(estimator, name)
            components.append(described)
            parameters[name] = {"value": value["name"], "from": source}
        else:
            parameters[name] = {"value": value, "from": source}
        params[name] = value
    about = {"parameter": "", **_origin(entry), "parameters": parameters}
    spec = {"name": entry.id, "params": _only_data(params)}
    return {**spec, specs.RESOLVED: {"components": [about, *components]}}


def _component(estimator: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A component that was given by name: all about it, and its spec, defaults filled in."""
    recipe = estimator.recipe(name)
    parameters = {}
    for parameter, value in estimator.component_params(name, estimator._given).items():
        source = "given" if parameter in recipe.params else "default"
        if source == "default" and _follows(estimator, name, parameter):
            source = "estimator"
        parameters[parameter] = {"value": value, "from": source}
    # What follows the estimator has to go on doing so.
    own = {p: found["value"] for p, found in parameters.items() if found["from"] != "estimator"}
    about = {"parameter": name, **_origin(recipe.entry), "parameters": parameters}
    return about, {"name": recipe.entry.id, "params": _only_data(own)}


def _follows(estimator: Any, name: str, parameter: str) -> bool:
    """Whether a component's parameter is the estimator's own of that name, like a loss's beta."""
    if parameter not in estimator._given:
        return False
    mark = object()
    changed = {**estimator._given, parameter: mark}
    try:
        return estimator.component_params(name, changed)[parameter] is mark
    except NidlError:  # the estimator reads it for something else
        return False


def _origin(entry: Entry) -> dict[str, str]:
    return {
        "kind": entry.kind,
        "id": entry.id,
        "distribution": entry.distribution,
        "version": entry.version,
        "target": entry.target,
    }


def _only_data(params: Mapping[str, Any]) -> dict[str, Any]:
    """Those that JSON can hold. Objects are defaults then, and are filled in again."""
    found = {}
    for name, value in params.items():
        try:
            found[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            continue
    return found


def _of_model(path: Path) -> dict[str, Any]:
    """The spec in a model file, and under "resolved" what else it says. Imports nothing heavy."""
    import zipfile

    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}.")
    damage = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
    try:
        with zipfile.ZipFile(path) as archive:
            return _told(json.loads(archive.read("nidl.json"), parse_constant=str))
    except (*damage, zipfile.BadZipFile) as err:
        raise ModelFileError(f"{path} is not a model file, or is damaged: {err}.") from err


def _told(header: dict[str, Any]) -> dict[str, Any]:
    """What the header of a model file says, in the form of `resolve`'s answer."""
    components = [
        {**{key: c[key] for key in _SAID}, "status": _status(c), "parameters": {}}
        for c in header["components"]
    ]
    parts = {component["parameter"]: component["parameters"] for component in components}
    for name, value in header["params"].items():
        if name in parts and isinstance(value, dict):
            parts[name].update(_from_file(value["params"]))
            value = value["name"]
        parts[""][name] = {"value": value, "from": "file"}
    fit = header["fit"]
    history = fit.get("history_") or []
    found = {
        "components": components,
        "local": header["local"],
        "input_shape": header["input_shape"],
        "seed": fit.get("seed_"),
        "epochs": len(history),
        "figures": dict(history[-1]) if history else {},
        "facts": {"nidl-core": header["nidl_core"], **header["facts"]},
    }
    told = {"name": header["estimator"], "params": header["params"], specs.RESOLVED: found}
    made = fit.get("data_spec_")
    return {**told, "data": made} if isinstance(made, Mapping) else told


def _from_file(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"value": value, "from": "file"} for name, value in params.items()}


def _status(component: Mapping[str, str]) -> str:
    """Whether the component that a file names is installed. Imports nothing."""
    try:
        return f"{registry(component['kind']).entry(component['id']).version} is installed"
    except ComponentError:
        return "not installed"


def _print(found: Mapping[str, Any]) -> None:
    for component in found["components"]:
        kind = component["parameter"] or singular(component["kind"])
        where = component.get("target") or component["status"]
        print(_safe(f"{component['id']} {component['version']}   {kind}: {where}"))
        _print_rows(
            {n: (p["value"], _SOURCES[p["from"]]) for n, p in component["parameters"].items()}
        )
        print()
    for name in ("local", "input_shape", "seed", "epochs"):
        if found.get(name) not in (None, []):
            print(_safe(f"{name} = {_value(found[name])}"))
    for name in ("figures", "facts"):
        if found.get(name):
            print(name)
            _print_rows({n: (value, "") for n, value in found[name].items()})


def _print_rows(rows: Mapping[str, tuple[Any, str]]) -> None:
    """`name = value  source`, in columns."""
    cells = [(name, _value(value), source) for name, (value, source) in rows.items()]
    width = max((len(name) for name, _, _ in cells), default=0)
    wide = max((len(value) for _, value, _ in cells if len(value) <= _WIDEST), default=0)
    for name, value, source in cells:
        print(_safe(f"  {name:<{width}} = {value:<{wide}}  {source}").rstrip())


def _brief(value: Any) -> Any:
    """A value of the data's own, without long contents such as a mask's."""
    return f"<{len(value)} entries>" if isinstance(value, Mapping) else value


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


def _safe(text: str) -> str:
    """Without the control characters that a file from elsewhere may bring to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
