"""What installed distributions say of themselves, read from their metadata; and the import of what they name.

Every distribution is read by itself: a damaged or half-deleted one hides no other. Reading imports
none of them. `NIDL_DISABLE_PLUGINS` switches off what it names, before it is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.requirements import Requirement

CORE = "nidl-core"
SWITCH = "NIDL_DISABLE_PLUGINS"
SLOW = 5.0  # seconds; an import that takes longer is told

# The groups that are nidl's, and those that were meant to be: nidl_core.encoders, nidl-encoders.
_GROUP = r"nidl(?:\.|[-_]?(?:core)?[-_.]?(?:estimator|encoder|decoder|likelihood|loss|hook))"
_IS_GROUP = re.compile(_GROUP, re.IGNORECASE)
_HAS_GROUP = re.compile(r"^\s*\[\s*" + _GROUP, re.IGNORECASE | re.MULTILINE)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """An entry point: in `group`, `distribution` (at `version`) calls `target` by `name`."""

    group: str
    name: str
    target: str  # "module:Class", or "module"
    distribution: str
    version: str
    requires: tuple[str, ...] = field(default=(), repr=False)  # of the distribution

    @property
    def id(self) -> str:
        """The name in full: `distribution:name`."""
        return f"{self.distribution}:{self.name}"


@dataclass(frozen=True)
class Distribution:
    """What the metadata of one distribution say, if they name anything in a group of nidl's."""

    name: str
    version: str
    place: str  # the folder or archive that holds it
    info: str  # its metadata, in there
    requires: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    direct_url: str = field(default="", repr=False)  # where it was installed from, as JSON
    fault: str = ""  # why it cannot be read


def canonical(name: str) -> str:
    """A name as it is compared: in lower case, with `-` for each run of `-`, `_` and `.`."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def distributions() -> list[Distribution]:
    """All distributions that have to do with nidl, in the order of the path; also faulty ones."""
    _forget_finders()
    found: dict[str, Distribution] = {}
    for raw in importlib.metadata.distributions():
        info = str(getattr(raw, "_path", id(raw)))
        if info not in found and (one := _read(raw, info)):
            found[info] = one
    return list(found.values())


def counted(found: Sequence[Distribution]) -> list[Distribution]:
    """Those that count: of a distribution that lies on the path twice, the first; no faulty one."""
    chosen: dict[str, Distribution] = {}
    for one in found:
        if one.fault:
            _log.info("the metadata in %s cannot be read: %s", one.info, one.fault)
            continue
        kept = chosen.setdefault(canonical(one.name), one)
        if kept is not one and kept.place == one.place and _age(kept) < _age(one):
            chosen[canonical(one.name)] = one  # a folder is read in no order
    return list(chosen.values())


def entry_points() -> list[Point]:
    """All entry points in nidl's groups, each once."""
    found: dict[tuple[str, str], Point] = {}
    for one in counted(distributions()):
        for point in one.points:
            found.setdefault((point.group, point.id), point)
    return list(found.values())


def disabled(distribution: str, name: str) -> bool:
    """Whether `NIDL_DISABLE_PLUGINS` switches off what a distribution calls `name`.

    It holds distributions or `distribution:name`, separated by commas, in any spelling that pip
    takes for the same; `*` is every plugin but the core.
    """
    named = switched_off(os.environ.get(SWITCH, ""))
    owner = canonical(distribution)
    return bool(named & {owner, f"{owner}:{canonical(name)}"}) or ("*" in named and owner != CORE)


@lru_cache
def switched_off(text: str) -> frozenset[str]:
    """The names in `NIDL_DISABLE_PLUGINS`, as they are compared."""
    items = (":".join(canonical(part) for part in item.split(":")) for item in text.split(","))
    return frozenset(item for item in items if item)


def load(target: str, owner: str = "") -> Any:
    """Import the object behind "module:Class", or a module.

    With the `owner` ("nidl-acme 1.0") an import that takes long is told, by logging.
    """
    module, _, path = target.partition(":")
    under_way = (threading.get_ident(), module)
    with _prints_as_asked(), _timed(f"{owner} ({target})") if owner else contextlib.nullcontext():
        _under_way.add(under_way)
        try:
            found: Any = importlib.import_module(module)
            for attribute in filter(None, path.split(".")):
                found = getattr(found, attribute)
        finally:
            _under_way.discard(under_way)
    return found


