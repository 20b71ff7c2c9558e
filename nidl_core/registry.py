"""Registries: from a name to a class, lazily.

Names come from the entry points of installed distributions (metadata only; one scan serves all
kinds) and from `register` (this process only). A component's module is imported when it is asked
for, never before, and never under a lock: Python's own import lock makes it one import.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import multiprocessing
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Generic, TypeVar

from nidl_core.discovery import Point, core_conflict, entry_points, load
from nidl_core.errors import (
    AmbiguousComponent,
    BrokenComponent,
    ComponentError,
    IncompatibleComponent,
    SpecError,
    UnknownComponent,
    UnknownParameter,
    WrongTypeComponent,
    singular,
)

INTERFACE_VERSION = 1  # components made for this one, or the one before, are accepted
SESSION = "session"  # stands where a distribution's name would, for components of this process

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What is known of a component without importing it."""

    kind: str
    name: str
    distribution: str
    version: str
    target: str  # "module:Class"

    @property
    def id(self) -> str:
        """The name in full: `distribution:name`."""
        return f"{self.distribution}:{self.name}"


class Registry(Generic[T]):
    """The components of one kind, by name.

    `interface` is the class they must derive from, as "module:Class": it is imported only when a
    component is.
    """

    def __init__(self, kind: str, interface: str) -> None:
        self.kind = kind
        self.interface = interface
        self.faults: dict[str, ComponentError] = {}  # id -> what went wrong at the last attempt
        self._session: dict[str, type[T]] = {}
        self._classes: dict[str, type[T]] = {}  # id -> class, of those already imported

    def names(self) -> list[str]:
        """All names, sorted. Imports nothing."""
        return sorted({entry.name for entry in self.entries()})

    def entries(self) -> list[Entry]:
        """All entries, sorted by id; a name that two distributions provide comes twice."""
        session = [
            Entry(self.kind, name, SESSION, "", f"{cls.__module__}:{cls.__qualname__}")
            for name, cls in list(self._session.items())
        ]
        return sorted([*_installed.of(self.kind), *session], key=lambda e: (e.name, e.id))

    def entry(self, name: str) -> Entry:
        """The entry of a name or full id. Imports nothing.

        Raises `UnknownComponent` or `AmbiguousComponent`.
        """
        if not isinstance(name, str):
            raise SpecError(f"the name of a component ({self.kind}) is a str, got {name!r}.")
        found = self._find(name)
        if not found:
            self.refresh()  # a plugin may have been installed since the last scan
            found = self._find(name)
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            raise AmbiguousComponent(kind=self.kind, name=name, ids=sorted(e.id for e in found))
        return found[0]

    def get(self, name: str) -> type[T]:
        """The class of a name or full id: imported at the first call, and checked.

        Raises a `ComponentError`: `UnknownComponent`, `AmbiguousComponent`, `BrokenComponent` or
        `IncompatibleComponent`.
        """
        entry = self.entry(name)
        if entry.distribution == SESSION:
            return self._session[entry.name]
        if entry.id not in self._classes:
            if entry.id in self.faults:
                raise self.faults[entry.id].with_traceback(None)
            try:
                self._classes[entry.id] = self._load(entry)
            except ComponentError as fault:
                self.faults[entry.id] = fault
                raise
        return self._classes[entry.id]

    def entry_of(self, cls: type) -> Entry | None:
        """The entry that leads to this class, or None."""
        target = f"{cls.__module__}:{cls.__qualname__}"
        for entry in self.entries():
            if entry.target == target or self._classes.get(entry.id) is cls:
                return entry
        return None

    def build(self, name: str, **params: Any) -> T:
        """An instance of the named component.

        Raises what `get` raises, and `UnknownParameter` for a keyword that it does not take.
        """
        cls = self.get(name)
        check_parameters(f"{singular(self.kind)} {name!r}", cls, params)
        return cls(**params)

    def register(self, name: str, cls: type[T]) -> type[T]:
        """Add a class under a name, for this process only. Workers do not inherit it.

        Raises `WrongTypeComponent` for what is no class of this kind, `SpecError` for a name that
        is taken or is not a plain name.
        """
        if not isinstance(name, str) or not name or ":" in name:
            raise SpecError(f"a component's name is a non-empty str without ':', got {name!r}.")
        if taken := [entry.id for entry in self._find(name)]:
            raise SpecError(
                f"the {singular(self.kind)} name {name!r} is taken by {taken[0]!r}. Choose another name."
            )
        target = f"{getattr(cls, '__module__', '?')}:{getattr(cls, '__qualname__', '?')}"
        self.check(Entry(self.kind, name, SESSION, "", target), cls)
        self._session[name] = cls
        return cls

    def unregister(self, name: str) -> None:
        """Take back a `register`. Raises `UnknownComponent` if there was none."""
        if self._session.pop(name, None) is None:
            raise self._unknown(name)

    @contextlib.contextmanager
    def temporary(self, name: str, cls: type[T]) -> Iterator[type[T]]:
        """`register` for the length of a `with` block: for tests and notebooks."""
        self.register(name, cls)
        try:
            yield cls
        finally:
            self.unregister(name)

    def refresh(self) -> None:
        """Scan the installed distributions anew and forget past faults."""
        _installed.scan()
        self.faults.clear()
        self._classes.clear()

    def _find(self, name: str) -> list[Entry]:
        return [e for e in self.entries() if name == (e.id if ":" in name else e.name)]

    def _load(self, entry: Entry) -> type[T]:
        try:
            reason = core_conflict(entry.distribution)
        except PackageNotFoundError:  # uninstalled since the scan
            self.refresh()
            raise self._unknown(entry.name) from None
        if reason:
            raise _incompatible(entry, reason)
        try:
            found = load(entry.target)
            if ":" not in entry.target:
                raise AttributeError(f"{entry.target!r} names a module, not a class in it")
        except (Exception, SystemExit) as err:  # whatever a stranger's module may do on import
            raise BrokenComponent(
                kind=self.kind,
                name=entry.name,
                distribution=entry.distribution,
                version=entry.version,
                target=entry.target,
                reason=f"{type(err).__name__}: {err}",
            ) from err
        self.check(entry, found)
        cls: type[T] = found
        return cls

    def check(self, entry: Entry, found: object) -> None:
        """Raise unless `found` is a concrete class of this kind, for this interface version."""
        interface = load(self.interface)
        wrong = None
        # In Python 3.10 dict[str, int] is an instance of type.
        if not isinstance(found, type) or isinstance(found, types.GenericAlias):
            wrong = f"{entry.target} is not a class but {type(found).__name__!r}"
        elif not issubclass(found, interface):
            wrong = f"{entry.target} does not derive from {self.interface}"
            if entry.distribution == SESSION:
                wrong += "; derive from it, or hand in an object instead of the class"
        elif self.kind != "estimators" and _takes_anything(found):
            wrong = f"{entry.target} takes **kwargs: its parameters must have names"
        elif inspect.isabstract(found):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            wrong = f"{entry.target} is abstract: it lacks {missing}"
        if wrong:
            raise WrongTypeComponent(
                kind=self.kind,
                name=entry.name,
                distribution=entry.distribution,
                version=entry.version,
                reason=f"{wrong}.",
            )
        version = getattr(found, "interface_version", 1)
        if version not in (INTERFACE_VERSION, INTERFACE_VERSION - 1):
            raise _incompatible(
                entry,
                f"it is made for interface version {version!r}, this nidl-core has "
                f"{INTERFACE_VERSION}. Install a nidl-core and a {entry.distribution} that agree.",
            )

    def _unknown(self, name: str) -> UnknownComponent:
        import difflib

        installed, catalogue = self.names(), _catalogue().get(self.kind, {})
        close: list[str] = []
        wanted = name.rpartition(":")[2]
        if wanted not in catalogue or wanted in installed:
            near = difflib.get_close_matches(wanted, sorted({*installed, *catalogue}), n=5)
            close = ([c for c in near if c in installed] or near)[:1]
            wanted = close[0] if close else wanted
        providers = [catalogue[wanted]] if wanted in catalogue and wanted not in installed else []
        notes = [
            f"({name!r} is a {singular(other.kind)}.)"
            for other in REGISTRIES.values()
            if other is not self and name in other.names()
        ]
        notes += [
            f"({stray.distribution} names {stray.name!r} under {stray.group!r}, which is no kind.)"
            for stray in _installed.strays
            if stray.name == name
        ]
        if multiprocessing.current_process().name != "MainProcess":
            notes.append(
                "This is a worker process: a name given by register() exists only in the process "
                "that registered it. Hand in the class itself, or install it as a plugin."
            )
        return UnknownComponent(
            kind=self.kind,
            name=name,
            close=close,
            installed=installed,
            providers=providers,
            note=" ".join(notes),
        )


