"""What the core asks plugins in a fit, for data and for a model file, and what their faults do to it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from sklearn.base import BaseEstimator
from torch import Tensor

from nidl_core import hooks
from nidl_core.data import as_data
from nidl_core.errors import DataError, DataTypeError
from nidl_core.history import History
from nidl_core.hooks import hookimpl, temporary
from nidl_core.training import trainer_arguments

CPU = {"accelerator": "cpu", "random_state": 0, "max_epochs": 1}


@pytest.fixture(autouse=True)
def no_faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hooks, "faults", {})
    monkeypatch.delenv("NIDL_STRICT_PLUGINS", raising=False)
    return


class Adds:
    """Adds to a fit, or raises."""

    def __init__(self, callbacks: Any = None, loggers: Any = None, facts: Any = None) -> None:
        self.answers = {"callbacks": callbacks, "loggers": loggers, "facts": facts}

    def answer(self, what: str) -> Any:
        answer = self.answers[what]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @hookimpl
    def nidl_fit_callbacks(self) -> Any:
        return self.answer("callbacks")

    @hookimpl
    def nidl_fit_loggers(self) -> Any:
        return self.answer("loggers")

    @hookimpl
    def nidl_model_facts(self) -> Any:
        return self.answer("facts")


def loggers(given: dict[str, Any]) -> Any:
    return trainer_arguments(None, given, Callback(), validates=False)["logger"]


# Loggers ------------------------------------------------------------------------------------------


def test_loggers_of_plugins_are_used_in_a_fit(tiny: Any, x: Tensor, tmp_path: Path) -> None:
    with temporary(Adds(loggers=[CSVLogger(tmp_path, name="", version="")])):
        tiny(log_every_n_steps=1, **CPU).fit(x)
    assert "train/loss" in (tmp_path / "metrics.csv").read_text()


@pytest.mark.parametrize("given", [{}, {"logger": None}], ids=["nothing", "None"])
def test_loggers_of_plugins_come_alone_if_the_user_said_nothing(
    given: dict[str, Any], tmp_path: Path
) -> None:
    added = [CSVLogger(tmp_path), CSVLogger(tmp_path)]
    with temporary(Adds(loggers=added)):
        assert loggers(given) == added
    assert loggers(given) is False


@pytest.mark.parametrize("given", [{"logger": False}, {"barebones": True}], ids=str)
def test_a_user_who_wants_none_gets_none(given: dict[str, Any], tmp_path: Path) -> None:
    with temporary(Adds(loggers=[CSVLogger(tmp_path)])):
        assert loggers(given) is False


@pytest.mark.parametrize("wrap", [lambda g: g, lambda g: [g], lambda g: iter([g])])
def test_loggers_of_plugins_come_after_the_users(wrap: Any, tmp_path: Path) -> None:
    mine, added = CSVLogger(tmp_path), CSVLogger(tmp_path)
    with temporary(Adds(loggers=[added])):
        assert loggers({"logger": wrap(mine)}) == [mine, added]
    assert loggers({"logger": mine}) is mine


def test_true_is_lightnings_default_logger_and_those_of_plugins(tmp_path: Path) -> None:
    added = CSVLogger(tmp_path)
    with temporary(Adds(loggers=[added])):
        default, other = loggers({"logger": True, "default_root_dir": tmp_path})
    assert isinstance(default, (CSVLogger, TensorBoardLogger))
    assert Path(default.save_dir) == tmp_path
    assert other is added
    assert loggers({"logger": True}) is True


def test_a_trial_run_writes_no_log(tiny: Any, x: Tensor, tmp_path: Path) -> None:
    with temporary(Adds(loggers=[CSVLogger(tmp_path)])):
        tiny(fast_dev_run=True, **CPU).fit(x)
    assert list(tmp_path.iterdir()) == []


# Faults -------------------------------------------------------------------------------------------

ANSWERS = {
    "an exception": RuntimeError("no key"),
    "an exit": SystemExit(3),
    "no list": "junk",
    "a list of something else": [object()],
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_faulty_plugin_does_not_hurt_a_fit(
    tiny: Any, x: Tensor, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reference = tiny(**CPU).fit(x)
    good = Callback()
    with temporary(Adds([good])), temporary(Adds(answer, answer), "bad"):
        arguments = trainer_arguments(None, {}, Callback(), validates=False)
        estimator = tiny(**CPU).fit(x)
    assert any(callback is good for callback in arguments["callbacks"])
    assert any(isinstance(callback, History) for callback in arguments["callbacks"])
    assert arguments["logger"] is False
    assert hooks.faults["session:bad"].startswith("nidl_fit_loggers: ")
    told = {record.getMessage().partition(" and")[0] for record in caplog.records}
    assert told == {
        "hook plugin session:bad failed in nidl_fit_callbacks",
        "hook plugin session:bad failed in nidl_fit_loggers",
    }
    for name, value in reference.state_dict().items():
        assert value.equal(estimator.state_dict()[name])


def test_an_answer_of_the_wrong_kind_is_said_so() -> None:
    with temporary(Adds(loggers=Callback()), "bad"):
        assert loggers({}) is False
    assert hooks.faults["session:bad"].startswith(
        "nidl_fit_loggers: TypeError: it must give a list of Lightning's Logger, got <lightning."
    )
    assert issubclass(CSVLogger, Logger)


def test_strict_raises_out_of_the_fit(
    tiny: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIDL_STRICT_PLUGINS", "1")
    with temporary(Adds(callbacks=RuntimeError("no key"))), pytest.raises(RuntimeError, match="no"):
        tiny(**CPU).fit(x)
    with temporary(Adds(callbacks="junk")), pytest.raises(TypeError, match="must give a list"):
        tiny(**CPU).fit(x)


@pytest.mark.parametrize("answer", [RuntimeError("no key"), "junk", {"an object": object()}, [1]])
def test_a_faulty_plugin_does_not_hurt_a_saved_model(
    tiny: Any, x: Tensor, tmp_path: Path, answer: Any
) -> None:
    estimator = tiny(**CPU).fit(x)
    with temporary(Adds(facts={"scanner": "3T"})), temporary(Adds(facts=answer), "bad"):
        estimator.save(tmp_path / "m.nidl")
    facts = json.loads(zipfile.ZipFile(tmp_path / "m.nidl").read("nidl.json"))["facts"]
    assert facts["scanner"] == "3T"
    assert facts["torch"] == torch.__version__
    assert list(hooks.faults) == ["session:bad"]


def test_who_is_asked_first_has_the_say_over_facts(tiny: Any, x: Tensor, tmp_path: Path) -> None:
    estimator = tiny(**CPU).fit(x)
    with temporary(Adds(facts={"a": 1, "b": 1})), temporary(Adds(facts={"a": 2, "torch": "mine"})):
        estimator.save(tmp_path / "m.nidl")
    facts = json.loads(zipfile.ZipFile(tmp_path / "m.nidl").read("nidl.json"))["facts"]
    assert (facts["a"], facts["b"], facts["torch"]) == (2, 1, "mine")


# Data ---------------------------------------------------------------------------------------------


class Reads:
    """Turns a `Scan` into an array, or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def nidl_as_dataset(self, data: Any) -> Any:
        if not isinstance(data, (Scan, str, list)):
            return None
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Scan:
    pass


