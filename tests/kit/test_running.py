"""Running the checks: outcomes, expected failures, and what comes of an empty run."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from bad_networks import SetsThreads, UnusedParameter
from good_components import SMALL, Elbo, LinearEncoder
from good_estimator import AutoEncoder

from nidl_core.errors import SpecError
from nidl_core.testing import (
    Case,
    Check,
    NotApplicable,
    Report,
    Result,
    checks_for,
    parametrize_with_checks,
    run_checks,
)
from nidl_core.testing.catalogue import all_checks, expected_failure
from nidl_core.testing.running import run_check

CASE = Case("encoders", LinearEncoder, shapes=SMALL)


def check(function: Callable[[Case], Any]) -> Check:
    """A check of encoders by this name."""
    return Check(function.__name__, function, ("encoders",), frozenset({"eager"}))


def raising(error: BaseException) -> Check:
    def check_it(case: Case) -> None:
        raise error

    return check(check_it)


def expecting(**reasons: str) -> Case:
    return dataclasses.replace(CASE, expected_failures=reasons)


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (AssertionError("no"), "failed", "AssertionError: no"),
        (SystemExit(0), "failed", "SystemExit: 0"),
        (NotApplicable("not here"), "skipped", "not here"),
    ],
)
def test_what_a_check_raises_is_an_outcome(error: BaseException, outcome: str, text: str) -> None:
    found = run_check(CASE, raising(error))
    assert (found.case, found.check) == ("encoders-LinearEncoder", "check_it")
    assert (found.outcome, found.text) == (outcome, text)
    assert found.error is (error if outcome == "failed" else None)


def test_ctrl_c_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_check(expecting(check_it="why"), raising(KeyboardInterrupt()))


def test_an_expected_failure_is_told_with_its_reason() -> None:
    found = run_check(expecting(check_it="a reason"), raising(ValueError("no")))
    assert (found.outcome, found.text) == ("expected failure", "a reason")


def test_an_expected_failure_that_passes_is_a_failure() -> None:
    def check_it(case: Case) -> None:
        pass

    found = run_check(expecting(check_it="a reason"), check(check_it))
    assert found.outcome == "failed"
    assert found.text == "was expected to fail, and passes. It was said: a reason"


def test_an_expected_failure_that_cannot_be_run_here_is_skipped() -> None:
    assert run_check(expecting(check_it="why"), raising(NotApplicable("no"))).outcome == "skipped"


@pytest.mark.parametrize(
    ("reasons", "text"),
    [
        (
            {"check_reduction": "why"},
            "expected_failures names check_reduction, which is no check of",
        ),
        ({"check_pikle": "why"}, "expected_failures names check_pikle, which is no check of it"),
        ({"check_pickle": ""}, "expected_failures gives no reason for check_pickle."),
    ],
)
def test_an_expected_failure_of_no_check_or_without_reason_is_refused(
    reasons: dict[str, str], text: str
) -> None:
    with pytest.raises(SpecError) as caught:
        checks_for(expecting(**reasons))
    assert text in str(caught.value)


def test_an_expected_failure_can_be_that_of_one_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"check_gradients@bf16": "too coarse", "check_gradients@compile": "a graph break"}
    case = dataclasses.replace(CASE, expected_failures=reasons)
    (check,) = [check for check in checks_for(case) if check.name == "check_gradients"]
    assert expected_failure(case, check) is None
    monkeypatch.setenv("NIDL_TEST_BACKEND", "bf16")
    assert expected_failure(case, check) == "too coarse"
    strange = dataclasses.replace(CASE, expected_failures={"check_pickle@bf16": "never run there"})
    with pytest.raises(SpecError, match="names check_pickle@bf16, which is no check"):
        checks_for(strange)


def test_a_run_without_any_check_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    only = {"check_signature": all_checks()["check_signature"]}
    monkeypatch.setattr("nidl_core.testing.catalogue.all_checks", lambda: only)
    monkeypatch.setenv("NIDL_TEST_BACKEND", "bf16")
    for collect in (run_checks, parametrize_with_checks):
        with pytest.raises(SpecError, match="no check of these components under the backend bf16"):
            collect([CASE])


def test_python_without_assertions_is_refused() -> None:
    code = (
        "from nidl_core.testing import Case, run_checks\n"
        "from good_components import LinearEncoder\n"
        "run_checks([Case('encoders', LinearEncoder)])"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the checks are assertions, which Python drops under -O" in done.stderr


def test_scikit_learns_checks_can_be_expected_to_fail_where_a_need_is_missing() -> None:
    name = "check_estimators_overwrite_params"
    case = Case("estimators", AutoEncoder, expected_failures={name: "why"})
    assert name in [check.name for check in checks_for(case)]
    lacking = dataclasses.replace(case, needs={"encoders": "no_such_encoder"})
    assert name not in [check.name for check in checks_for(lacking)]


def test_a_run_counts_what_came_of_each_check() -> None:
    case = Case("encoders", UnusedParameter, shapes=[(7,)])
    known = dataclasses.replace(case, expected_failures={"check_gradients": "why"})
    quick = {"check_signature", "check_gradients", "check_shapes"}
    results = [run_check(c, k) for c in (case, known) for k in checks_for(c) if k.name in quick]
    report = Report(results)
    assert report.counts == {"passed": 4, "failed": 1, "expected failure": 1, "skipped": 0}
    assert not report.ok
    assert [r.check for r in report.of("failed")] == ["check_gradients"]


@pytest.mark.parametrize(
    ("outcomes", "ok"),
    [
        ([], False),
        (["skipped", "skipped"], False),
        (["expected failure"], False),
        (["passed", "failed"], False),
        (["passed", "skipped", "expected failure"], True),
    ],
)
def test_a_run_is_ok_if_something_passed_and_nothing_failed(outcomes: list[str], ok: bool) -> None:
    assert Report([Result("case", "check", outcome) for outcome in outcomes]).ok is ok


def test_run_checks_tells_each_result_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: all_checks()[name] for name in ("check_signature", "check_figures")}
    monkeypatch.setattr("nidl_core.testing.catalogue.all_checks", lambda: few)
    told: list[Result] = []
    report = run_checks([LinearEncoder, Elbo], each=told.append)
    assert report.results == told
    assert [(r.case, r.check) for r in told] == [
        ("encoders-LinearEncoder", "check_signature"),
        ("losses-Elbo", "check_signature"),
        ("losses-Elbo", "check_figures"),
    ]
    assert report.ok
    assert all(result.seconds >= 0 for result in told)


def test_nothing_is_run_if_a_case_is_impossible() -> None:
    told: list[Result] = []
    with pytest.raises(SpecError, match="expected_failures names check_nothing"):
        run_checks([LinearEncoder, expecting(check_nothing="why")], each=told.append)
    assert told == []


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(SpecError, match="there is nothing to check: components is empty"):
        run_checks([])


def test_a_check_leaves_random_states_and_settings_as_they_were() -> None:
    def check_it(case: Case) -> None:
        torch.manual_seed(5)
        np.random.seed(5)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        raise ValueError("and fails")

    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    assert run_check(CASE, check(check_it)).outcome == "failed"
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    assert np.random.get_state()[1].tolist() == numpy_before
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


def test_a_setting_that_was_changed_in_an_earlier_check_is_found_all_the_same() -> None:
    case, threads = Case("encoders", SetsThreads, shapes=SMALL), torch.get_num_threads()
    checks = all_checks()
    assert run_check(case, checks["check_shapes"]).outcome == "passed"
    assert torch.get_num_threads() == threads
    assert run_check(case, checks["check_leaves_torch_alone"]).outcome == "failed"


def test_every_check_says_what_it_promises_in_a_sentence() -> None:
    for name, one in all_checks().items():
        assert name.startswith("check_")
        assert one.doc.endswith("."), name
    (sklearns,) = [
        check
        for check in checks_for(Case("estimators", AutoEncoder))
        if check.name == "check_estimators_pickle_True"
    ]
    assert sklearns.doc.startswith("scikit-learn's: ")
