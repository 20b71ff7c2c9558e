"""Components in other processes: data workers and spawned training processes."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import nidl_core
from nidl_core.errors import UnknownComponent
from nidl_core.interfaces import Encoder


class Mine(Encoder):
    """The smallest encoder."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out_features = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :1]


class Asks(Dataset[Any]):
    """Asks for a component by name in the process that it is read in."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Any:
        try:
            return nidl_core.encoders.get("mine").__name__
        except UnknownComponent as err:
            return str(err)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find this module, after what is installed."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])


WORKER = "This is a worker process: a name given by register() exists only in the process"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_data_workers_say_why_a_component_of_the_session_is_not_there(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    with nidl_core.encoders.temporary("mine", Mine):
        loader = DataLoader(Asks(), num_workers=1, multiprocessing_context=method)
        found = [batch[0] for batch in loader]
    if method == "fork":  # a copy of the process has what the process has
        assert found == ["Mine", "Mine"]
    else:
        assert len(found) == 2
        assert all(text.startswith("no encoder named 'mine'") and WORKER in text for text in found)


def _ask(rank: int, answers: Any) -> None:
    answers.put((rank, Asks()[0]))


def test_spawned_training_processes_say_so_too() -> None:
    context = torch.multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    with nidl_core.encoders.temporary("mine", Mine):
        torch.multiprocessing.spawn(_ask, args=(answers,), nprocs=2)
    told = dict(answers.get() for _ in range(2))
    assert set(told) == {0, 1}
    assert all(WORKER in text for text in told.values())
