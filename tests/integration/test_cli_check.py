"""`nidl check`: the conformance kit on an installed plugin."""

import json
import subprocess
import sys

import pytest

from nidl_core.cli import main
from nidl_core.testing.catalogue import Check, NotApplicable, all_checks

EAGER = frozenset({"eager"})


@pytest.fixture
def few(monkeypatch):
    """Three checks instead of all: one passes, one says that it cannot be run, one is set here."""

    def check_this(case):
        raise AssertionError("this is wrong")

    def check_that(case):
        raise NotApplicable("not on this machine")

    checks = {
        "check_signature": all_checks()["check_signature"],
        "check_this": Check("check_this", check_this, ("losses",), EAGER),
        "check_that": Check("check_that", check_that, ("losses",), EAGER),
    }
    monkeypatch.setattr("nidl_core.testing.catalogue.all_checks", lambda: checks)
    return checks


def test_a_shipped_component_passes_all_checks(capsys):
    status = main(["check", "nidl-vae", "--name", "beta_vae", "--json"])
    captured = capsys.readouterr()
    facts = json.loads(captured.out)

    assert status == 0, captured.err
    assert captured.err == "2 cases of nidl-vae\n"
    assert facts["ok"] is True
    assert facts["counts"] == {"passed": 40, "failed": 0, "expected failure": 0, "skipped": 0}
    assert {result["case"] for result in facts["results"]} == {
        "losses-beta_vae",
        "losses-beta_vae[beta=1.0]",
    }
    assert {"case", "check", "outcome", "text", "seconds"} == set(facts["results"][0])
    assert "check_reduction" in {result["check"] for result in facts["results"]}


def test_a_failed_check_is_told_as_it_comes_and_counted_and_is_exit_status_1(few, capsys):
    assert main(["check", "NIDL_vae", "--name", "nidl-vae:beta_vae"]) == 1
    captured = capsys.readouterr()

    assert captured.err.splitlines() == [
        "2 cases of NIDL_vae",
        "failed  losses-beta_vae  check_this: AssertionError: this is wrong",
        "failed  losses-beta_vae[beta=1.0]  check_this: AssertionError: this is wrong",
    ]
    assert captured.out.splitlines() == [
        "losses-beta_vae            1 passed, 1 failed, 1 skipped",
        "losses-beta_vae[beta=1.0]  1 passed, 1 failed, 1 skipped",
        "skipped (2 times): check_that: not on this machine",
        "in all: 2 passed, 2 failed, 0 expected failure, 2 skipped",
    ]


def test_verbose_tells_the_checks_that_passed_as_well(few, capsys):
    del few["check_this"]
    assert main(["check", "nidl-vae", "--name", "beta_vae", "--verbose"]) == 0
    told = capsys.readouterr().err.splitlines()

    assert told[1] == "passed  losses-beta_vae  check_signature"
    assert told[2] == "skipped  losses-beta_vae  check_that: not on this machine"


def test_a_run_of_skips_alone_is_exit_status_1(few, capsys):
    del few["check_this"], few["check_signature"]
    assert main(["check", "nidl-vae", "--name", "beta_vae", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_what_is_expected_to_fail_is_told_with_its_reason(few, capsys, monkeypatch):
    from nidl_vae import BetaVAELoss

    cases = classmethod(lambda cls: [{"expected_failures": {"check_this": "a reason"}}])
    monkeypatch.setattr(BetaVAELoss, "conformance", cases)
    assert main(["check", "nidl-vae", "--name", "beta_vae"]) == 0
    assert "expected failure: check_this: a reason" in capsys.readouterr().out.splitlines()


def test_an_unknown_component_is_one_line_and_exit_status_1(capsys):
    assert main(["check", "nidl-vae", "--name", "cnn2d"]) == 1
    captured = capsys.readouterr()

    assert (
        captured.err
        == "nidl: SpecError: nidl-vae has no component named 'cnn2d'. It has: beta_vae, vae.\n"
    )
    assert captured.out == ""


def test_an_unknown_backend_is_one_line_and_exit_status_1(capsys, monkeypatch):
    monkeypatch.setenv("NIDL_TEST_BACKEND", "fast")
    assert main(["check", "nidl-vae"]) == 1
    assert "NIDL_TEST_BACKEND must be one of eager, compile" in capsys.readouterr().err


def test_an_unknown_distribution_is_told_without_importing_torch():
    code = (
        "import sys; from nidl_core.cli import main\n"
        "status = main(['check', 'nidl-vea'])\n"
        "print(status, [m for m in ('torch', 'lightning', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "1 []\n"
    assert done.stderr.startswith(
        "nidl: SpecError: no installed distribution 'nidl-vea' has components"
    )
    assert "nidl-likelihoods" in done.stderr
