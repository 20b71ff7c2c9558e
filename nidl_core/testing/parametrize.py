"""The checks as a pytest parametrisation, in the manner of scikit-learn's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from nidl_core.errors import SpecError
from nidl_core.testing.cases import Case, as_cases
from nidl_core.testing.catalogue import expected_failure
from nidl_core.testing.running import planned


def parametrize_with_checks(
    components: Iterable[Any],
    *,
    expected_failures: Mapping[str, Mapping[str, str]] | None = None,
    at_least: int = 1,
) -> Any:
    """Run a test with every `component` (a `Case`) and every `check` that it is to pass.

    Parameters
    ----------
    components : iterable of Case or component class
        Usually `installed("my-distribution")`.
    expected_failures : {name: {check: reason}}
        By name of a component, beside those in its `conformance()`. They are strict: a check that
        passes unexpectedly fails.
    at_least : int
        How many checks there must be under the eager backend, so that a run that lost them cannot
        look green.

    Raises
    ------
    SpecError
        For nothing to check, fewer checks than `at_least`, or an expected failure of no component
        or check.
    """
    import pytest

    from nidl_core.testing.backends import current

    expected = dict(expected_failures or {})
    cases = [_expecting(case, expected.get(case.name, {})) for case in as_cases(components)]
    if strange := sorted(set(expected) - {case.name for case in cases}):
        raise SpecError(
            f"expected_failures names {', '.join(strange)}. Components: "
            f"{', '.join(sorted({case.name for case in cases}))}."
        )
    params = []
    for case, check in planned(cases):
        reason = expected_failure(case, check)
        marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
        params.append(pytest.param(case, check, id=f"{case.id}-{check.name}", marks=marks))
    if current().name == "eager" and len(params) < at_least:
        raise SpecError(
            f"{len(params)} checks were found, at least {at_least} were promised. Has a component "
            "lost its entry point?"
        )
    return pytest.mark.parametrize(("component", "check"), params)


def _expecting(case: Case, more: Mapping[str, str]) -> Case:
    if not more:
        return case
    return dataclasses.replace(case, expected_failures={**case.expected_failures, **more})
