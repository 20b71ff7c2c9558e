"""What is wrong with what is installed, as far as metadata tell. Imports no plugin."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import nidl_core
from nidl_core import discovery
from nidl_core.discovery import CORE, SWITCH, Distribution, Point, canonical, disabled
from nidl_core.errors import singular
from nidl_core.registry import REGISTRIES

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

HOOKS = "nidl.hooks"
GROUPS = {HOOKS: "hooks", **{f"nidl.{kind}": kind for kind in REGISTRIES}}
_WORD = r"[^\W\d]\w*"
_TARGET = re.compile(rf"{_WORD}(\.{_WORD})*(:{_WORD}(\.{_WORD})*)?")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (`is_problem`) or worth knowing: what, about whom, and what to do."""

    what: str
    about: str
    text: str
    remedy: str = ""
    is_problem: bool = True


def diagnose(everything: Sequence[Distribution]) -> Iterator[Finding]:
    """All findings about these distributions, of which those that are hidden or damaged are some."""
    found = discovery.counted(everything)
    yield from _damaged(everything, found)
    yield from _twice(everything)
    yield from _core(found)
    for one in found:
        yield from _misfits(one)
        yield from _stale(one)
        yield from _misnamed(one)
    yield from _alike(found)
    yield from _switched_off(found)


def editable(one: Distribution) -> Path | None:
    """The folder that an editable install leads to."""
    url, is_editable = source(one)
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if is_editable and parts.scheme == "file" else None


def source(one: Distribution) -> tuple[str, bool]:
    """The URL that it was installed from, "" for an index; and whether it is editable (PEP 610)."""
    try:
        facts = json.loads(one.direct_url or "{}")
        return str(facts.get("url", "")), bool(facts.get("dir_info", {}).get("editable", False))
    except (AttributeError, ValueError):
        return "", False


def installed_version(name: str) -> str | None:
    """The version of any distribution; None if it is not there, or cannot be read."""
    try:
        return importlib.metadata.version(name)
    except Exception:
        return None


def _damaged(
    everything: Sequence[Distribution], found: Sequence[Distribution]
) -> Iterator[Finding]:
    for one in everything:
        if one.fault:
            yield Finding(
                "damaged",
                one.name,
                f"the metadata in {one.info} cannot be read: {one.fault}",
                f"Delete that folder, and if you want {one.name}: pip install --force-reinstall "
                f"--no-deps {one.name}",
            )
    for one in found:
        for raw in importlib.metadata.distributions(name=one.name):
            info = str(getattr(raw, "_path", ""))
            if not raw.read_text("METADATA") and not raw.read_text("PKG-INFO"):
                text = f"{info} is an empty leftover, which hides the version of {one.name} from others"
                yield Finding("leftover", one.name, text, "Delete that folder.")


def _twice(everything: Sequence[Distribution]) -> Iterator[Finding]:
    """The same distribution in two places; lib and its twin lib64 are one."""
    places: dict[str, dict[str, Distribution]] = defaultdict(dict)
    for one in everything:
        if not one.fault:
            places[canonical(one.name)].setdefault(os.path.realpath(one.info), one)
    for same in places.values():
        if len(same) > 1:
            name, *_ = (one.name for one in same.values())
            counts = discovery.counted(list(same.values()))[0]
            told = ", ".join(
                f"{one.version} in {one.info}{' (this one counts)' if one is counts else ''}"
                for one in same.values()
            )
            remedy = f"pip uninstall {name} until none is left, then: pip install {name}"
            yield Finding("twice", name, f"{name} is installed {len(same)} times: {told}", remedy)


def _core(found: Sequence[Distribution]) -> Iterator[Finding]:
    """The running core is the installed one."""
    folder = Path(nidl_core.__file__).parent
    core = next((one for one in found if canonical(one.name) == CORE), None)
    if core is None:
        text = f"{CORE} runs from {folder} and is not installed: it has no metadata, no version, no hooks"
        yield Finding("not-installed", CORE, text, f"pip install {CORE}")
        return
    homes = [Path(core.place), *filter(None, [editable(core)])]
    if not any(os.path.realpath(home / "nidl_core") == os.path.realpath(folder) for home in homes):
        yield Finding(
            "shadowed",
            CORE,
            f"nidl_core is imported from {folder}, not from {core.place}, where {CORE} {core.version} is "
            "installed",
            "Start Python from another folder, or take the first one off sys.path.",
        )


def _misnamed(one: Distribution) -> Iterator[Finding]:
    """Entry points that lead nowhere."""
    for point in one.points:
        if point.group not in GROUPS:
            word = re.split(r"[-_.]", point.group.lower())[-1]
            near = difflib.get_close_matches(word, list(GROUPS.values()), n=1, cutoff=0.4)
            meant = f"nidl.{near[0]}" if near else ", ".join(GROUPS)
            text = f"{one.name} names {point.name!r} under {point.group!r}, which is no kind"
            yield Finding("no-kind", one.name, text, f"Its author should name it under {meant}.")
        elif not _TARGET.fullmatch(point.target) or (
            point.group != HOOKS and ":" not in point.target
        ):
            text = f"{point.id} leads to {point.target!r}, which is not of the form module:Class"
            yield Finding("malformed", one.name, text, f"pip install --upgrade {one.name}")
        elif not _findable(point.target):
            text = f"{point.id} leads to {point.target}, and there is no such module"
            remedy = f"pip install --force-reinstall --no-deps {one.name}"
            yield Finding("missing-module", one.name, text, remedy)


