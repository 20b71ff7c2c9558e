"""The checks there are, and which of them a case is to pass."""

from __future__ import annotations

import importlib
import unittest
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nidl_core.errors import SpecError
from nidl_core.registry import REGISTRIES
from nidl_core.seeding import preserved
from nidl_core.testing.backends import current
from nidl_core.testing.cases import Case, missing
from nidl_core.testing.settings import kept

MODULES = ("encoders", "decoders", "likelihoods", "losses")  # kinds that are plain torch modules
EVERYWHERE = frozenset({"eager", "compile", "inductor", "bf16"})
EAGER = frozenset({"eager"})
_HOMES = ("alone", "modules", "networks", "likelihoods", "losses", "estimators")


class NotApplicable(unittest.SkipTest):
    """A check that cannot be run here; its text says why. pytest and unittest take it as a skip."""


@dataclass(frozen=True)
class Check:
    """One promise of a component. Call it with a `Case`: it raises if the promise is broken.

    Random state and settings of torch are afterwards what they were: no check can hide the next
    one's findings.
    """

    name: str
    function: Callable[[Case], None]
    kinds: tuple[str, ...]
    backends: frozenset[str]
    when: Callable[[Case], bool] = lambda case: True

    def __call__(self, case: Case) -> None:
        if lacks := missing(case):
            raise NotApplicable(lacks)
        with preserved(), kept(), current().scope():
            self.function(case)

    def __repr__(self) -> str:
        return self.name

    @property
    def doc(self) -> str:
        """What is promised, in a line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


_checks: dict[str, Check] = {}


def check(
    *kinds: str,
    backends: Iterable[str] = EAGER,
    when: Callable[[Case], bool] = lambda case: True,
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Mark a function of a `Case` as a check of these kinds (of all, if none is named)."""

    def mark(function: Callable[[Case], None]) -> Callable[[Case], None]:
        name = function.__name__
        _checks[name] = Check(name, function, kinds or tuple(REGISTRIES), frozenset(backends), when)
        return function

    return mark


def all_checks() -> dict[str, Check]:
    """Name -> check, of the kit's own; estimators have scikit-learn's besides."""
    for home in _HOMES:
        importlib.import_module(f"nidl_core.testing.{home}")
    return dict(_checks)


def checks_for(case: Case) -> list[Check]:
    """The checks that a case is to pass under the current backend.

    Raises `SpecError` for an expected failure that names no check of this case, and under
    `python -O`, which drops assertions.
    """
    if not __debug__:
        raise SpecError(
            "the checks are assertions, which Python drops under -O and PYTHONOPTIMIZE: run it without."
        )
    backend = current().name
    found = [c for c in all_checks().values() if case.kind in c.kinds and c.when(case)]
    if case.kind == "estimators":
        from nidl_core.testing.estimators import sklearn_checks

        found += sklearn_checks(case)
    possible = {c.name for c in found} | {f"{c.name}@{b}" for c in found for b in c.backends}
    strange = sorted(set(case.expected_failures) - possible)
    if strange and not missing(case):  # without its needs, an estimator's checks are not all known
        raise SpecError(
            f"{case.id}: expected_failures names {', '.join(strange)}, which is no check of "
            f"it. Checks: {', '.join(c.name for c in found)}."
        )
    if mute := sorted(name for name, reason in case.expected_failures.items() if not reason):
        raise SpecError(f"{case.id}: expected_failures gives no reason for {', '.join(mute)}.")
    return [c for c in found if backend in c.backends]


def expected_failure(case: Case, check: Check) -> str | None:
    """Why this check is known to fail for this case under the current backend, or None."""
    reasons = dict(case.expected_failures)
    if case.kind == "estimators":
        from nidl_core.testing.estimators import known_failures

        reasons = {**known_failures(case), **reasons}
    return reasons.get(f"{check.name}@{current().name}", reasons.get(check.name))
