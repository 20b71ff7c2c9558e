"""Keep the distributions of this repository in step, from their pyproject.toml files alone.

    python tools/sync.py                      write nidl_core/_catalog.json
    python tools/sync.py --check              change nothing, say what does not fit together
    python tools/sync.py --set-version 0.2.0  give all of them a new version, then write the catalogue

All distributions carry one version X.Y.Z and ask for each other as `>=X.Y.0,<X.(Y+1)` or a later Z.
The catalogue says which plugin a name comes from, for those who have not installed it.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "nidl_core" / "_catalog.json"
CITATION = ROOT / "CITATION.cff"
KINDS = ("decoders", "encoders", "estimators", "likelihoods", "losses")
REQUIREMENT = re.compile(r"^(nidl-[a-z0-9-]+)\s*(?:\[[^]]*\])?\s*(.*)$")
RANGE = re.compile(r"^>=(\d+)\.(\d+)\.(\d+),<(\d+)\.(\d+)$")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="change nothing, report what is wrong")
    what.add_argument("--set-version", metavar="X.Y.Z", help="the new version of all distributions")
    args = parser.parse_args(argv)
    if args.set_version:
        set_version(args.set_version)
    if not args.check:
        CATALOGUE.write_text(catalogue_text(), encoding="utf-8")
    found = list(faults())
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


def faults() -> Iterator[str]:
    """What does not fit together, a line each."""
    projects = {path: read(path) for path in pyprojects()}
    core = projects[ROOT / "pyproject.toml"]
    for path, project in projects.items():
        where = path.relative_to(ROOT).as_posix()
        if project["version"] != core["version"]:
            yield f"{where}: version {project['version']}, nidl-core has {core['version']}"
        for requirement in requirements(project):
            yield from range_faults(where, requirement, core["version"])
        for target in targets(project):
            if not defined(path, target):
                yield f"{where}: no file here defines the entry point {target!r}"
    plugins = sorted(p["name"] for p in projects.values() if p is not core)
    extra = [REQUIREMENT.sub(r"\1", r) for r in core["optional-dependencies"]["all"]]
    if extra != plugins:
        yield f"pyproject.toml: the extra 'all' lists {extra}, plugins/ holds {plugins}"
    for plugin in plugins:
        project = next(p for p in projects.values() if p["name"] == plugin)
        if not any(r.startswith("nidl-core>") for r in project["dependencies"]):
            yield f"{plugin} does not depend on a range of nidl-core"
    yield from duplicate_names(projects.values())
    if f"version: {core['version']}\n" not in CITATION.read_text(encoding="utf-8"):
        yield f"CITATION.cff: version is not {core['version']}"
    if not CATALOGUE.exists() or CATALOGUE.read_text(encoding="utf-8") != catalogue_text():
        yield "nidl_core/_catalog.json is out of date. Run: python tools/sync.py"


def range_faults(where: str, requirement: str, version: str) -> Iterator[str]:
    name, specifier = REQUIREMENT.match(requirement).groups()
    bounds = RANGE.match(specifier.replace(" ", ""))
    if not bounds:
        yield f"{where}: {requirement!r} is not a range {name}>=X.Y.Z,<X.(Y+1)"
        return
    low = tuple(int(part) for part in bounds.group(1, 2, 3))
    high = tuple(int(part) for part in bounds.group(4, 5))
    if high != (low[0], low[1] + 1):
        yield f"{where}: {requirement!r} should end in <{low[0]}.{low[1] + 1}"
    if not low <= tuple(int(part) for part in version.split(".")) < high:
        yield f"{where}: {requirement!r} does not admit {version}"


def duplicate_names(projects: Any) -> Iterator[str]:
    owner: dict[tuple[str, str], str] = {}
    for project in projects:
        for kind in KINDS:
            for name in project.get("entry-points", {}).get(f"nidl.{kind}", {}):
                first = owner.setdefault((kind, name), project["name"])
                if first != project["name"]:
                    yield f"{first} and {project['name']} both provide {name!r} in {kind}"


def catalogue_text() -> str:
    """Kind -> name -> the plugin that provides it, as JSON."""
    catalogue: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for path in pyprojects()[1:]:
        project = read(path)
        for kind in KINDS:
            for name in project.get("entry-points", {}).get(f"nidl.{kind}", {}):
                catalogue[kind][name] = project["name"]
    return json.dumps(catalogue, indent=2, sort_keys=True) + "\n"


def set_version(version: str) -> None:
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise SystemExit(f"a version is X.Y.Z, got {version!r}")
    major, minor, _ = version.split(".")
    fitting = f">={major}.{minor}.0,<{major}.{int(minor) + 1}"
    for path in pyprojects():
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', text, count=1)
        text = re.sub(r'"(nidl-[a-z-]+(?:\[[^]]*\])?)>=[^"]*"', rf'"\1{fitting}"', text)
        path.write_text(text, encoding="utf-8")
    text = CITATION.read_text(encoding="utf-8")
    CITATION.write_text(re.sub(r"(?m)^version: .*$", f"version: {version}", text), encoding="utf-8")


def pyprojects() -> list[Path]:
    """The core's first, then the plugins' by name."""
    return [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def requirements(project: dict[str, Any]) -> list[str]:
    """What it asks of the other distributions here, extras included."""
    extras = project.get("optional-dependencies", {}).values()
    every = [*project["dependencies"], *(r for extra in extras for r in extra)]
    return [r for r in every if REQUIREMENT.match(r)]


def targets(project: dict[str, Any]) -> list[str]:
    groups = [*project.get("entry-points", {}).values(), project.get("scripts", {})]
    return [target for group in groups for target in group.values()]


def defined(pyproject: Path, target: str) -> bool:
    """Whether a file beside the pyproject, or in its src/, defines "module:name" at top level."""
    module, _, name = target.partition(":")
    relative = module.replace(".", "/")
    for source in (pyproject.parent, pyproject.parent / "src"):
        for path in (source / f"{relative}.py", source / relative / "__init__.py"):
            if path.exists():
                tree = ast.parse(path.read_text(encoding="utf-8"))
                return not name or any(getattr(node, "name", None) == name for node in tree.body)
    return False


if __name__ == "__main__":
    raise SystemExit(main())