class _Installed:
    """The nidl entry points of all installed distributions, read in one scan."""

    def __init__(self) -> None:
        self._entries: dict[str, list[Entry]] | None = None
        self.strays: list[Point] = []  # under groups that are none of ours: misspelt, most likely

    def of(self, kind: str) -> list[Entry]:
        return (self._entries or self.scan())[kind]

    def scan(self) -> dict[str, list[Entry]]:
        entries: dict[str, list[Entry]] = {kind: [] for kind in REGISTRIES}
        points = entry_points()
        known = {"nidl.hooks", *(f"nidl.{kind}" for kind in REGISTRIES)}
        self.strays = [point for point in points if point.group not in known]
        for point in points:
            kind = point.group.removeprefix("nidl.")
            if kind in entries:
                target, version = point.target, point.version
                entries[kind].append(Entry(kind, point.name, point.distribution, version, target))
        self._entries = entries  # replaced in one step: a reader in another thread sees old or new
        return entries


def _incompatible(entry: Entry, reason: str) -> IncompatibleComponent:
    return IncompatibleComponent(
        kind=entry.kind,
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        reason=reason,
    )


def _catalogue() -> dict[str, dict[str, str]]:
    """Kind -> name -> distribution, of the plugins known when this core was released."""
    text = Path(__file__).with_name("_catalog.json").read_text(encoding="utf-8")
    catalogue: dict[str, dict[str, str]] = json.loads(text)
    return catalogue


