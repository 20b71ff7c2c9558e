"""Run the checks without pytest, and say how many there were."""

from __future__ import annotations

import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from nidl_core.errors import SpecError
from nidl_core.testing.backends import current
from nidl_core.testing.cases import Case, as_cases
from nidl_core.testing.catalogue import Check, checks_for, expected_failure

PASSED, FAILED, EXPECTED, SKIPPED = "passed", "failed", "expected failure", "skipped"


@dataclass(frozen=True)
class Result:
    """What came of one check of one case; `text` is the error, or the reason."""

    case: str
    check: str
    outcome: str  # "passed", "failed", "expected failure" or "skipped"
    text: str = ""
    seconds: float = 0.0
    error: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Report:
    """All results of a run. `ok` means that none failed, and that there were some."""

    results: list[Result]

    @property
    def counts(self) -> dict[str, int]:
        """Outcome -> number of checks."""
        found = Counter(result.outcome for result in self.results)
        return {outcome: found[outcome] for outcome in (PASSED, FAILED, EXPECTED, SKIPPED)}

    @property
    def ok(self) -> bool:
        """No failure, and at least one check that passed."""
        return self.counts[PASSED] > 0 and self.counts[FAILED] == 0

    def of(self, outcome: str) -> list[Result]:
        """The results with this outcome."""
        return [result for result in self.results if result.outcome == outcome]


def run_checks(
    components: Iterable[Any], *, each: Callable[[Result], None] = lambda result: None
) -> Report:
    """Run all checks of `Case`s or component classes; `each` sees every result as it comes.

    An expected failure that passes counts as a failure. Raises `SpecError` for nothing to check.
    """
    plan = planned(as_cases(components))
    results = []
    for case, check in plan:
        results.append(run_check(case, check))
        each(results[-1])
    return Report(results)


def planned(cases: Iterable[Case]) -> list[tuple[Case, Check]]:
    """Each case with each check that it is to pass. Raises `SpecError` if there is none."""
    found = [(case, check) for case in cases for check in checks_for(case)]
    if not found:
        raise SpecError(
            f"nothing is checked: there is no check of these components under the backend "
            f"{current().name}. Unset NIDL_TEST_BACKEND."
        )
    return found


def run_check(case: Case, check: Check) -> Result:
    """Run one check; nothing that a component raises goes through, except Ctrl-C."""
    reason, start = expected_failure(case, check), time.perf_counter()
    outcome, text, error = PASSED, "", None
    try:
        check(case)
        if reason is not None:
            outcome, text = FAILED, f"was expected to fail, and passes. It was said: {reason}"
    except unittest.SkipTest as err:
        outcome, text = SKIPPED, str(err)
    except KeyboardInterrupt:
        raise
    except BaseException as err:
        outcome, text, error = FAILED, f"{type(err).__name__}: {err}", err
        if reason is not None:
            outcome, text, error = EXPECTED, reason, None
    seconds = time.perf_counter() - start
    return Result(case.id, check.name, outcome, text, seconds, error)