def read(data: Any) -> Any:
    return as_data(data, BaseEstimator(), reset=True)


def test_a_plugin_reads_what_the_core_does_not_know(tiny: Any) -> None:
    x = np.arange(12.0, dtype="float32").reshape(4, 1, 3)
    with temporary(Reads(x)), temporary(Reads(None)):
        assert tiny(**CPU).fit(Scan()).input_shape_ == (1, 3)


def test_after_one_that_fails_the_next_reads_it() -> None:
    with temporary(Reads(torch.ones(4, 3))), temporary(Reads(OSError("no header")), "bad"):
        assert read(Scan()).sample().shape == (1, 3)
    assert hooks.faults == {"session:bad": "nidl_as_dataset: OSError: no header"}


def test_one_that_says_mine_and_bad_has_the_last_word() -> None:
    bad = DataError("the scan ends after 3 of 5 volumes. Copy it again.")
    with (
        temporary(Reads(torch.ones(4, 3))),
        temporary(Reads(bad)),
        pytest.raises(DataError) as caught,
    ):
        read(Scan())
    assert caught.value is bad
    assert hooks.faults == {}


@pytest.mark.parametrize(
    "data", ["scan.unheard", Scan(), [["a", "b"]]], ids=["path", "object", "list"]
)
def test_if_nobody_reads_it_the_error_names_the_plugins_that_failed(data: Any) -> None:
    failure = OSError("no header")
    with (
        temporary(Reads(failure), "one"),
        temporary(Reads(KeyError("x")), "two"),
        pytest.raises(DataTypeError) as caught,
    ):
        read(data)
    assert str(caught.value).endswith(
        " Also, plugins failed in nidl_as_dataset: session:two (KeyError: 'x'); session:one (OSError: "
        "no header)."
    )
    cause = caught.value.__cause__
    assert cause is not None
    assert cause.__cause__ is failure


def test_what_the_core_can_read_itself_is_read_whoever_fails() -> None:
    with temporary(Reads(RuntimeError("no key"))):
        assert read([[1.0, 2.0], [3.0, 4.0]]).sample().tolist() == [[1.0, 2.0]]


def test_the_users_own_reads_before_the_core(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    with temporary(Reads(torch.ones(4, 3))):
        assert read(str(tmp_path / "x.npy")).sample().tolist() == [[1.0, 1.0, 1.0]]
    assert read(str(tmp_path / "x.npy")).sample().tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_is_a_data_error_with_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*x\.npy: "):
        read(tmp_path / "x.npy")
    assert hooks.faults == {}
