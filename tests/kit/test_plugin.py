"""The pytest plugin: it counts the checks that ran, and a run of skips alone fails."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

MODULE = """
from bad_networks import UnusedParameter
from good_components import LinearEncoder
from nidl_core.testing import Case, parametrize_with_checks

UNUSED = {{"UnusedParameter": {{"check_gradients": "a reason"}}}}

@parametrize_with_checks([{components}], expected_failures={expected})
def test_conformance(component, check):
    check(component)

def test_something_else():
    pass
"""


def run(pytester: pytest.Pytester, components: str, expected: str = "{}", *options: str) -> object:
    pytester.makepyfile(MODULE.format(components=components, expected=expected))
    given = ("-p", "nidl_core.testing.plugin", "-p", "no:cacheprovider", *options)
    return pytester.runpytest_inprocess(*given)


def test_the_checks_that_ran_are_counted_by_component(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "LinearEncoder, UnusedParameter",
        "UNUSED",
        *("-k", "check_signature or check_gradients or something_else"),
    )
    result.assert_outcomes(passed=4, xfailed=1, deselected=40)
    result.stdout.fnmatch_lines(
        [
            "*= nidl conformance =*",
            "encoders-LinearEncoder: 2 checks ran",
            "encoders-UnusedParameter: 2 checks ran",
            "in all 4 checks ran, 1 of them failed as expected",
        ]
    )
    assert result.ret == 0


def test_an_expected_failure_that_passes_fails_the_run(pytester: pytest.Pytester) -> None:
    expected = '{"LinearEncoder": {"check_gradients": "why"}}'
    result = run(pytester, "LinearEncoder", expected, "-k", "check_gradients")
    result.assert_outcomes(failed=1, deselected=22)
    result.stdout.fnmatch_lines(["*XPASS(strict)*", "encoders-LinearEncoder: 1 checks ran"])
    assert result.ret == 1


def test_a_run_in_which_all_checks_were_skipped_fails(pytester: pytest.Pytester) -> None:
    lacking = 'Case("encoders", LinearEncoder, needs={"losses": "no_such_loss"})'
    result = run(pytester, lacking, "{}", "-rs")
    result.stdout.fnmatch_lines(
        [
            "encoders-LinearEncoder: 0 checks ran, 22 skipped",
            "in all 0 checks ran, 0 of them failed as expected",
            "SKIPPED * no loss named 'no_such_loss'*",
        ]
    )
    assert result.ret == 1


def test_a_run_without_checks_is_left_alone(pytester: pytest.Pytester) -> None:
    result = run(pytester, "LinearEncoder", "{}", "-k", "something_else")
    assert result.ret == 0
    assert "nidl conformance" not in result.stdout.str()


def test_nothing_is_loaded_into_other_peoples_runs() -> None:
    (core,) = [d for d in importlib.metadata.distributions() if d.name == "nidl-core"][:1]
    assert "pytest11" not in {point.group for point in core.entry_points}


def test_the_kit_needs_pytest_only_where_it_makes_tests() -> None:
    code = (
        "import sys, nidl_core.testing\n"
        "print([m for m in ('pytest', 'lightning', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
