"""parametrize_with_checks: the marks it makes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from bad_networks import UnusedParameter
from good_components import SMALL, Elbo, LinearEncoder
from good_estimator import AutoEncoder

from nidl_core.errors import SpecError
from nidl_core.testing import Case, checks_for, parametrize_with_checks

CASE = Case("encoders", LinearEncoder, shapes=SMALL)


def params(mark: Any) -> dict[str, Any]:
    """id -> parameter set of the mark."""
    names, sets = mark.args
    assert names == ("component", "check")
    return {one.id: one for one in sets}


def test_each_check_of_each_component_is_a_test_with_an_id() -> None:
    found = params(parametrize_with_checks([CASE, Elbo]))
    names = [f"encoders-LinearEncoder-{check.name}" for check in checks_for(CASE)]
    assert list(found)[: len(names)] == names
    assert all(name.startswith("losses-Elbo-check_") for name in list(found)[len(names) :])
    component, check = found["losses-Elbo-check_figures"].values
    assert (component.cls, check.name) == (Elbo, "check_figures")


def test_expected_failures_are_strict_marks_with_their_reason() -> None:
    reasons = {"UnusedParameter": {"check_gradients": "a reason"}}
    found = params(parametrize_with_checks([UnusedParameter], expected_failures=reasons))
    (mark,) = found["encoders-UnusedParameter-check_gradients"].marks
    assert (mark.name, mark.kwargs) == ("xfail", {"strict": True, "reason": "a reason"})
    assert not found["encoders-UnusedParameter-check_pickle"].marks


def test_expected_failures_come_beside_those_of_the_component() -> None:
    case = Case("encoders", LinearEncoder, expected_failures={"check_dtype": "its own"})
    more = {"LinearEncoder": {"check_pickle": "the test's"}}
    found = params(parametrize_with_checks([case], expected_failures=more))
    assert {one.marks[0].kwargs["reason"] for one in found.values() if one.marks} == {
        "its own",
        "the test's",
    }


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ({"linear": {"check_pickle": "why"}}, "names linear. Components: LinearEncoder."),
        ({"LinearEncoder": {"check_pikle": "why"}}, "expected_failures names check_pikle"),
    ],
)
def test_an_expected_failure_of_no_component_or_check_is_refused(expected: Any, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parametrize_with_checks([CASE], expected_failures=expected)
    assert text in str(caught.value)


def test_fewer_checks_than_were_promised_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(checks_for(CASE))
    parametrize_with_checks([CASE], at_least=count)
    with pytest.raises(SpecError) as caught:
        parametrize_with_checks([CASE], at_least=count + 1)
    assert str(caught.value) == (
        f"{count} checks were found, at least {count + 1} were promised. Has a component lost its "
        "entry point?"
    )
    monkeypatch.setenv("NIDL_TEST_BACKEND", "ddp")  # has but a few
    assert len(params(parametrize_with_checks([CASE], at_least=count))) == 1


def test_no_components_are_an_error() -> None:
    with pytest.raises(SpecError, match="there is nothing to check"):
        parametrize_with_checks([])


def test_scikit_learns_checks_of_an_estimator_have_names_of_their_own() -> None:
    found = params(parametrize_with_checks([AutoEncoder], at_least=50))
    assert "estimators-AutoEncoder-check_estimators_pickle_True" in found
    marked = {name.rpartition("-")[2] for name, one in found.items() if one.marks}
    assert marked == {
        "check_no_attributes_set_in_init",
        "check_do_not_raise_errors_in_init_or_set_params",
    }
