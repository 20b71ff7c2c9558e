"""From specs to objects: `build`, and what estimators use to build their components.

`Spec = name | {"name": ..., "params": {...}} | component instance | component class`. Names are
resolved through the registries alone: no import path, nothing evaluated.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nidl_core.errors import SpecError, singular
from nidl_core.registry import (
    SESSION,
    Entry,
    accepted_parameters,
    check_parameters,
    estimators,
    registry,
)

# What an estimator fills in when it builds a component of a kind; users do not give these.
CONTEXT = {
    "encoders": ("input_shape",),
    "decoders": ("latent_dim", "output_shape"),
    "likelihoods": (),
    "losses": (),
}


def build(name: str, /, **params: Any) -> Any:
    """The estimator of that name, with these parameters: `nidl.estimators.get(name)(**params)`.

    Raises a `ComponentError` for a name that leads nowhere (the estimator's, or one among its
    components'), `UnknownParameter` for a keyword that nothing takes.

    >>> vae = build("vae", encoder="cnn3d", decoder="cnn3d", latent_dim=32)  # doctest: +SKIP
    """
    if not isinstance(name, str):
        raise SpecError(f"build takes the name of an estimator, got {name!r}.")
    return estimators.get(name)(**params)


@dataclass(frozen=True)
class Recipe:
    """A spec of a class that has been found: all that is missing is the shape of the data."""

    kind: str
    cls: type[Any]
    params: dict[str, Any]
    entry: Entry | None  # None for a class that was handed in

    def make(self, **context: Any) -> Any:
        """Build the component; `context` is what `CONTEXT` names, and may override nothing else."""
        whose = f"{self.cls.__name__}{f' ({self.entry.id})' if self.entry else ''}"
        early = SpecError(f"{whose}: its __init__ must call super().__init__() first.")
        try:
            made = self.cls(**context, **copy.deepcopy(self.params))
        except AttributeError as err:  # torch's, where a part is assigned before
            if "before Module.__init__() call" in str(err):
                raise early from err
            raise
        if "_modules" not in vars(made):
            raise early
        return made

    def defaults(self) -> dict[str, Any]:
        """All parameters a user may give, with their values: given ones, else defaults."""
        found = {
            name: parameter.default
            for name, parameter in accepted_parameters(self.cls).items()
            if name not in CONTEXT[self.kind]
        }
        return {**found, **self.params}


def read_spec(kind: str, spec: Any) -> Recipe | None:
    """The recipe behind a spec, its class imported and its parameters checked by name.

    None for a component instance, which is used as it is. Raises a `ComponentError`, `SpecError`
    or `UnknownParameter`.
    """
    name, params = split_spec(kind, spec)
    if name is None:
        return None
    if isinstance(name, str):
        entry = registry(kind).entry(name)
        cls = registry(kind).get(name)
        owner = f"{singular(kind)} {name!r}"
    else:
        entry, cls, owner = None, name, f"{singular(kind)} {name.__name__}"
        target = f"{cls.__module__}:{cls.__qualname__}"
        registry(kind).check(Entry(kind, name.__name__, SESSION, "", target), cls)
    if lacks := [name for name in CONTEXT[kind] if name not in accepted_parameters(cls)]:
        raise SpecError(
            f"{owner}: the constructor of {cls.__name__} must take {' and '.join(lacks)}, which the "
            "estimator gives it when the shape of the data is known."
        )
    check_parameters(owner, cls, params, *CONTEXT[kind])
    return Recipe(kind, cls, params, entry)


def split_spec(kind: str, spec: Any) -> tuple[str | type | None, dict[str, Any]]:
    """Name (or class) and parameters of a spec; (None, {}) for an instance. Imports nothing."""
    noun = singular(kind)
    if isinstance(spec, Mapping):
        name, params = spec.get("name"), spec.get("params", {})
        if surplus := sorted(set(map(str, spec)) - {"name", "params"}):
            raise SpecError(
                f"{noun}: a spec has the keys 'name' and 'params', got also {', '.join(surplus)}. "
                "Parameters go inside 'params'."
            )
        if not isinstance(name, (str, type)) or not isinstance(params, Mapping):
            raise SpecError(
                f'{noun}: a spec is {{"name": "...", "params": {{...}}}}, got {spec!r}.'
            )
        if not all(isinstance(key, str) for key in params):
            raise SpecError(f"{noun}: the keys of 'params' are parameter names, got {params!r}.")
        return name, dict(params)
    if isinstance(spec, (str, type)):
        return spec, {}
    if not callable(spec):
        raise SpecError(
            f'{noun} must be a name, {{"name": ..., "params": {{...}}}}, a component or its class, '
            f"got {spec!r}. Installed: {', '.join(registry(kind).names()) or 'none'}."
        )
    return None, {}


def with_params(kind: str, name: str, spec: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of parameter `name`, some of its own changed, as a new dict; the given one stays."""
    if spec is None:
        raise SpecError(
            f"cannot set {name}__{next(iter(params))}: there is no {name}. Give {name}= first."
        )
    component, old = split_spec(kind, spec)
    if component is None:
        raise SpecError(
            f"cannot set {', '.join(f'{name}__{p}' for p in params)}: the {name} was handed in as an "
            f"object, so its parameters are its own. Give it by name or as a class instead."
        )
    return {"name": component, "params": {**old, **params}}
