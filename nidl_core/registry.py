"""Registries: from a name to a class, lazily.

Names come from the entry points of installed distributions (metadata only; one scan serves all
kinds) and from `register` (this process only). A component's module is imported when it is asked
for, never before, and never under a lock: Python's own import lock makes it one import. What
`NIDL_DISABLE_PLUGINS` names is listed as disabled, and is not imported.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from nidl_core.discovery import (
    SWITCH,
    Point,
    canonical,
    core_conflict,
    disabled,
    entry_points,
    fork_conflict,
    load,
)
from nidl_core.errors import (
    AmbiguousComponent,
    BrokenComponent,
    ComponentError,
    DisabledComponent,
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
    requires: tuple[str, ...] = field(default=(), repr=False)  # of the distribution

    @property
    def id(self) -> str:
        """The name in full: `distribution:name`."""
        return f"{self.distribution}:{self.name}"

    @property
    def disabled(self) -> bool:
        """Whether `NIDL_DISABLE_PLUGINS` switches it off."""
        return self.distribution != SESSION and disabled(self.distribution, self.name)

    def answers(self, name: str) -> bool:
        """Whether this is its name or full id, the distribution in any spelling that pip takes."""
        distribution, _, short = name.partition(":")
        in_full = short == self.name and canonical(distribution) == canonical(self.distribution)
        return name == self.name or in_full


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
        """All names that can be asked for, sorted. Imports nothing."""
        return sorted({entry.name for entry in self.entries() if not entry.disabled})

    def entries(self) -> list[Entry]:
        """All entries, sorted by id: a name of two distributions comes twice, a disabled one too."""
        session = [
            Entry(self.kind, name, SESSION, "", f"{cls.__module__}:{cls.__qualname__}")
            for name, cls in list(self._session.items())
        ]
        return sorted([*_installed.of(self.kind), *session], key=lambda e: (e.name, e.id))

    def entry(self, name: str) -> Entry:
        """The entry of a name or full id. Imports nothing.

        Raises `UnknownComponent`, `AmbiguousComponent` or `DisabledComponent`.
        """
        if not isinstance(name, str):
            raise SpecError(f"the name of a component ({self.kind}) is a str, got {name!r}.")
        found = self._find(name)
        if not found:
            self.refresh()  # a plugin may have been installed since the last scan
            found = self._find(name)
        if not found:
            raise self._unknown(name)
        ids = sorted(e.id for e in found)
        usable = [e for e in found if not e.disabled]  # switching one off is a way out of two
        if not usable:
            value = os.environ.get(SWITCH, "")
            raise DisabledComponent(
                kind=self.kind, name=name, ids=ids, variable=SWITCH, value=value
            )
        if len(usable) > 1:
            raise AmbiguousComponent(kind=self.kind, name=name, ids=sorted(e.id for e in usable))
        return usable[0]

    def get(self, name: str) -> type[T]:
        """The class of a name or full id: imported at the first call, and checked.

        Raises a `ComponentError`: `UnknownComponent`, `AmbiguousComponent`, `DisabledComponent`,
        `BrokenComponent` or `IncompatibleComponent`.
        """
        entry = self.entry(name)
        # Each dict is asked once: another thread may refresh or unregister at any moment.
        own = entry.distribution == SESSION
        cls = self._session.get(entry.name) if own else self._classes.get(entry.id)
        if cls is not None:
            return cls
        if own:
            raise self._unknown(name)
        if earlier := self.faults.get(entry.id):
            raise earlier.with_traceback(None)
        try:
            cls = self._load(entry)
        except ComponentError as fault:
            self.faults[entry.id] = fault
            raise
        self._classes[entry.id] = cls
        self.faults.pop(entry.id, None)  # it had asked for itself while it was imported
        return cls

    def status(self, entry: Entry) -> str:
        """What is wrong with an entry, as far as is known without an import; "" for nothing."""
        if entry.disabled:
            return f"disabled by {SWITCH}"
        same = [e for e in self._find(entry.name) if not e.disabled]
        if len(same) > 1:
            return f"ambiguous: say {entry.id}"
        return str(self.faults.get(entry.id, ""))

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
        if taken := [entry.id for entry in self._find(name) if not entry.disabled]:
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
        return [entry for entry in self.entries() if entry.answers(name)]

    def _load(self, entry: Entry) -> type[T]:
        reason = core_conflict(entry.distribution, entry.requires) or fork_conflict(entry.target)
        if reason:
            raise _incompatible(entry, reason)
        self._interface(entry)  # first, so that the time torch takes is not told as the plugin's
        try:
            found = load(entry.target, owner=f"{entry.distribution} {entry.version}")
            if ":" not in entry.target:
                raise AttributeError(f"{entry.target!r} names a module, not a class in it")
        except KeyboardInterrupt:
            raise
        except BaseException as err:  # whatever a stranger's module may do on import, exiting too
            _installed.scan()
            if not self._find(entry.id):  # uninstalled since the last scan
                raise self._unknown(entry.name) from None
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
        interface = self._interface(entry)
        wrong = None
        # In Python 3.10 dict[str, int] is an instance of type.
        if not isinstance(found, type) or isinstance(found, types.GenericAlias):
            wrong = f"{entry.target} is not a class but {type(found).__name__!r}"
        elif not issubclass(found, interface):
            wrong = f"{entry.target} does not derive from {self.interface}"
            if any(f"{b.__module__}:{b.__qualname__}" == self.interface for b in found.__mro__):
                wrong += " but from another copy of it: one was reloaded. Start Python anew"
            elif entry.distribution == SESSION:
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
        accepted = (INTERFACE_VERSION, INTERFACE_VERSION - 1)
        if type(version) is not int or version not in accepted:
            raise _incompatible(
                entry,
                f"it is made for interface version {version!r}, this nidl-core has "
                f"{INTERFACE_VERSION}. Install a nidl-core and a {entry.distribution} that agree.",
            )

    def _interface(self, entry: Entry) -> Any:
        if reason := fork_conflict(self.interface):
            raise _incompatible(entry, reason)
        try:
            return load(self.interface)
        except ImportError as err:
            reason = f"{self.interface}, which it has to derive from, cannot be imported ({err})."
            raise _incompatible(
                entry, f"{reason} Install what the core needs: pip install nidl-core"
            ) from err

    def _unknown(self, name: str) -> UnknownComponent:
        import difflib
        import multiprocessing

        catalogue = _catalogue().get(self.kind, {})
        installed = {entry.name for entry in self.entries()}  # disabled ones too: there they are
        close: list[str] = []
        wanted = name.rpartition(":")[2]
        if wanted not in catalogue or wanted in installed:
            known = sorted({*installed, *catalogue})
            near = [n for n in known if canonical(n) == canonical(wanted)]
            near += difflib.get_close_matches(wanted, known, n=5)
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
            installed=self.names(),
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
                facts = (point.distribution, point.version, point.target, point.requires)
                entries[kind].append(Entry(kind, point.name, *facts))
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