def _findable(target: str) -> bool:
    """Whether its top-level package is there. Executes nothing of it."""
    try:
        return importlib.util.find_spec(re.split(r"[.:]", target)[0]) is not None
    except Exception:  # finders are strangers' too
        return False


def _misfits(one: Distribution) -> Iterator[Finding]:
    """What it requires, and is not there in the right version."""
    who = f"{one.name} {one.version}"
    if reason := discovery.core_conflict(one.name, one.requires):
        yield Finding("incompatible", one.name, f"{who}: {reason}")
        return
    for requirement in discovery.applicable(one.requires):
        if canonical(requirement.name) == CORE:
            continue
        version = installed_version(requirement.name)
        if version is None or not _admits(requirement.specifier, version):
            wanted = f"{requirement.name}{requirement.specifier}"
            there = "is not installed" if version is None else f"is there as {version}"
            text = f"{who} asks for {wanted}, which {there}"
            yield Finding("requirement", one.name, text, f"pip install {shlex.quote(wanted)}")


def _stale(one: Distribution) -> Iterator[Finding]:
    """Metadata of an editable install that no longer say what its source says."""
    source = editable(one)
    if source is None:
        return
    remedy = f"pip install --no-deps -e {shlex.quote(str(source))}"
    if not source.is_dir():
        text = f"{one.name} is installed editable from {source}, which is gone"
        yield Finding("stale", one.name, text, f"pip uninstall {one.name}")
        return
    try:
        project = _toml(source / "pyproject.toml")["project"]
        groups = project.get("entry-points", {})
        theirs = {(g, n): t for g, points in groups.items() for n, t in points.items()}
        version = project.get("version", one.version)
    except (FileNotFoundError, KeyError):
        return  # set up in another way
    except Exception as err:
        text = f"cannot compare {one.name} with its source {source}: {type(err).__name__}: {err}"
        yield Finding("not-compared", one.name, text, is_problem=False)
        return
    ours = {(p.group, p.name): p.target for p in one.points}
    theirs = {
        key: target.split("[")[0].strip() for key, target in theirs.items() if key[0] in GROUPS
    }
    ours = {key: target for key, target in ours.items() if key[0] in GROUPS}
    differ = [
        f"{GROUPS[key[0]]} {key[1]!r} is {theirs.get(key, 'not there')}, installed "
        f"{ours.get(key, 'not at all')}"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    if _different(version, one.version):
        differ.insert(0, f"the version is {version}, installed {one.version}")
    if differ:
        text = f"{one.name} is installed editable, and its source {source} has changed: "
        yield Finding("stale", one.name, text + "; ".join(differ), remedy)


def _alike(found: Sequence[Distribution]) -> Iterator[Finding]:
    """Names that two provide, and names that are almost the same."""
    kinds: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for one in found:
        for point in one.points:
            if point.group in GROUPS and point.group != HOOKS:
                if not disabled(one.name, point.name):
                    kinds[point.group, canonical(point.name)].append(point)
    for (group, _), points in sorted(kinds.items()):
        noun = singular(GROUPS[group])
        for name in sorted({p.name for p in points}):
            ids = sorted(p.id for p in points if p.name == name)
            if len(ids) > 1:
                text = f"{len(ids)} distributions provide the {noun} {name!r}: {', '.join(ids)}"
                switch = f"{SWITCH}={ids[-1]}"
                remedy = f"Ask for {' or '.join(map(repr, ids))}, uninstall one, or set {switch}"
                yield Finding("ambiguous", name, text, remedy)
        if len({p.name for p in points}) > 1:
            ids = sorted(p.id for p in points)
            text = f"{GROUPS[group]} that differ in case or separators alone: {', '.join(ids)}"
            yield Finding("alike", points[0].name, text, "Take care which one you ask for.")
    for one in found:
        for point in one.points:
            if re.search(r"[:\s]", point.name):
                text = f"{point.id} has a name with a colon or a blank"
                yield Finding("odd-name", one.name, text, f"pip install --upgrade {one.name}")


def _switched_off(found: Sequence[Distribution]) -> Iterator[Finding]:
    known = {"*"}
    for one in found:
        known |= {
            canonical(one.name),
            *(f"{canonical(one.name)}:{canonical(p.name)}" for p in one.points),
        }
        if off := sorted({p.name for p in one.points if disabled(one.name, p.name)}):
            text = f"{SWITCH} switches off {', '.join(off)} of {one.name}"
            yield Finding("disabled", one.name, text, "", is_problem=False)
    for name in sorted(discovery.switched_off(os.environ.get(SWITCH, "")) - known):
        text = f"{SWITCH} names {name!r}, and nothing is installed by that name"
        yield Finding("disabled", name, text, "Correct the spelling.", is_problem=False)


def _admits(specifier: SpecifierSet, version: str) -> bool:
    from packaging.version import InvalidVersion

    try:
        return specifier.contains(version, prereleases=True)
    except InvalidVersion:  # nobody can tell
        return True


def _different(a: str, b: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(a) != Version(b)
    except InvalidVersion:
        return a != b


def _toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Python reads them from 3.11 on, before that tomli does."""
    parser = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    found: dict[str, Any] = importlib.import_module(parser).loads(path.read_text(encoding="utf-8"))
    return found
