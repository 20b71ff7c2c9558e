"""Everything that can go wrong, one class a cause, with its facts as fields.

Each class composes its own text from its fields, so that a message is written in one place. All
of them survive pickling (they cross process borders in grid searches and data workers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _restore(cls: type[NidlError], args: tuple[Any, ...], fields: dict[str, Any]) -> NidlError:
    error: NidlError = cls.__new__(cls, *args)
    error.__dict__.update(fields)
    return error


class NidlError(Exception):
    """Root of all errors that nidl raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())


class ComponentError(NidlError, LookupError):
    """A name that leads to no usable component. Fields: `kind` ("encoders"), `name`."""

    def __init__(self, message: str, *, kind: str, name: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


class UnknownComponent(ComponentError):
    """No component of that name is installed.

    Fields: `close`, near names; `installed`, all names there are; `providers`, distributions known
    to provide the name (or the first near one) that are not installed.
    """

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        close: Sequence[str] = (),
        installed: Sequence[str] = (),
        providers: Sequence[str] = (),
        note: str = "",
    ) -> None:
        text = f"no {singular(kind)} named {name!r}"
        text += " is installed." if providers and not close else "."
        if close:
            text += f" Did you mean {' or '.join(repr(c) for c in close)}?"
        if providers:
            text += f" It comes with {' or '.join(providers)}: pip install {providers[0]}"
        else:
            text += f" Installed: {', '.join(installed) or 'none'}."
        super().__init__(f"{text} {note}".rstrip(), kind=kind, name=name)
        self.close = list(close)
        self.installed = list(installed)
        self.providers = list(providers)


class AmbiguousComponent(ComponentError):
    """Several distributions provide the name. Field: `ids`, the full ids to choose from."""

    def __init__(self, *, kind: str, name: str, ids: Sequence[str]) -> None:
        super().__init__(
            f"{len(ids)} installed distributions provide the {singular(kind)} {name!r}. "
            f"Say which one: {' or '.join(repr(i) for i in ids)}.",
            kind=kind,
            name=name,
        )
        self.ids = list(ids)


class DisabledComponent(ComponentError):
    """The component is installed, and switched off. Fields: `ids`; `variable` and `value`, what did it."""

    def __init__(
        self, *, kind: str, name: str, ids: Sequence[str], variable: str, value: str
    ) -> None:
        super().__init__(
            f"the {singular(kind)} {name!r} ({' and '.join(ids)}) is switched off by the environment "
            f"variable {variable}={value!r}. Take it out of there to use it.",
            kind=kind,
            name=name,
        )
        self.ids = list(ids)
        self.variable = variable
        self.value = value


class BrokenComponent(ComponentError):
    """The component is installed, but its import fails. The original error is its `__cause__`.

    Fields: `distribution`, `version`, `target` ("module:Class"), `reason` (the original error).
    """

    def __init__(
        self, *, kind: str, name: str, distribution: str, version: str, target: str, reason: str
    ) -> None:
        super().__init__(
            f"the {singular(kind)} {name!r} of {distribution} {version} cannot be loaded from "
            f"{target}: {reason}. The fault lies in that package: upgrade, repair or uninstall it.",
            kind=kind,
            name=name,
        )
        self.distribution = distribution
        self.version = version
        self.target = target
        self.reason = reason


class IncompatibleComponent(ComponentError):
    """The component and this nidl-core do not fit together. Fields: `distribution`, `version`, `reason`."""

    def __init__(
        self, *, kind: str, name: str, distribution: str, version: str, reason: str
    ) -> None:
        super().__init__(
            f"the {singular(kind)} {name!r}{_origin(distribution, version)} cannot be used: {reason}",
            kind=kind,
            name=name,
        )
        self.distribution = distribution
        self.version = version
        self.reason = reason


class WrongTypeComponent(IncompatibleComponent, TypeError):
    """What the name leads to is not a concrete class of its kind's interface."""


class HookError(NidlError):
    """Hook plugins that cannot be used, or that failed.

    Fields: `reasons`, plugin -> what went wrong; `reason`, all of it (without the plugin if it is one).
    """

    def __init__(self, what: str, *, reasons: Mapping[str, str]) -> None:
        told = "; ".join(f"{plugin} ({reason})" for plugin, reason in reasons.items())
        super().__init__(f"{what}: {told}")
        self.reasons = dict(reasons)
        self.reason = told if len(reasons) > 1 else "".join(reasons.values())


class SpecError(NidlError, ValueError, TypeError):
    """A spec that is not `name | {"name": ..., "params": {...}} | instance | class`."""


class UnknownParameter(NidlError, ValueError, TypeError):
    """A keyword that nothing takes. Fields: `owner`, `parameter`, `accepted`, `close`."""

    def __init__(
        self,
        *,
        owner: str,
        parameter: str,
        accepted: Sequence[str],
        close: Sequence[str] = (),
        also: str = "",
    ) -> None:
        text = f"{owner} has no parameter {parameter!r}."
        if close:
            text += f" Did you mean {' or '.join(repr(c) for c in close)}?"
        super().__init__(f"{text} It takes: {', '.join(accepted) or 'none'}{also}.")
        self.owner = owner
        self.parameter = parameter
        self.accepted = list(accepted)
        self.close = list(close)


class InvalidParameter(NidlError, ValueError):
    """A parameter with an impossible value. Fields: `parameter`, `value`, `expected`."""

    def __init__(self, parameter: str, value: object, expected: str) -> None:
        super().__init__(f"{parameter} must be {expected}, got {parameter}={value!r}.")
        self.parameter = parameter
        self.value = repr(value)
        self.expected = expected


class ShapeError(NidlError, ValueError):
    """Shapes that do not fit together; the text gives both and says what would fit."""


class DataError(NidlError, ValueError):
    """Data that cannot be used as they are; the text says what to do about them."""


class DataTypeError(DataError, TypeError):
    """An object that nidl cannot turn into data."""


class MissingFile(FileNotFoundError, DataError):
    """A path to data that leads to no file."""


class NonFiniteError(NidlError, FloatingPointError, ValueError):
    """NaN or infinity in a loss or an input. Fields: `epoch`, `step` (both from 0), `what`."""

    def __init__(self, *, what: str, epoch: int, step: int, causes: Sequence[str]) -> None:
        super().__init__(
            f"{what} is not finite at epoch {epoch}, step {step}. Likely causes: {'; '.join(causes)}."
        )
        self.what = what
        self.epoch = epoch
        self.step = step
        self.causes = list(causes)


class ModelFileError(NidlError, ValueError):
    """A file that is not a model file of a format this version reads, or is damaged."""


class MissingComponents(ModelFileError, LookupError):
    """A model file needs components that are not there. Fields: `missing` (ids), `requirements`."""

    def __init__(
        self, message: str, *, missing: Sequence[str], requirements: Sequence[str]
    ) -> None:
        super().__init__(message)
        self.missing = list(missing)
        self.requirements = list(requirements)


def singular(kind: str) -> str:
    """The noun of a kind: "likelihoods" -> "likelihood", "losses" -> "loss"."""
    return kind[:-2] if kind.endswith("sses") else kind.removesuffix("s")


def _origin(distribution: str, version: str) -> str:
    return f" of {distribution} {version}" if version else ""  # nothing for a class handed in