def _takes_anything(cls: type) -> bool:
    kinds = {p.kind for p in inspect.signature(cls).parameters.values()}
    # A class without a constructor of its own has nn.Module's (*args, **kwargs), and no parameters.
    return _KEYWORDS in kinds and _POSITIONAL not in kinds


def accepted_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The named parameters of a class's constructor, in order, without `self`, `*args` and `**kwargs`."""
    found = inspect.signature(cls).parameters
    return {n: p for n, p in found.items() if p.kind not in (_KEYWORDS, _POSITIONAL)}


def check_parameters(owner: str, cls: type, params: Mapping[str, Any], *given: str) -> None:
    """Raise `UnknownParameter` for a keyword that the constructor of `cls` does not take.

    `given` are parameters that the caller fills itself (shapes), so that a user may not.
    """
    if _takes_anything(cls):
        return  # an estimator: it checks its Trainer arguments itself
    accepted = [name for name in accepted_parameters(cls) if name not in given]
    for name in params:
        if name not in accepted:
            raise unknown_parameter(owner, name, accepted)


def unknown_parameter(
    owner: str, name: str, accepted: Sequence[str], silent: Sequence[str] = (), also: str = ""
) -> UnknownParameter:
    """The error for a keyword that nothing takes, with the nearest one that is taken.

    `silent` names are taken too, but too many to list: `also` stands for them in the text.
    """
    import difflib

    usual = _USUAL_NAMES.get(name)
    taken = [*accepted, *silent]
    close = [usual] if usual in taken else difflib.get_close_matches(name, taken, n=1)
    return UnknownParameter(owner=owner, parameter=name, accepted=accepted, close=close, also=also)


_KEYWORDS, _POSITIONAL = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
_USUAL_NAMES = {  # what other libraries call our parameters and Lightning's
    "device": "accelerator",
    "epochs": "max_epochs",
    "latent_size": "latent_dim",
    "learning_rate": "lr",
    "n_components": "latent_dim",
    "n_epochs": "max_epochs",
    "verbose": "enable_progress_bar",
}


def registry(kind: str) -> Registry[Any]:
    """The registry of a kind. Raises `SpecError` for what is no kind."""
    if kind not in REGISTRIES:
        raise SpecError(f"there is no kind {kind!r}. Kinds: {', '.join(REGISTRIES)}.")
    return REGISTRIES[kind]


def available(kind: str) -> list[str]:
    """The names of all installed components of a kind, sorted. Imports none of them.

    >>> available("encoders")  # doctest: +SKIP
    ['cnn2d', 'cnn3d', 'mlp']
    """
    return registry(kind).names()


estimators: Registry[Any] = Registry("estimators", "nidl_core.estimator:Estimator")
encoders: Registry[Any] = Registry("encoders", "nidl_core.interfaces:Encoder")
decoders: Registry[Any] = Registry("decoders", "nidl_core.interfaces:Decoder")
likelihoods: Registry[Any] = Registry("likelihoods", "nidl_core.interfaces:Likelihood")
losses: Registry[Any] = Registry("losses", "nidl_core.interfaces:Loss")

REGISTRIES: dict[str, Registry[Any]] = {
    r.kind: r for r in (estimators, encoders, decoders, likelihoods, losses)
}
_installed = _Installed()
