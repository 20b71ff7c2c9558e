"""Each fault is caught by the check that is meant to catch it, and by none that is not."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import bad_estimators
import bad_networks
import pytest
from faults import ALONE, ESTIMATORS, LIKELIHOODS, LOSSES, NETWORKS, SLOW, Fault, named
from good_components import MODULES as SOUND
from good_components import SMALL, LinearEncoder
from good_estimator import AutoEncoder

from nidl_core.testing import Case, alone, cases_of, checks_for
from nidl_core.testing.cases import kind_of
from nidl_core.testing.catalogue import all_checks
from nidl_core.testing.running import Result, run_check

FAULTS = [*ALONE, *NETWORKS, *LIKELIHOODS, *LOSSES, *ESTIMATORS]
# Those that need more than a row: a global that was changed at run time, a model saved by name.
ELSEWHERE = {"check_fresh_process", "check_saved_model"}


def test_every_check_has_a_fault_that_it_catches() -> None:
    assert {fault.check for fault in FAULTS} | ELSEWHERE == set(all_checks())


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_what_was_sound_before_passes_the_check(fault: Fault) -> None:
    if fault.case.entry is not None:
        case = named(fault.check, "linear", "good_components:LinearEncoder").case
        found = run_check(case, all_checks()[fault.check])
    else:
        bases = [cls for cls in fault.case.cls.__mro__ if cls in [*SOUND, AutoEncoder]]
        found = of_the_sound(bases[0] if bases else LinearEncoder, fault.check)
    assert found.outcome == "passed", found.text


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_fault_is_caught_by_its_check(fault: Fault) -> None:
    found = run_check(fault.case, all_checks()[fault.check])
    assert (found.outcome, fault.text in found.text) == ("failed", True), found.text


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.also is not None], ids=repr)
def test_a_fault_is_told_by_no_check_that_it_does_not_concern(fault: Fault) -> None:
    ours = [c for c in all_checks().values() if c in checks_for(fault.case)]  # not scikit-learn's
    quick = [check for check in ours if check.name not in SLOW]
    failed = {check.name for check in quick if run_check(fault.case, check).outcome == "failed"}
    assert failed - {fault.check} == fault.also


def test_what_a_module_changes_and_prints_at_its_import_is_told_all_at_once() -> None:
    (fault,) = [f for f in ALONE if "meddles" in f.text]
    told = run_check(fault.case, all_checks()["check_import_alone"]).text
    found = told.removeprefix("AssertionError: import bad_imports.meddles ").split("; ")
    found.remove("changes the attribute torch.Storage")  # follows the default dtype
    assert found == [
        "changes the number of torch threads",
        "changes torch's default dtype",
        "changes torch's random state",
        "changes numpy's random state",
        "changes Python's random state",
        "changes the import path",
        "changes the root logger",
        "changes how processes start",
        "changes running threads",
        "changes the environment variable NIDL_MEDDLES",
        "changes the attribute torch.nn.functional.relu",
        "changes the attribute Module.__call__",
        "changes the warning filters",
        r"prints 'a greeting\nand another'",
    ]


@pytest.mark.parametrize("module", ["good_estimator", "torch._dynamo"])
def test_what_lightning_and_dynamo_change_is_not_the_doing_of_who_imports_them(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_larger", set())
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    case = named("import_alone", "any", f"{module}:Any").case
    found = run_check(case, all_checks()["check_import_alone"])
    assert found.outcome == "passed", found.text
    assert alone._larger == {module.partition(".")[0]}  # looked at twice, and not again


def test_a_global_that_was_changed_at_run_time_is_missed_in_a_fresh_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = all_checks()["check_fresh_process"]
    sound = Case("encoders", bad_networks.FromAGlobal, shapes=SMALL)
    assert run_check(sound, check).outcome == "passed"

    monkeypatch.setitem(bad_networks.WIDTHS, "huge", 9)  # as a script would, in its own process
    case = Case("encoders", bad_networks.FromAGlobal, {"size": "huge"}, SMALL)
    found = run_check(case, check)
    assert (found.outcome, "KeyError: 'huge'" in found.text) == ("failed", True), found.text
    ours = [c for c in checks_for(case) if c.name not in SLOW]
    assert [c.name for c in ours if run_check(case, c).outcome == "failed"] == []


def test_control_flow_that_depends_on_values_is_no_fault() -> None:
    case = Case("encoders", bad_networks.LooksAtValues, shapes=SMALL)
    found = run_check(case, all_checks()["check_device"])
    assert found.outcome == "skipped"
    assert found.text.startswith("the device meta has no values, and it looks at some")


def test_a_sound_model_is_saved_and_loaded_by_name(loopback: str) -> None:
    found = run_check(Case("estimators", "auto_encoder"), all_checks()["check_saved_model"])
    assert found.outcome == "passed", found.text


def test_what_a_model_file_lacks_is_caught(loopback: str) -> None:
    found = run_check(Case("estimators", "plain_statistic"), all_checks()["check_saved_model"])
    assert found.outcome == "failed"
    assert "the loaded model transforms otherwise" in found.text


def test_a_fault_that_scikit_learn_knows_is_caught_by_its_check() -> None:
    name = "check_estimators_overwrite_params"
    outcomes = {}
    for cls in (AutoEncoder, bad_estimators.ChangesItsParameters):
        case = Case("estimators", cls, shapes=[(6,)])
        (check,) = [c for c in checks_for(case) if c.name == name]
        outcomes[cls.__name__] = run_check(case, check)
    assert outcomes["AutoEncoder"].outcome == "passed"
    assert outcomes["ChangesItsParameters"].outcome == "failed"
    assert "should not change or mutate  the parameter lr" in outcomes["ChangesItsParameters"].text


@cache
def of_the_sound(cls: type[Any], check: str) -> Result:
    case = cases_of(kind_of(cls), cls)[0]
    if case.kind != "estimators":
        case = dataclasses.replace(case, shapes=SMALL)
    return run_check(case, all_checks()[check])
