"""What a constructor was given: kept untouched in one place, read and changed the scikit-learn way.

`get_params`, `set_params`, `clone` and `repr` read `_given`; so do plain attributes, until a network
of the same name has been built. Lightning's Trainer arguments stand beside the class's own.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from sklearn.base import BaseEstimator

from nidl_core.assembly import Recipe, read_spec, with_params
from nidl_core.errors import InvalidParameter, NidlError, ShapeError, UnknownParameter
from nidl_core.registry import unknown_parameter
from nidl_core.seeding import draw_seed, seeded


@cache
def trainer_parameters() -> tuple[str, ...]:
    """The names of Lightning's Trainer arguments."""
    return tuple(n for n in inspect.signature(Trainer.__init__).parameters if n != "self")


class DetachedError(RuntimeError, AttributeError):
    """There is no Trainer outside `fit`. Both classes, so that `hasattr` and Lightning are content."""


def own_parameters(cls: type, *, whole: bool = False) -> dict[str, inspect.Parameter]:
    """The named constructor parameters of an estimator class.

    Those of its bases count as far as it hands `**kwargs` on to them; with `whole`, all of them.
    """
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or not issubclass(base, Parameters):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        for name, parameter in parameters.items():
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(name, parameter)
        if not whole and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


class Parameters(LightningModule, BaseEstimator):
    """The parameter side of an estimator: names checked at construction, values at `fit`."""

    components: ClassVar[dict[str, str]] = {}  # parameter -> kind, for those that take a spec
    structural: ClassVar[frozenset[str]] = frozenset()  # parameters that shape the networks
    builds_early: ClassVar[bool] = False  # whether to call build_networks(None), before any data
    fixed: ClassVar[frozenset[str]] = frozenset()  # those a subclass gives itself: users may not

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
        bound = self.__dict__.pop("_bound", {})
        super().__init__()
        object.__setattr__(self, "_assembling", False)
        self._fitted = False
        self._continued = 0  # warm fits since the networks were built
        self._waits = False  # for possible values, to build the networks from
        self._built_from: dict[str, Any] = {}
        given = {
            **given,
            "random_state": random_state,
            "batch_size": batch_size,
            "num_workers": num_workers,
            "warm_start": warm_start,
        }
        for name, value in bound.items():
            if given.setdefault(name, value) is not value:
                raise NidlError(
                    f"{type(self).__name__}.__init__ was given {name}={value!r} but handed {name}="
                    f"{given[name]!r} on to its base. Hand on what was given, as it is: "
                    f"super().__init__({name}={name}, ..., **trainer_kwargs)."
                )
        own = {}
        for name, parameter in own_parameters(type(self), whole=True).items():
            # An `__init__` may also have said `self.name = name` before it came here.
            default = self.__dict__.pop(name, parameter.default)
            own[name] = given.pop(name, default)
        self.check_names({**own, **given})
        self._given = {**own, **given}
        self._assemble_early()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _recording(vars(cls)["__init__"])  # type: ignore[method-assign]

    # What a subclass defines --------------------------------------------------------------------

    def build_networks(self, sample: Any) -> None:
        """Create the networks for a batch of one, x (1, C, *S), and assign them as attributes.

        Called by `fit` in a scope that is seeded from `random_state`; with None when an estimator
        whose class `builds_early` is constructed, to build what does not depend on the data.
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
        accepted = self._accepted()
        params = {name: value for name, value in self._given.items() if name in accepted}
        if deep:
            for name in self.components:
                if name in params:
                    inner = self.component_params(name, self._given)
                    params.update({f"{name}__{k}": v for k, v in inner.items()})
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
        for name, asked in nested.items():
            now = self.component_params(name, new)
            news = {k: v for k, v in asked.items() if k not in now or not same(v, now[k])}
            if news:  # what is so already changes nothing
                new[name] = with_params(self.components[name], name, self.spec_of(name, new), news)
        accepted = self._accepted()
        if unknown := [name for name in params if "__" not in name and name not in accepted]:
            raise self._unknown(unknown[0])
        if self.fixed or own_parameters(type(self)) != own_parameters(type(self), whole=True):
            # What this class gives its base it makes from its own parameters: let it do so again.
            new = type(self)(**{name: new[name] for name in accepted if name in new})._given
        self.check_names(new)
        changed = {name for name in new if not same(new[name], self._given.get(name, _MISSING))}
        self._given = new
        if not self._fitted and (self._waits or changed & self.structural):
            self._assemble_early()
        self.params_changed(changed)
        return self

    def __sklearn_clone__(self) -> Any:
        # All parameters in one copy: what an encoder and a decoder share, their copies share.
        twin = type(self)(**copy.deepcopy(self.get_params(deep=False)))
        for name in ("_metadata_request", "_sklearn_output_config"):
            if name in self.__dict__:
                object.__setattr__(twin, name, copy.deepcopy(self.__dict__[name]))
        return twin

    def component_params(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """A component's own parameters as they would be used, defaults filled in; empty for an object."""
        recipe = self.recipe(name, given)
        return {} if recipe is None else recipe.defaults()

    def recipe(self, name: str, given: dict[str, Any] | None = None) -> Recipe | None:
        """How a component parameter is built; None if an object was handed in, or nothing."""
        spec = self.spec_of(name, self._given if given is None else given)
        return None if spec is None else read_spec(self.components[name], spec)

    def assemble(self, sample: Any, mask: Any = None) -> None:
        """Build the networks from what was given, seeded from `random_state`."""
        with seeded(draw_seed(self.random_state, peek=True)):
            self.assemble_seeded(sample, mask)

    def assemble_seeded(self, sample: Any, mask: Any = None) -> None:
        """Build the networks, in a random state that the caller has seeded.

        The buffer `data_mask` tells `build_networks` which positions of x count: bool (*S), or None.
        """
        for store in (self._modules, self._parameters, self._buffers):
            store.clear()
        if mask is not None and mask.shape != sample.shape[2:]:
            raise ShapeError(
                f"the mask of the data has shape {tuple(mask.shape)}, and x is (N, C, *S) with S "
                f"{tuple(sample.shape[2:])}. They must be equal."
            )
        self.register_buffer("data_mask", mask)
        self.training = True  # an interrupted validation, or eval(), may have left it False
        with self.assembly():
            self.build_networks(sample)
        self._built_from = {name: self._given[name] for name in self.structural}

    def _assemble_early(self) -> None:
        """Build what needs no data. An impossible value waits for `fit`, which names it."""
        if not self.builds_early:
            return
        try:
            self.check_values()
            self.assemble(None)
            self._waits = False
        except InvalidParameter:
            self._modules.clear()
            self._waits = True

    def check_names(self, given: dict[str, Any]) -> None:
        """Unknown keywords and names of components fail here, before anything is changed."""
        known = {*own_parameters(type(self), whole=True), *trainer_parameters()}
        for name in given:
            if name not in known:
                raise self._unknown(name)
        for name, kind in self.components.items():
            spec = self.spec_of(name, given)
            if spec is not None:
                read_spec(kind, spec)

    def _accepted(self) -> set[str]:
        """What the class's constructor takes, less what a subclass gives itself."""
        takes_any = any(p.kind is p.VAR_KEYWORD for p in _signature(type(self)).values())
        trainer = trainer_parameters() if takes_any else ()
        return {*own_parameters(type(self)), *trainer} - self.fixed

    def _unknown(self, name: str) -> UnknownParameter:
        own = [n for n in own_parameters(type(self)) if n not in self.fixed]
        also = " and the arguments of Lightning's Trainer"
        component, nested, inner = name.partition("__")
        if nested and component in self.components:
            also += (
                f". Give {name} by set_params, or as {component}={{'name': ..., 'params': "
                f"{{{inner!r}: ...}}}}"
            )
        return unknown_parameter(type(self).__name__, name, own, trainer_parameters(), also)

    @contextlib.contextmanager
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

    @property
    def trainer(self) -> Any:
        """Lightning's Trainer, while it fits. scikit-learn reads all attributes of an estimator."""
        if self._trainer is None and self._fabric is None:
            raise DetachedError(
                f"{type(self).__name__} has no Trainer now: it is let go after fit."
            )
        return LightningModule.trainer.fget(self)  # type: ignore[attr-defined]

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        LightningModule.trainer.fset(self, trainer)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name == "trainer":  # where Python goes on to after the property's error
            raise DetachedError(
                f"{type(self).__name__} has no Trainer now: it is let go after fit."
            )
        if name not in self.__dict__.get("_modules", {}) and name in self.__dict__.get(
            "_given", {}
        ):
            return self.__dict__["_given"][name]
        return super().__getattr__(name)


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor, noting what it was called with, so that nothing is lost on the way to the base."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if "_bound" not in self.__dict__:
            with contextlib.suppress(TypeError):  # a wrong call: the constructor says so itself
                given = dict(signature.bind(self, *args, **kwargs).arguments)
                given.pop(next(iter(signature.parameters)))
                for name, parameter in signature.parameters.items():
                    if parameter.kind is parameter.VAR_KEYWORD:
                        given.update(given.pop(name, {}))
                self.__dict__["_bound"] = given
        init(self, *args, **kwargs)

    return wrapped


def same(a: Any, b: Any) -> bool:
    """Whether two parameters are one: the same object, or equal plain data."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return isinstance(a, (str, int, float)) and a == b


def _signature(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls.__init__).parameters  # type: ignore[misc]


_MISSING = object()


def check_int(name: str, value: Any, *, least: int) -> None:
    """Raise `InvalidParameter` unless the value is an int from `least` on."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise InvalidParameter(name, value, f"an int >= {least}")


def check_float(name: str, value: Any, *, least: float = 0.0, above: bool = False) -> None:
    """Raise `InvalidParameter` unless the value is a finite number from `least` on (or above it)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least or (above and value == least):
        raise InvalidParameter(name, value, f"a finite number {'>' if above else '>='} {least:g}")
