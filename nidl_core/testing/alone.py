"""Checks of every kind: the name, the class, its signature, and what its import does to others."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import re
from functools import cache
from typing import Any

from nidl_core.assembly import CONTEXT
from nidl_core.registry import SESSION, Entry, accepted_parameters, registry
from nidl_core.testing.cases import Case
from nidl_core.testing.catalogue import NotApplicable, check
from nidl_core.testing.processes import fresh

_MARK = "nidl-probe:"  # what else stands on standard output was printed by the module


@check()
def check_interface(case: Case) -> None:
    """It is a concrete class of its kind's interface, of a version that this core accepts."""
    entry = case.entry or Entry(case.kind, case.name, SESSION, "", f"{case.cls.__module__}:?")
    registry(case.kind).check(entry, case.cls)


@check(when=lambda case: case.entry is not None and case.entry.distribution != SESSION)
def check_name(case: Case) -> None:
    """Its name is lower case with underscores: what TOML, Python and a shell take without quotes."""
    assert case.entry is not None
    assert re.fullmatch(r"[a-z][a-z0-9_]*", case.entry.name), (
        f"the name {case.entry.name!r} should be lower case letters, digits and underscores"
    )


@check()
def check_import_alone(case: Case) -> None:
    """Its module can be imported by itself, in a fresh process, and changes nothing for others."""
    module = case.entry.target.partition(":")[0] if case.entry else case.cls.__module__
    if module == "__main__":
        raise NotApplicable("the class was defined in the running script")
    package = module.partition(".")[0]
    if case.kind == "estimators":
        _larger.add(package)
    facts = _imported(module, "lightning" if package in _larger else "torch")
    if facts.get("again"):
        _larger.add(package)
        facts = _imported(module, "lightning")
    if "failed" in facts:
        raise AssertionError(f"import {module} fails in a fresh process:\n{facts['failed']}")
    faults = [f"changes {name}" for name in facts["changed"]]
    if facts["printed"]:
        faults.append(f"prints {facts['printed'][:200]!r}")
    assert not faults, f"import {module} {'; '.join(faults)}"


_larger: set[str] = set()  # packages that import Lightning and the like: some seconds more


@cache
def _imported(module: str, base: str) -> dict[str, Any]:
    """What `nidl_core.testing.probe` finds out in a fresh process."""
    done = fresh("nidl_core.testing.probe", module, _MARK, base)
    lines = done.stdout.splitlines()
    found = [line for line in lines if line.startswith(_MARK)]
    if done.returncode or not found:
        told = done.stderr.strip()[-1500:]
        return {"failed": told or f"the process ended with status {done.returncode}"}
    facts: dict[str, Any] = json.loads(found[0].removeprefix(_MARK))
    by_others = [line for line in lines if line not in found]  # compiled code, children
    printed = "\n".join(filter(None, [facts.get("printed", "").rstrip(), *by_others]))
    return {"changed": [], **facts, "printed": printed}


@check()
def check_signature(case: Case) -> None:
    """Its parameters have names; the ones a user may leave out have defaults."""
    accepted = accepted_parameters(case.cls)
    for name in CONTEXT.get(case.kind, ()):
        assert name in accepted, f"{case.cls.__name__}.__init__ must take {name}"
    kinds = {p.kind for p in inspect.signature(case.cls).parameters.values()}
    anything = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    if case.kind != "estimators" and accepted:
        assert not kinds & anything, "a signature with *args or **kwargs hides its parameters"


@check()
def check_defaults(case: Case) -> None:
    """Its defaults and the case's parameters are plain data: they survive JSON."""
    defaults = {
        name: parameter.default
        for name, parameter in accepted_parameters(case.cls).items()
        if parameter.default is not parameter.empty
    }
    for name, value in {**defaults, **case.params}.items():
        try:
            again = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as err:
            raise AssertionError(f"{name}={value!r} is no plain data: {err}") from None
        assert again == _as_lists(value), f"{name}={value!r} comes back from JSON as {again!r}"


def _as_lists(value: Any) -> Any:
    """JSON knows lists alone: a tuple is one to it."""
    if isinstance(value, (list, tuple)):
        return [_as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return value


@check()
def check_docstring(case: Case) -> None:
    """It has a docstring of its own, and the examples in it run."""
    doc = case.cls.__dict__.get("__doc__")
    assert doc and doc.strip(), f"{case.cls.__name__} has no docstring: `nidl show` prints it"
    module = importlib.import_module(case.cls.__module__)
    found = doctest.DocTestFinder(recurse=False).find(
        case.cls, case.cls.__name__, module=module, globs=dict(vars(module))
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for example in found:
        runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)
