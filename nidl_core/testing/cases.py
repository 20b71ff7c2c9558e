"""What is checked: a component, how it is to be built, and for which shapes of data.

A component class may say so itself, in a classmethod `conformance()` that returns a list of mappings,
one a case, with any of these keys:

- "params": the constructor's parameters (plain data); by default, its defaults
- "shapes": a list of (C, *S) to build it for; by default `SHAPES`, for an estimator `TABLE`
- "reference": likelihoods only, a function of theta's P blocks (numpy arrays, each (N, C, *S)) that
  returns a frozen scipy distribution with the same log-probability
- "expected_failures": check name -> why it cannot hold for this component; "check_name@inductor"
  for one backend alone
- "needs": kind -> name, or names, of other components that the case cannot do without
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nidl_core.assembly import CONTEXT
from nidl_core.errors import DisabledComponent, ShapeError, SpecError, UnknownComponent
from nidl_core.registry import REGISTRIES, Entry, check_parameters, registry

LATENT_DIM = 3  # L, of decoders and losses

# (C, *S): a table of features, images with even and odd sides, volumes likewise. No two alike, so
# that axes that were mixed up show.
SHAPES: tuple[tuple[int, ...], ...] = (
    (7,),
    (1, 28, 28),
    (3, 17, 30),
    (1, 16, 16, 16),
    (2, 13, 10, 15),
)
TABLE: tuple[tuple[int, ...], ...] = ((6,),)  # what scikit-learn's checks feed an estimator
_KEYS = {"params", "shapes", "reference", "expected_failures", "needs"}


@dataclass(frozen=True, eq=False)
class Case:
    """One component of a kind, by name or class, with parameters.

    Raises `UnknownParameter` when it is first built with a parameter that it does not take.
    """

    kind: str
    component: str | type
    params: Mapping[str, Any] = field(default_factory=dict)
    shapes: Sequence[tuple[int, ...]] = SHAPES
    reference: Callable[..., Any] | None = None
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    number: int = 1  # which of several that would have the same id

    def __post_init__(self) -> None:
        if self.kind not in REGISTRIES:
            raise SpecError(f"there is no kind {self.kind!r}. Kinds: {', '.join(REGISTRIES)}.")
        if not self.shapes:
            raise SpecError(f"{self.id}: shapes is empty. Name at least one (C, *S).")
        object.__setattr__(self, "shapes", [tuple(shape) for shape in self.shapes])

    @property
    def name(self) -> str:
        """The registered name, or that of the class."""
        return self.component if isinstance(self.component, str) else self.component.__name__

    @property
    def id(self) -> str:
        """For people and for `pytest -k`: kind, name, and what sets this case apart."""
        given = ",".join(f"{key}={_brief(value)}" for key, value in self.params.items())
        given = given if len(given) <= 60 else f"{given[:57]}..."
        number = f"#{self.number}" if self.number > 1 else ""
        return f"{self.kind}-{self.name}" + (f"[{given}]" if given else "") + number

    def __repr__(self) -> str:
        return self.id

    @cached_property
    def entry(self) -> Entry | None:
        """The entry behind a name; None for a class that is not registered."""
        if isinstance(self.component, str):
            return registry(self.kind).entry(self.component)
        return registry(self.kind).entry_of(self.component)

    @cached_property
    def cls(self) -> type[Any]:
        """The class, imported and checked by its registry."""
        if isinstance(self.component, str):
            return registry(self.kind).get(self.component)
        return self.component

    def build(self, shape: tuple[int, ...]) -> Any:
        """The component for data of shape (C, *S). Raises what its constructor raises."""
        shapes: dict[str, dict[str, Any]] = {
            "encoders": {"input_shape": shape},
            "decoders": {"latent_dim": LATENT_DIM, "output_shape": shape},
        }
        context = shapes.get(self.kind, {})
        given = CONTEXT.get(self.kind, ())
        check_parameters(self.id, self.cls, self.params, *given)
        return self.cls(**context, **copy.deepcopy(dict(self.params)))

    @cached_property
    def accepted(self) -> list[tuple[int, ...]]:
        """The shapes that the component does not refuse with ShapeError."""
        if self.kind not in ("encoders", "decoders"):
            return list(self.shapes)
        found = []
        for shape in self.shapes:
            try:
                self.build(shape)
            except ShapeError:
                continue
            found.append(shape)
        return found


def installed(distribution: str | None = None, kind: str | None = None) -> list[Case]:
    """The cases of all installed components, of one distribution, or of one kind.

    Imports them. Raises `SpecError` if there is none, and what an import raises. Those that are
    switched off are left out, unless their distribution is asked for.
    """
    kinds = [kind] if kind else list(REGISTRIES)
    entries = [e for k in kinds for e in registry(k).entries()]
    wanted = None if distribution is None else _canonical(distribution)
    entries = [e for e in entries if wanted in (None, _canonical(e.distribution))]
    entries = [e for e in entries if wanted or not e.disabled]
    if not entries:
        raise SpecError(
            f"no installed component of {distribution or 'any distribution'}"
            f"{f' in the kind {kind}' if kind else ''}. `nidl list` shows what is installed."
        )
    cases: list[Case] = []
    for entry in entries:
        same = [e for e in registry(entry.kind).entries() if e.name == entry.name]
        name = entry.name if len(same) == 1 else entry.id
        cases += cases_of(entry.kind, name, registry(entry.kind).get(name))
    return _numbered(cases)


def cases_of(kind: str, component: str | type, cls: type | None = None) -> list[Case]:
    """The cases that a component names in its `conformance()`, or one with its defaults."""
    said = getattr(cls or component, "conformance", None)
    cases = []
    for facts in said() if said is not None else [{}]:
        if surplus := sorted(set(facts) - _KEYS):
            raise SpecError(
                f"{component}.conformance() names {', '.join(surplus)}. Keys: "
                f"{', '.join(sorted(_KEYS))}."
            )
        shapes = {"shapes": TABLE} if kind == "estimators" else {}
        cases.append(Case(kind, component, **{**shapes, **facts}))
    if not cases:
        raise SpecError(f"{component}.conformance() is empty. Return at least one case.")
    return cases


def as_cases(components: Iterable[Any]) -> list[Case]:
    """Cases as they are; classes by their own `conformance()`."""
    cases: list[Case] = []
    for component in components:
        if isinstance(component, Case):
            cases.append(component)
        else:
            cases += cases_of(kind_of(component), component)
    if not cases:
        raise SpecError("there is nothing to check: components is empty.")
    return _numbered(cases)


def _numbered(cases: list[Case]) -> list[Case]:
    """Two that differ in their shapes alone, or late in a long parameter, are told apart."""
    seen: Counter[str] = Counter()
    found = []
    for case in (dataclasses.replace(case, number=1) for case in cases):
        seen[case.id] += 1
        found.append(dataclasses.replace(case, number=seen[case.id]))
    return found


def kind_of(cls: Any) -> str:
    """The kind whose interface a class derives from. Raises `SpecError` for none."""
    from nidl_core.discovery import load

    for kind, one in REGISTRIES.items():
        if isinstance(cls, type) and issubclass(cls, load(one.interface)):
            return kind
    raise SpecError(f"a component is a Case or a component class, got {cls!r}.")


def missing(case: Case) -> str | None:
    """Which component the case needs and is not installed, or None."""
    for kind, names in case.needs.items():
        for name in [names] if isinstance(names, str) else names:
            try:
                registry(kind).entry(name)
            except (UnknownComponent, DisabledComponent) as err:
                return str(err)
    return None


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _brief(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        value = value["name"]
    text = str(value) if isinstance(value, str) else repr(value)
    text = "".join(text.split())
    return text if len(text) <= 40 else f"{text[:37]}..."
