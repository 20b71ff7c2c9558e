"""One fit: quiet defaults, one seed, the caller's world as it was."""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nidl_core import hooks
from nidl_core.errors import DataError, DataTypeError, InvalidParameter, NonFiniteError
from nidl_core.history import History
from nidl_core.hooks import hookimpl
from nidl_core.training import DEFAULT_EPOCHS, FitGuard, trainer_arguments

CPU = {"accelerator": "cpu", "random_state": 0}


class At(Callback):
    """Does something when a training batch of this number begins."""

    def __init__(self, number: int, act: Any) -> None:
        self.number, self.act = number, act

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.number:
            self.act(pl_module)


def raising(error: BaseException) -> Any:
    def act(module: Any) -> None:
        torch.rand(3), np.random.rand(), random.random()
        raise error

    return act


def world() -> tuple[Any, ...]:
    """What a fit must leave as it was."""
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        os.environ.get("PL_GLOBAL_SEED"),
        signal.getsignal(signal.SIGINT),
        [logging.getLogger(f"lightning.{p}").level for p in ("pytorch", "fabric")],
        list(warnings.filters),
        os.getcwd(),
    )


def weights(estimator: Any) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in estimator.state_dict().items()}


def arguments(
    given: dict[str, Any], *, validates: bool = False, guard: Any = None
) -> dict[str, Any]:
    return trainer_arguments(None, given, guard or Callback(), validates=validates)


# Defaults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "epochs"),
    [
        ({}, DEFAULT_EPOCHS),
        ({"max_epochs": None}, DEFAULT_EPOCHS),
        ({"max_steps": -1}, DEFAULT_EPOCHS),
        ({"max_epochs": 3}, 3),
        ({"max_epochs": -1}, -1),
        ({"max_steps": 3}, None),
        ({"max_time": "00:00:01:00"}, None),
        ({"max_epochs": None, "max_steps": 5}, None),
    ],
)
def test_nothing_that_limits_training_means_100_epochs(given: Any, epochs: Any) -> None:
    assert DEFAULT_EPOCHS == 100
    assert arguments(given).get("max_epochs") == epochs


def test_a_fit_without_a_limit_has_100_epochs(tiny: Any, x: Tensor) -> None:
    assert len(tiny(**CPU).fit(x).history_) == 100


def test_defaults_write_and_print_nothing_and_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found = arguments({})
    assert found["logger"] is False
    assert found["enable_checkpointing"] is False
    assert found["enable_model_summary"] is False
    assert found["limit_val_batches"] == 0
    assert "limit_val_batches" not in arguments({}, validates=True)
    given = {"logger": True, "enable_checkpointing": True, "enable_model_summary": True}
    assert given.items() <= arguments(given).items()


@pytest.mark.parametrize("tty", [True, False])
def test_a_progress_bar_is_for_terminals_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, tty: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty, raising=False)
    assert arguments({})["enable_progress_bar"] is tty
    assert arguments({"enable_progress_bar": not tty})["enable_progress_bar"] is not tty


