"""Other processes: kept while they answer, replaced when they die or may wait for ever."""

from __future__ import annotations

import os
import sys
import time

import elsewhere
import pytest
import torch

from nidl_core.testing import Case, NotApplicable, processes
from nidl_core.testing.catalogue import Check, all_checks
from nidl_core.testing.processes import ProcessError, fresh, pair, spawned
from nidl_core.testing.running import run_check


def test_one_process_serves_all_tasks_also_after_a_failure() -> None:
    there, given = spawned(elsewhere.process, 1, torch.ones(2))
    assert there != os.getpid()
    assert given[0] == 1 and torch.equal(given[1], torch.ones(2))
    with pytest.raises(ProcessError, match="(?s)in another process:.*ValueError: meddled"):
        spawned(elsewhere.meddle)
    assert spawned(elsewhere.default_dtype) is torch.float32  # what it changed is put back
    assert spawned(elsewhere.process)[0] == there


def test_what_cannot_be_pickled_is_told_and_does_no_harm() -> None:
    there, _ = spawned(elsewhere.process)
    with pytest.raises(ProcessError, match="cannot be sent to a spawned process"):
        spawned(elsewhere.process, lambda: None)
    assert spawned(elsewhere.process)[0] == there


def test_an_answer_that_cannot_be_pickled_is_told() -> None:
    with pytest.raises(ProcessError, match="in another process"):
        spawned(elsewhere.process, elsewhere.Unanswerable())


def test_a_process_that_dies_is_a_failed_check_and_the_next_check_has_a_new_one() -> None:
    def check_it(case: Case) -> None:
        spawned(elsewhere.process, elsewhere.Deadly())

    there, _ = spawned(elsewhere.process)
    case = Case("encoders", "any")
    found = run_check(case, Check("check_it", check_it, ("encoders",), frozenset({"eager"})))
    assert found.outcome == "failed"
    assert found.text == "ProcessError: another process died with status 3, without a word"
    assert spawned(elsewhere.process)[0] != there


def test_a_task_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TIMEOUT", 0.2)
    with pytest.raises(ProcessError, match="no answer from another process within 0.2 s"):
        spawned(time.sleep, 600)
    assert 1 not in processes._teams


def test_a_pair_goes_on_after_a_failure_and_nothing_of_it_reaches_the_next_task() -> None:
    there = [one for one, _ in pair(elsewhere.process)]
    assert pair(elsewhere.sum_of_ranks) == [1.0, 1.0]
    with pytest.raises(ProcessError, match="ValueError: both failed"):
        pair(elsewhere.leave_in_the_middle)
    assert pair(elsewhere.sum_of_ranks) == [1.0, 1.0]
    assert [one for one, _ in pair(elsewhere.process)] == there


def test_a_pair_of_which_one_waits_for_the_other_for_ever_is_given_up() -> None:
    start = time.monotonic()
    with pytest.raises(ProcessError, match="ValueError: one failed"):
        pair(elsewhere.rank_one_fails)
    assert time.monotonic() - start < 60
    assert 2 not in processes._teams


def test_what_other_processes_cannot_import_is_told_in_words() -> None:
    class Local(elsewhere.torch.nn.Module):
        pass

    case = Case("encoders", Local)
    for name in ("check_fresh_process", "check_ddp"):
        found = run_check(case, all_checks()[name])
        assert found.outcome == "skipped"
        assert found.text == "the class cannot be imported from another process"
    assert issubclass(NotApplicable, Exception)


def test_a_fresh_process_sees_the_path_of_this_one_and_nothing_of_the_working_directory(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in (("seen", "on_path"), ("unseen", ".")):
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/nidl_{name}.py", "w") as file:
            file.write(f"print({name!r})")
    monkeypatch.syspath_prepend(os.path.abspath("on_path"))
    assert fresh("nidl_seen").stdout == "seen\n"
    if sys.version_info >= (3, 11):
        assert "No module named nidl_unseen" in fresh("nidl_unseen").stderr


def test_a_fresh_process_that_never_ends_is_given_up(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.path.join(tmp_path, "nidl_sleeps.py"), "w") as file:
        file.write("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    monkeypatch.setattr(processes, "TIMEOUT", 0.5)
    with pytest.raises(ProcessError, match="a fresh process did not end within 0.5 s"):
        fresh("nidl_sleeps")
