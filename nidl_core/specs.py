"""Spec files: an estimator by name and parameters, in TOML or JSON.

    name = "vae"
    [params]
    latent_dim = 8
    encoder = { name = "cnn2d", params = { widths = [16, 32] } }
    decoder = "cnn2d"
    [data]
    voxel_size = 2

`data`, which may be missing, is for the plugin that reads the data. They hold plain data. Names are resolved through the registries alone: no import path, nothing
evaluated, nothing unpickled.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nidl_core import assembly
from nidl_core.errors import SpecError
from nidl_core.registry import accepted_parameters, estimators, unknown_parameter

RESOLVED = "resolved"  # where `nidl explain --json` tells what a spec leads to: not read
_KEYS = ("name", "params", "data", RESOLVED)
_DEEPEST = 32  # levels of lists and tables


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The spec in a `.toml` or `.json` file: `{"name": ..., "params": {...}}`. Resolves no name.

    "data" is there if the file has it: how data are to be read. Raises `SpecError` for what is no such file, with the line where its syntax goes wrong.

    >>> spec = read("vae.toml")  # doctest: +SKIP
    >>> vae = nidl.build(spec["name"], **spec["params"])  # doctest: +SKIP
    """
    path = Path(path)
    parse = {".toml": _toml, ".json": parse_json}.get(path.suffix.lower())
    if parse is None:
        raise SpecError(
            f"{path}: a spec file is .toml or .json. Nothing else is read (YAML and pickle can hold "
            "more than data)."
        )
    try:
        found = parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SpecError(f"there is no spec file {path}.") from None
    except (OSError, UnicodeDecodeError) as err:
        raise SpecError(f"cannot read {path}: {err}.") from err
    except RecursionError as err:
        raise SpecError(f"{path} is nested too deeply to be a spec.") from err
    except ValueError as err:  # both parsers name the line
        raise SpecError(f"{path} is not valid {path.suffix[1:].upper()}: {err}.") from err
    try:
        return _checked(found)
    except SpecError as err:
        raise SpecError(f"{path}: {err}") from None


def build(spec: Mapping[str, Any]) -> Any:
    """The estimator of a spec as `read` gives it: `nidl.build(name, **params)`.

    Raises what `nidl.build` raises, and `SpecError` for parameters that are missing.
    """
    cls, params = estimators.get(spec["name"]), spec["params"]
    accepted = accepted_parameters(cls)
    if "self" in params:  # the one keyword that a constructor cannot refuse itself
        raise unknown_parameter(cls.__name__, "self", list(accepted))
    required = [name for name, p in accepted.items() if p.default is p.empty]
    if missing := [name for name in required if name not in params]:
        raise SpecError(
            f"{spec['name']} needs {' and '.join(missing)}: give {'them' if missing[1:] else 'it'} "
            "in params."
        )
    return assembly.build(spec["name"], **params)


def check_plain(value: Any, where: str, depth: int = 0) -> None:
    """Raise `SpecError` for what both TOML and JSON cannot hold, or no parameter can be.

    Text, truth values, finite numbers of 64 bits, lists and tables of them are plain, and None.
    """
    if depth > _DEEPEST:
        raise SpecError(f"{where:.60}... is nested more than {_DEEPEST} levels deep.")
    if isinstance(value, dict):
        for key, inner in value.items():
            check_plain(inner, f"{where}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            check_plain(inner, f"{where}[{index}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{where} is {value}: a spec holds finite numbers.")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SpecError(f"{where} is an integer of more than 64 bits.")
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        raise SpecError(f"{where} is a {type(value).__name__}, which no parameter is.")


def parse_json(text: str) -> Any:
    """The value of a JSON text; a key that comes twice in an object is a ValueError."""
    return json.loads(text, object_pairs_hook=_unique)


def _checked(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise SpecError(
            f'a spec is a table {{"name": ..., "params": {{...}}}}, got a {type(found).__name__}.'
        )
    for key in found:
        if key not in _KEYS:
            raise SpecError(_surplus(key))
    name, params = found.get("name"), found.get("params", {})
    if not isinstance(name, str) or not name:
        given = f", got {name!r:.60}" if "name" in found else ", and it is missing"
        raise SpecError(f"'name' must be the name of an estimator, like \"vae\"{given}.")
    if not isinstance(params, dict):
        raise SpecError(f"'params' must be a table of parameters, got {params!r:.60}.")
    check_plain(params, "params")
    spec = {"name": name, "params": params}
    if "data" in found:
        if not isinstance(found["data"], dict):
            raise SpecError(f"'data' must be a table of settings, got {found['data']!r:.60}.")
        check_plain(found["data"], "data")
        spec["data"] = found["data"]
    return spec


def _surplus(key: str) -> str:
    import difflib

    close = difflib.get_close_matches(key, _KEYS[:3], n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "Parameters go inside 'params'."
    return f"a spec has the keys 'name' and 'params', got also {key!r:.60}. {hint}"


def _toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.60} comes twice in one object")
    return found