@pytest.mark.parametrize("val", [False, True])
def test_a_fit_writes_and_prints_nothing(
    tiny: Any, x: Tensor, val: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny(max_epochs=2, **CPU).fit(x, val=x[:3] if val else None)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_the_user_asks_lightning_to_say_is_said(
    tiny: Any, x: Tensor, capsys: pytest.CaptureFixture[str], caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    caplog.set_level(logging.INFO, logger="lightning.pytorch")
    watched = EarlyStopping("train/loss", verbose=True)
    tiny(max_epochs=2, callbacks=watched, enable_model_summary=True, **CPU).fit(x)
    assert "Total params" in capsys.readouterr().out + caplog.text  # with rich, or without
    assert "Metric train/loss improved" in caplog.text
    assert "GPU available" not in caplog.text


def test_an_early_stopping_that_stopped_one_fit_does_not_stop_the_next_or_a_clones(
    tiny: Any, x: Tensor
) -> None:
    watched = EarlyStopping("train/loss", patience=1, min_delta=1e9)
    estimator = tiny(max_epochs=9, callbacks=[watched], **CPU).fit(x)
    epochs = len(estimator.history_)
    assert epochs < 9
    assert len(estimator.fit(x).history_) == epochs
    assert len(clone(estimator).fit(x).history_) == epochs
    estimator._given["callbacks"].append(Timer())
    assert len(estimator.fit(x).history_) == epochs  # a list that has grown is no error


def test_checkpoints_are_written_only_when_asked_for(
    tiny: Any, x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ModelCheckpoint(dirpath=tmp_path / "asked", filename="model")
    assert arguments({"callbacks": asked})["enable_checkpointing"] is True
    estimator = tiny(max_epochs=1, callbacks=[asked], **CPU).fit(x)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.ckpt")] == ["asked/model.ckpt"]
    loaded = torch.load(tmp_path / "asked/model.ckpt", weights_only=True)
    assert weights(estimator) == {n: v.flatten().tolist() for n, v in loaded["state_dict"].items()}


@pytest.mark.parametrize(
    "wrap", [lambda c: c, lambda c: [c], lambda c: (c,)], ids=["alone", "list", "tuple"]
)
def test_callbacks_of_the_user_come_before_those_of_the_core_and_stay_the_users(wrap: Any) -> None:
    mine, guard = Callback(), Callback()
    given = {"callbacks": wrap(mine)}
    found = arguments(given, guard=guard)["callbacks"]
    assert found[0] is mine
    assert found[-1] is guard
    assert any(isinstance(c, History) for c in found)
    assert given == {"callbacks": wrap(mine)}


def test_hook_plugins_add_callbacks(tiny: Any, x: Tensor) -> None:
    seen = []

    class Plugin:
        @hookimpl
        def nidl_fit_callbacks(self, estimator: Any) -> Any:
            return [At(0, lambda module: seen.append((module, estimator)))]

    class Silent:
        @hookimpl
        def nidl_fit_callbacks(self) -> None:
            return None

    with hooks.temporary(Plugin()), hooks.temporary(Silent()):
        estimator = tiny(max_epochs=1, **CPU).fit(x)
    assert seen == [(estimator, estimator)]


# Data ---------------------------------------------------------------------------------------------


def test_each_kind_of_input_trains_alike(tiny: Any, x: Tensor) -> None:
    class Plain(Dataset[Any]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> Any:
            return x[i], i

    reference = weights(tiny(max_epochs=3, batch_size=4, **CPU).fit(x))
    for data in (
        x.numpy(),
        x.double(),
        x.double().numpy(),
        TensorDataset(x, x),
        Plain(),
        x.mT.contiguous().mT,
    ):
        assert weights(tiny(max_epochs=3, batch_size=4, **CPU).fit(data)) == reference


def test_a_loader_of_the_users_own_is_trained_on_as_it_is(tiny: Any, x: Tensor) -> None:
    sizes: list[int] = []

    class Sizes(Callback):
        def on_train_batch_start(
            self, trainer: Any, module: Any, batch: Any, batch_idx: int
        ) -> None:
            sizes.append(len(batch[0]))

    loader = DataLoader(TensorDataset(x, torch.arange(10)), batch_size=3)
    tiny(max_epochs=1, callbacks=Sizes(), **CPU).fit(loader)
    assert sizes == [3, 3, 3, 1]


@pytest.mark.parametrize("how", ["val", "second", "page names", "second by keyword"])
def test_validation_data_come_by_each_of_their_names(tiny: Any, x: Tensor, how: str) -> None:
    estimator, loader = tiny(max_epochs=1, **CPU), DataLoader(x[:3])
    if how == "val":
        estimator.fit(x, val=x[:3])
    elif how == "second":
        estimator.fit(DataLoader(x), loader)
    elif how == "page names":
        estimator.fit(train_dataloader=DataLoader(x), val_dataloader=loader)
    else:
        estimator.fit(DataLoader(x), val_dataloader=loader)
    assert set(estimator.history_[0]) == {"epoch", "train/loss", "val/loss"}


@pytest.mark.parametrize("y", [None, np.arange(10), list(range(10)), torch.arange(10)])
def test_labels_in_second_place_are_ignored(tiny: Any, x: Tensor, y: Any) -> None:
    assert "val/loss" not in tiny(max_epochs=1, **CPU).fit(x, y).history_[0]


def test_fit_without_data_says_so(tiny: Any) -> None:
    with pytest.raises(DataTypeError, match="fit needs data"):
        tiny().fit()


def test_validation_figures_are_exact_means_over_rows(tiny: Any, x: Tensor) -> None:
    estimator = tiny(max_epochs=1, batch_size=4, lr=1e-12, **CPU).fit(x, val=x)
    with torch.no_grad():
        expected = float(estimator.loss(x))
    assert estimator.history_[0]["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert estimator.history_[0]["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_second_fit_may_have_another_shape(tiny: Any, x: Tensor) -> None:
    estimator = tiny(max_epochs=1, **CPU).fit(x)
    assert estimator.input_shape_ == (1, 2, 3)
    estimator.fit(torch.ones(4, 7))
    assert estimator.input_shape_ == (7,)
    assert estimator.transform(torch.ones(2, 7)).shape == (2, 3)


# Seeds --------------------------------------------------------------------------------------------


def test_one_random_state_gives_the_same_weights_whatever_the_global_one(
    tiny: Any, x: Tensor
) -> None:
    fits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        fits.append(weights(tiny(max_epochs=3, batch_size=4, **CPU).fit(x)))
    assert fits[0] == fits[1]
    other = tiny(max_epochs=3, batch_size=4, accelerator="cpu", random_state=1).fit(x)
    assert weights(other) != fits[0]
    assert other.seed_ == 1


def test_no_random_state_is_fresh_entropy_and_said(tiny: Any, x: Tensor, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="nidl_core")
    fits = []
    for _ in range(2):
        torch.manual_seed(1)
        fits.append(tiny(max_epochs=1, accelerator="cpu").fit(x))
    assert weights(fits[0]) != weights(fits[1])
    assert f"(here {fits[0].seed_}, kept in seed_)" in caplog.text
    again = tiny(max_epochs=1, accelerator="cpu", random_state=fits[0].seed_).fit(x)
    assert weights(again) == weights(fits[0])


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_a_numpy_generator_moves_on_with_every_fit(tiny: Any, x: Tensor, make: Any) -> None:
    estimator = tiny(max_epochs=1, accelerator="cpu", random_state=make(3))
    first = estimator.fit(x).seed_
    second = estimator.fit(x).seed_
    assert first != second
    assert tiny(max_epochs=1, accelerator="cpu", random_state=make(3)).fit(x).seed_ == first


@pytest.mark.parametrize(
    "error", [None, ValueError("a callback failed"), KeyboardInterrupt(), SystemExit(3)], ids=repr
)
def test_a_fit_leaves_the_callers_world_as_it_was(tiny: Any, x: Tensor, error: Any) -> None:
    callbacks = [At(1, raising(error))] if error else []
    estimator = tiny(max_epochs=3, callbacks=callbacks, **CPU)
    torch.manual_seed(11)
    before = world()
    if error is None:
        estimator.fit(x, val=x)
    else:
        with pytest.raises(type(error)):
            estimator.fit(x, val=x)
    assert world() == before
    assert estimator._trainer is None
    assert estimator.inference_seed is None
    assert all(p.grad is None for p in estimator.parameters())


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_fit_leaves_the_estimator_unfitted(tiny: Any, x: Tensor, error: Any) -> None:
    estimator = tiny(max_epochs=3, **CPU).fit(x)
    reference = weights(estimator)
    estimator.set_params(callbacks=[At(1, raising(error))])
    with pytest.raises(type(error)):
        estimator.fit(x)
    with pytest.raises(NotFittedError):
        estimator.transform(x)
    estimator.set_params(callbacks=None, warm_start=True)  # nothing to go on from: anew
    assert weights(estimator.fit(x)) == reference


def test_warm_start_goes_on_and_a_plain_fit_begins_anew(tiny: Any, x: Tensor) -> None:
    once = weights(tiny(max_epochs=2, **CPU).fit(x))
    twice = tiny(max_epochs=2, **CPU).fit(x)
    assert weights(twice.fit(x)) == once
    warm = tiny(max_epochs=2, warm_start=True, **CPU).fit(x)
    assert weights(warm) == once
    loss = warm.history_[-1]["train/loss"]
    warm.fit(x)
    assert weights(warm) != once
    assert warm.history_[0]["train/loss"] < loss


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_fit_ends_as_one_that_never_stopped(tiny: Any, x: Tensor, tmp_path: Path) -> None:
    whole = tiny(max_epochs=4, batch_size=4, **CPU).fit(x)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="half")
    tiny(max_epochs=2, batch_size=4, callbacks=[keep], **CPU).fit(x)
    resumed = tiny(max_epochs=4, batch_size=4, callbacks=[keep], **CPU)
    resumed.fit(x, ckpt_path=tmp_path / "half.ckpt")
    assert weights(resumed) == weights(whole)
    assert resumed.history_ == whole.history_


def test_validation_has_the_seed_of_the_fit_and_training_has_none(tiny: Any, x: Tensor) -> None:
    seen: dict[str, set[Any]] = {"train": set(), "val": set()}

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            seen["train"].add(module.inference_seed)

        def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            seen["val"].add(module.inference_seed)

    tiny(max_epochs=2, callbacks=[Watch()], accelerator="cpu", random_state=5).fit(x, val=x)
    assert seen == {"train": {None}, "val": {5}}


# What goes wrong ----------------------------------------------------------------------------------


def test_a_loss_that_diverges_stops_with_epoch_step_and_causes(tiny: Any, x: Tensor) -> None:
    estimator = tiny(max_epochs=200, lr=1e4, **CPU)
    with pytest.raises(NonFiniteError) as caught:
        estimator.fit(x * 1e4)
    error = caught.value
    assert 0 < error.epoch == error.step < 200  # one batch an epoch
    assert f"is not finite at epoch {error.epoch}, step {error.step}." in str(error)
    assert "data of large scale" in str(error)
    assert "a learning rate that is too high" in str(error)
    with pytest.raises(NotFittedError):
        estimator.transform(x)


def test_a_last_step_that_ruins_the_weights_is_told(tiny: Any, x: Tensor) -> None:
    with pytest.raises(NonFiniteError, match="^a weight is not finite at epoch"):
        tiny(max_epochs=1, lr=math.inf, **CPU).fit(x)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_in_a_batch_of_a_loader_is_told_as_what_it_is(tiny: Any, x: Tensor, bad: float) -> None:
    spoilt = x.clone()
    spoilt[5] = bad
    with pytest.raises(NonFiniteError) as caught:
        tiny(max_epochs=3, **CPU).fit(DataLoader(spoilt, batch_size=2))
    assert (caught.value.epoch, caught.value.step) == (0, 2)
    assert caught.value.causes == [
        "the batch itself contains NaN or infinite values: clean or impute the data"
    ]


def test_nan_is_told_whatever_form_an_estimators_own_batches_have(tiny: Any, x: Tensor) -> None:
    class OfDicts(type(tiny())):  # type: ignore[misc]
        def as_input(self, batch: Any) -> Tensor:
            return super().as_input(batch["image"] if isinstance(batch, dict) else batch)

    bad = x.clone()
    bad[-1] = math.nan
    batches = [{"image": part} for part in bad.split(4)]

    estimator = OfDicts(max_epochs=1, **CPU).fit(x)
    guard = FitGuard(0, None, None)
    guard._batch = batches[-1]
    with pytest.raises(NonFiniteError, match="the batch itself contains NaN"):
        guard.explain(ValueError("from a distribution"), estimator)


def test_half_precision_is_named_among_the_causes(tiny: Any, x: Tensor) -> None:
    with pytest.raises(NonFiniteError, match="half precision"):
        tiny(max_epochs=300, lr=1e5, precision="bf16-mixed", **CPU).fit(x)


def test_the_first_batch_is_checked_once_as_the_networks_see_it(tiny: Any, x: Tensor) -> None:
    seen: list[Any] = []

    class Picky(tiny):  # type: ignore[misc]
        def check_batch(self, x: Tensor) -> None:
            seen.append((x.dtype, tuple(x.shape), x.is_contiguous()))

    Picky(max_epochs=2, batch_size=4, **CPU).fit(x.double().mT.contiguous().mT)
    assert seen == [(torch.float32, (4, 1, 2, 3), True)]

    class Refusing(tiny):  # type: ignore[misc]
        def check_batch(self, x: Tensor) -> None:
            raise DataError("not for me")

    with pytest.raises(DataError, match="not for me"):
        Refusing(max_epochs=1, **CPU).fit(x)


def test_complex_batches_are_refused(tiny: Any) -> None:
    with pytest.raises((DataError, TypeError), match="omplex"):
        tiny(max_epochs=1, **CPU).fit(DataLoader(torch.ones(4, 3, dtype=torch.complex64)))


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"batch_size": 0}, "batch_size must be an int >= 1, got batch_size=0."),
        ({"batch_size": 2.5}, "batch_size must be an int >= 1, got batch_size=2.5."),
        ({"batch_size": True}, "batch_size must be an int >= 1, got batch_size=True."),
        ({"num_workers": -1}, "num_workers must be an int >= 0, got num_workers=-1."),
        ({"random_state": -1}, "random_state must be in [0, 2**32), got random_state=-1."),
        (
            {"random_state": "0"},
            "random_state must be an int, None, or a numpy RandomState or Generator, got "
            "random_state='0'.",
        ),
    ],
)
def test_impossible_values_are_told_at_fit_by_name(
    tiny: Any, x: Tensor, params: Any, text: str
) -> None:
    estimator = tiny(**params)
    with pytest.raises(InvalidParameter) as caught:
        estimator.fit(x)
    assert str(caught.value) == text


def test_trainer_arguments_are_lightnings_own(tiny: Any, x: Tensor) -> None:
    estimator = tiny(max_steps=3, batch_size=2, gradient_clip_val=0.5, **CPU).fit(x)
    assert len(estimator.history_) == 1
    seen: list[Trainer] = []
    at = At(0, lambda module: seen.append(module.trainer.gradient_clip_val))
    estimator.set_params(callbacks=[at]).fit(x)
    assert seen == [0.5]
