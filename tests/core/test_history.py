"""What was logged, one row an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from nidl_core.history import History

CPU = {"accelerator": "cpu", "random_state": 0}


def test_one_row_an_epoch_of_plain_numbers(tiny: Any, x: Tensor) -> None:
    history = tiny(max_epochs=3, lr=0.1, **CPU).fit(x, val=x).history_
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert all(set(row) == {"epoch", "train/loss", "val/loss"} for row in history)
    assert {type(value) for row in history for value in row.values()} == {int, float}
    assert history == json.loads(json.dumps(history))
    losses = [row["train/loss"] for row in history]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 3


def test_validation_figures_stand_in_the_row_of_their_epoch(tiny: Any, x: Tensor) -> None:
    seen = []

    class Watch(Callback):
        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            if not trainer.sanity_checking:
                with torch.no_grad():
                    seen.append(float(module.loss(x)))

    history = tiny(max_epochs=3, lr=0.1, callbacks=Watch(), **CPU).fit(x, val=x).history_
    torch.testing.assert_close([row["val/loss"] for row in history], seen)


def test_every_fit_has_a_history_of_its_own(tiny: Any, x: Tensor) -> None:
    estimator = tiny(max_epochs=2, **CPU).fit(x)
    first = estimator.history_
    kept = list(first)
    estimator.fit(x)
    assert first == kept == estimator.history_
    assert first is not estimator.history_


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_rows_travel_in_checkpoints_and_a_resumed_fit_has_them_all(
    tiny: Any, x: Tensor, tmp_path: Path
) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="half")
    first = tiny(max_epochs=2, callbacks=[keep], **CPU).fit(x).history_
    path = tmp_path / "half.ckpt"
    torch.load(path, weights_only=True)
    resumed = tiny(max_epochs=3, callbacks=[keep], **CPU).fit(x, ckpt_path=path).history_
    assert resumed[:2] == first
    assert [row["epoch"] for row in resumed] == [0, 1, 2]


def test_state_is_the_rows() -> None:
    one, other = History(), History()
    one.rows.append({"epoch": 0, "train/loss": 1.5})
    other.load_state_dict(one.state_dict())
    assert other.rows == [{"epoch": 0, "train/loss": 1.5}]
