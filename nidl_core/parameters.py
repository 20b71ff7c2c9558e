"""What a constructor was given: kept untouched in one place, read and changed the scikit-learn way.

`get_params`, `set_params`, `clone` and `repr` read `_given`; so do plain attributes, until a network
of the same name has been built. Lightning's Trainer arguments stand beside the class's own.
"""

from __future__ import annotations

import copy
import inspect
import math
import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from sklearn.base import BaseEstimator

from nidl_core.assembly import Recipe, read_spec, with_params
from nidl_core.errors import InvalidParameter
from nidl_core.registry import unknown_parameter
from nidl_core.seeding import draw_seed, seeded


@cache
def trainer_parameters() -> tuple[str, ...]:
    """The names of Lightning's Trainer arguments."""
    return tuple(n for n in inspect.signature(Trainer.__init__).parameters if n != "self")


def callbacks_of(given: dict[str, Any]) -> list[Any]:
    """The callbacks among the Trainer arguments that were given, as a list."""
    callbacks = given.get("callbacks") or []
    return [*callbacks] if isinstance(callbacks, (list, tuple)) else [callbacks]


def own_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The named constructor parameters of an estimator class, those of its bases included.

    A subclass that hands `**kwargs` on to its base thereby takes the base's parameters as well.
    """
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base) and issubclass(base, Parameters):
            for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
                    found.setdefault(name, parameter)
    return found


class Parameters(LightningModule, BaseEstimator):
    """The parameter side of an estimator: names checked at construction, values at `fit`."""

    components: ClassVar[dict[str, str]] = {}  # parameter -> kind, for those that take a spec
    structural: ClassVar[frozenset[str]] = frozenset()  # parameters that shape the networks

    __repr__ = BaseEstimator.__repr__  # nn.Module's would hide it

    def __init__(
        self,
        *,
        random_state: Any = None,
        batch_size: int = 64,
        num_workers: int = 0,
        warm_start: bool = False,
        **given: Any,
    ) -> None:
        super().__init__()
        object.__setattr__(self, "_assembling", False)
        self._fitted = False
        self._waits = False  # for possible values, to build the networks from
        self._built_from: dict[str, Any] = {}
        self._callback_states: list[tuple[Any, Any]] = []  # callbacks, and theirs before any fit
        given = {
            **given,
            "random_state": random_state,
            "batch_size": batch_size,
            "num_workers": num_workers,
            "warm_start": warm_start,
        }
        own = {name: given.pop(name, p.default) for name, p in own_parameters(type(self)).items()}
        self.check_names({**own, **given})
        self._given = {**own, **given}
        self._assemble_early()

    # What a subclass defines --------------------------------------------------------------------

    def build_networks(self, sample: Any) -> None:
        """Create the networks for a batch of one, x (1, C, *S), and assign them as attributes.

        Called by `fit` in a scope that is seeded from `random_state`. It is also called with None
        when an estimator is constructed: then build what does not depend on the data's shape.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define build_networks")

    def check_values(self) -> None:
        """Raise `InvalidParameter` for an impossible value. Extend it; call `super()`."""
        draw_seed(self.random_state, peek=True)
        check_int("batch_size", self.batch_size, least=1)
        check_int("num_workers", self.num_workers, least=0)

    def spec_of(self, name: str, given: dict[str, Any]) -> Any:
        """The spec that a component parameter stands for; override it to give None a meaning."""
        return given[name]

    def params_changed(self, names: set[str]) -> None:
        """Called after `set_params` or an assignment changed these parameters."""

    # scikit-learn's side ------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What the constructor was given, Trainer arguments included.

        With `deep`, each component's own parameters too, as `encoder__widths`, defaults filled in.
        """
        params = dict(self._given)
        if deep:
            for name in self.components:
                if recipe := self.recipe(name):
                    params.update({f"{name}__{k}": v for k, v in recipe.defaults().items()})
        return params

    def set_params(self, **params: Any) -> Any:
        """Change parameters: own ones, Trainer arguments, components, or `encoder__widths`.

        On a fitted estimator those that shape the networks count from the next `fit`. Raises
        `UnknownParameter`, `SpecError` or a `ComponentError`, and then changes nothing.
        """
        new, nested = dict(self._given), dict[str, dict[str, Any]]()
        for key, value in params.items():
            name, is_nested, inner = key.partition("__")
            if is_nested and name in self.components:
                nested.setdefault(name, {})[inner] = value
            else:
                new[key] = value
        for name, inner_params in nested.items():
            kind = self.components[name]
            new[name] = with_params(kind, self.spec_of(name, new), inner_params)
        self.check_names(new)
        changed = {
            name for name in new if name not in self._given or new[name] is not self._given[name]
        }
        self._given = new
        if not self._fitted and (self._waits or changed & self.structural):
            self._assemble_early()
        self.params_changed(changed)
        return self

    def __sklearn_clone__(self) -> Any:
        twin = super().__sklearn_clone__()
        known = {id(callback): state for callback, state in self._callback_states}
        for old, new in zip(callbacks_of(self._given), callbacks_of(twin._given), strict=True):
            if id(old) in known:
                twin._callback_states.append((new, copy.deepcopy(known[id(old)])))
        return twin

    def recipe(self, name: str) -> Recipe | None:
        """How a component parameter is built; None if an object was handed in, or nothing."""
        spec = self.spec_of(name, self._given)
        return None if spec is None else read_spec(self.components[name], spec)

    def assemble(self, sample: Any) -> None:
        """Build the networks from what was given, seeded from `random_state`."""
        with seeded(draw_seed(self.random_state, peek=True)):
            self.assemble_seeded(sample)

    def assemble_seeded(self, sample: Any) -> None:
        """Build the networks, in a random state that the caller has seeded."""
        for store in (self._modules, self._parameters, self._buffers):
            store.clear()
        with self.assembly():
            self.build_networks(sample)
        self._built_from = {name: self._given[name] for name in self.structural}

    def _assemble_early(self) -> None:
        """Build what needs no data. An impossible value waits for `fit`, which names it."""
        try:
            self.check_values()
            self.assemble(None)
            self._waits = False
        except InvalidParameter:
            self._modules.clear()
            self._waits = True

    def check_names(self, given: dict[str, Any]) -> None:
        """Unknown keywords and names of components fail here, before anything is changed."""
        own = list(own_parameters(type(self)))
        for name in given:
            if name not in own and name not in trainer_parameters():
                raise unknown_parameter(
                    type(self).__name__,
                    name,
                    own,
                    trainer_parameters(),
                    " and the arguments of Lightning's Trainer",
                )
        for name, kind in self.components.items():
            spec = self.spec_of(name, given)
            if spec is not None:
                read_spec(kind, spec)

    @contextmanager
    def assembly(self) -> Iterator[None]:
        """While it lasts, assigning a module installs a network instead of setting a parameter."""
        object.__setattr__(self, "_assembling", True)
        try:
            yield
        finally:
            object.__setattr__(self, "_assembling", False)

    def __setattr__(self, name: str, value: Any) -> None:
        is_parameter = name in self.__dict__.get("_given", {}) or (
            "_given" in self.__dict__ and name in trainer_parameters()
        )
        # Lightning's own attributes (logger, ...) are not those that were given to its Trainer.
        if is_parameter and not hasattr(LightningModule, name) and not self._assembling:
            self.set_params(**{name: value})
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__.get("_modules", {}) and name in self.__dict__.get(
            "_given", {}
        ):
            return self.__dict__["_given"][name]
        return super().__getattr__(name)


def check_int(name: str, value: Any, *, least: int) -> None:
    """Raise `InvalidParameter` unless the value is an int from `least` on."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise InvalidParameter(name, value, f"an int >= {least}")


def check_float(name: str, value: Any, *, least: float = 0.0, above: bool = False) -> None:
    """Raise `InvalidParameter` unless the value is a finite number from `least` on (or above it)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least or (above and value == least):
        raise InvalidParameter(name, value, f"a finite number {'>' if above else '>='} {least:g}")