def applicable(requires: Sequence[str]) -> Iterator[Requirement]:
    """What a distribution requires here and without extras. Raises ValueError for what is unreadable."""
    from packaging.requirements import Requirement

    for text in requires:
        try:
            requirement = Requirement(text)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except ValueError:
            raise ValueError(f"its requirement {text!r} cannot be read") from None
        if applies:
            yield requirement


def core_conflict(distribution: str, requires: Sequence[str]) -> str | None:
    """Why this nidl-core is outside the range that the distribution declares, or None."""
    try:
        core = importlib.metadata.version(CORE)
    except importlib.metadata.PackageNotFoundError:  # a bare folder of sources
        return None
    try:
        wanted = [r.specifier for r in applicable(requires) if canonical(r.name) == CORE]
    except ValueError as err:
        return f"{err}. Repair or reinstall {distribution}."
    for specifier in wanted:
        if not specifier.contains(core, prereleases=True):
            return (
                f"it asks for {CORE} {specifier}, this is {CORE} {core}. "
                f"Install releases that agree: pip install --upgrade {CORE} {distribution}"
            )
    return None


def fork_conflict(target: str) -> str | None:
    """Why a forked process can never import the target, or None.

    Python waits for the thread that began the import, and that thread was not forked along.
    """
    module = target.partition(":")[0]
    if not any(module == lost or module.startswith(f"{lost}.") for lost in _lost):
        return None
    return (
        "this process was forked while another thread imported it, so that its import would never "
        "end here. Import it before forking, or start processes by 'spawn'."
    )


@contextlib.contextmanager
def prints_aside() -> Iterator[None]:
    """Let plugins print to stderr while `load` imports them: stdout is for the results of a program."""
    token = _aside.set(True)
    try:
        yield
    finally:
        _aside.reset(token)


_aside: ContextVar[bool] = ContextVar("_aside", default=False)
_under_way: set[tuple[int, str]] = set()  # threads, and the modules that they are importing
_lost: set[str] = set()  # modules that another thread was importing when this process was forked


def _after_fork() -> None:
    here = threading.get_ident()
    _lost.update(module for thread, module in _under_way if thread != here)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def _prints_as_asked() -> contextlib.AbstractContextManager[None]:
    aside = _aside.get() and sys.stdout is not None  # None where the caller closed it
    return _stdout_is_stderr() if aside else contextlib.nullcontext()


@contextlib.contextmanager
def _stdout_is_stderr() -> Iterator[None]:
    """For Python's print and for what compiled code and child processes write."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    """Tell of an import that takes long: while it lasts, for it may never end, and after it."""
    began = time.perf_counter()
    text = "the import of %s has not ended after %g s. To do without it: %s=%s"
    timer = threading.Timer(SLOW, _log.warning, (text, what, SLOW, SWITCH, what.split()[0]))
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no new threads at the end of the process
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()
        seconds = time.perf_counter() - began
        if seconds > SLOW:
            _log.warning("the import of %s took %.1f s", what, seconds)


def _read(raw: importlib.metadata.Distribution, info: str) -> Distribution | None:
    name = re.split(r"-|\.dist-info|\.egg-info", os.path.basename(info))[
        0
    ]  # if it says none itself
    place = os.path.dirname(info)
    try:
        place = str(raw.locate_file(""))
        if not _HAS_GROUP.search(raw.read_text("entry_points.txt") or ""):
            return None
        metadata = raw.metadata
        if metadata is None or "Name" not in metadata:
            return Distribution(name, "?", place, info, fault="it names no distribution")
        name, version = metadata["Name"], metadata["Version"] if "Version" in metadata else "?"
        requires = tuple(metadata.get_all("Requires-Dist") or ())
        points = tuple(
            Point(p.group, p.name, p.value.split("[")[0].strip(), name, version, requires)
            for p in raw.entry_points
            if _IS_GROUP.match(p.group)
        )
        direct_url = raw.read_text("direct_url.json") or ""
        return Distribution(name, version, place, info, requires, points, direct_url)
    except Exception as err:  # damaged in whatever way: the others count all the same
        return Distribution(name, "?", place, info, fault=f"{type(err).__name__}: {err}")


def _age(one: Distribution) -> tuple[bool, Any]:
    """Newer distributions are greater, and any wheel is newer than an egg."""
    from packaging.version import InvalidVersion, Version

    try:
        version = Version(one.version)
    except InvalidVersion:
        version = Version("0.dev0")
    return one.info.endswith(".dist-info"), version


def _forget_finders() -> None:
    """Make Python look at the disk again; it trips over imports in other threads."""
    for _ in range(20):
        try:
            return importlib.invalidate_caches()
        except (KeyError, RuntimeError):
            continue
    return None
