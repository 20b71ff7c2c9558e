"""What installed distributions say of themselves, read from their metadata. Imports none of them.

Every distribution is read by itself: a damaged or half-deleted one hides no other.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import re
from dataclasses import dataclass
from typing import Any

CORE = "nidl-core"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """An entry point: in `group`, `distribution` (at `version`) calls `target` by `name`."""

    group: str
    name: str
    target: str  # "module:Class", or "module"
    distribution: str
    version: str


def entry_points() -> list[Point]:
    """All entry points in nidl's groups; a distribution that lies twice on the path counts once."""
    _forget_finders()
    found: dict[tuple[str, str, str], Point] = {}
    seen: dict[str, str] = {}  # canonical name -> where it was found first
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if "nidl." not in text:
                continue
            metadata = distribution.metadata
            if metadata is None or "Name" not in metadata:
                continue  # an empty leftover of an older version
            name, version = metadata["Name"], metadata["Version"] if "Version" in metadata else "?"
            place = str(distribution.locate_file(""))
            if seen.setdefault(re.sub(r"[-_.]+", "-", name).lower(), place) != place:
                continue
            for point in distribution.entry_points:
                if point.group.startswith("nidl."):
                    target = point.value.split("[")[0].strip()
                    entry = Point(point.group, point.name, target, name, version)
                    found.setdefault((point.group, name, point.name), entry)
        except Exception as err:  # damaged in whatever way: the others count all the same
            _log.info("the metadata of %s cannot be read: %s", _place(distribution), err)
    return list(found.values())


def load(target: str) -> Any:
    """Import the object behind "module:Class", or a module."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in filter(None, path.split(".")):
        found = getattr(found, attribute)
    return found


def core_conflict(distribution: str) -> str | None:
    """Why this nidl-core is outside the range that the distribution declares, or None.

    Raises PackageNotFoundError if the distribution has gone.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    core = importlib.metadata.version(CORE)
    for text in importlib.metadata.requires(distribution) or []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return f"its requirement {text!r} cannot be read. Repair or reinstall {distribution}."
        if canonicalize_name(requirement.name) != CORE:
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(core, prereleases=True):
            return (
                f"it asks for {CORE} {requirement.specifier}, this is {CORE} {core}. "
                f"Install releases that agree: pip install --upgrade {CORE} {distribution}"
            )
    return None


def _forget_finders() -> None:
    """Make Python look at the disk again; it trips over imports in other threads."""
    for _ in range(20):
        try:
            return importlib.invalidate_caches()
        except (KeyError, RuntimeError):
            continue
    return None


def _place(distribution: importlib.metadata.Distribution) -> str:
    return str(getattr(distribution, "_path", distribution))
