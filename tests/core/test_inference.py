"""Inference: every row once, in order, in evaluation mode, and nothing left behind."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nidl_core import inference
from nidl_core.errors import DataError, ShapeError
from nidl_core.inference import device_for, evaluating, infer, share


@pytest.fixture
def fitted(tiny: Any, x: Tensor) -> Any:
    """A fitted estimator, on the CPU."""
    return tiny(max_epochs=1, accelerator="cpu", random_state=0, batch_size=4).fit(x)


def states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_evaluating_restores_the_mode_of_every_submodule() -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(1)))
    net.train()
    net[1][1].eval()
    net[0].eval()
    modes = [m.training for m in net.modules()]
    assert len(set(modes)) == 2
    with evaluating(net):
        assert not any(m.training for m in net.modules())
    assert [m.training for m in net.modules()] == modes
    with pytest.raises(KeyboardInterrupt), evaluating(net):
        raise KeyboardInterrupt
    assert [m.training for m in net.modules()] == modes


def test_infer_works_without_gradients_in_evaluation_mode_with_a_seed(
    fitted: Any, x: Tensor
) -> None:
    seen = []

    def step(batch: Tensor, index: int) -> Tensor:
        seen.append(
            (len(batch), index, torch.is_grad_enabled(), fitted.training, fitted.inference_seed)
        )
        return batch.flatten(1) * fitted.back.bias.sum()

    fitted.train()
    before = states()
    out = infer(fitted, fitted.read(x), step)
    assert states() == before
    assert seen == [(4, 0, False, False, 0), (4, 1, False, False, 0), (2, 2, False, False, 0)]
    assert not out.requires_grad
    assert fitted.training
    assert fitted.inference_seed is None


def test_a_step_that_fails_leaves_no_trace(fitted: Any, x: Tensor) -> None:
    def step(batch: Tensor, index: int) -> Tensor:
        torch.rand(3), np.random.rand(), random.random()
        raise ZeroDivisionError

    before = states()
    with pytest.raises(ZeroDivisionError):
        infer(fitted, fitted.read(x), step)
    assert states() == before
    assert fitted.inference_seed is None
    assert fitted.training


def test_an_int_makes_the_noise_of_inference_repeatable(fitted: Any, x: Tensor) -> None:
    def draw() -> Tensor:
        return infer(fitted, fitted.read(x), lambda batch, _: torch.rand(len(batch), 1))

    assert torch.equal(draw(), draw())
    fitted.set_params(random_state=None)
    assert not torch.equal(draw(), draw())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_answers_come_back_as_float32(fitted: Any, x: Tensor, dtype: Any) -> None:
    out = infer(fitted, fitted.read(x), lambda batch, _: batch.flatten(1).to(dtype))
    assert out.dtype is (dtype if dtype.itemsize > 2 else torch.float32)


@pytest.mark.parametrize("shape", [(10, 1, 3, 2), (10, 2, 2, 3), (10, 6), (10, 1, 2, 3, 1)])
def test_rows_of_another_shape_are_refused_in_words(fitted: Any, shape: tuple[int, ...]) -> None:
    for data in (torch.zeros(shape), DataLoader(torch.zeros(shape), batch_size=3)):
        with pytest.raises(ShapeError) as caught:
            fitted.transform(data)
        got = (min(4 if isinstance(data, Tensor) else 3, shape[0]), *shape[1:])
        assert str(caught.value) == (
            f"this model takes data of shape (N, 1, 2, 3), got {got}. Give the data the channels and "
            "size that it was fitted on."
        )


def test_transform_gives_every_row_in_order_for_each_kind_of_input(fitted: Any, x: Tensor) -> None:
    expected = fitted.transform(x)
    assert expected.shape == (10, 3)
    assert isinstance(expected, Tensor)
    for data in (
        TensorDataset(x, torch.arange(10)),
        DataLoader(TensorDataset(x), batch_size=7),
        x.double(),
    ):
        found = fitted.transform(data)
        assert isinstance(found, Tensor)
        assert torch.allclose(found, expected, atol=1e-6)
    for array in (x.numpy(), x.double().numpy(), x.numpy()[::-1][::-1]):
        found = fitted.transform(array)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_transform_needs_a_fit(tiny: Any, x: Tensor) -> None:
    with pytest.raises(NotFittedError):
        tiny().transform(x)


def test_no_rows_are_an_error(fitted: Any) -> None:
    class Nothing:
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(DataError, match="there are no rows to work on"):
        fitted.transform(Nothing())


def test_nan_in_a_memory_mapped_file_is_refused_as_in_memory(
    fitted: Any, x: Tensor, tmp_path: Path
) -> None:
    array = x.numpy().copy()
    array[7] = np.nan
    np.save(tmp_path / "x.npy", array)
    for source in (array, tmp_path / "x.npy"):
        with pytest.raises(ValueError, match="NaN"):
            fitted.transform(source)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_answer_of_several_processes_is_in_order(
    fitted: Any, x: Tensor, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank's share is really computed; only the wire between the processes is made here."""
    data = fitted.read(x)
    alone = infer(fitted, data, fitted.transform_step)
    shares = {}

    def keep(parts: list[Any], own: Any) -> None:
        shares[rank] = own
        parts[:] = [shares.get(r, []) for r in range(world)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", keep)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda box: None)
    for rank in range(world):
        monkeypatch.setattr(inference, "share", lambda given, rank=rank: (rank, world))
        try:
            infer(fitted, data, fitted.transform_step)
        except (DataError, IndexError):
            assert rank < world - 1  # the other ranks' batches are not there yet
    rank = 0
    monkeypatch.setattr(inference, "share", lambda given: (0, world))
    assert torch.allclose(infer(fitted, data, fitted.transform_step), alone, atol=1e-6)
    assert sum(map(len, shares.values())) == 3


MANY = [
    ({}, False),
    ({"devices": 1}, False),
    ({"devices": "1"}, False),
    ({"devices": [1]}, False),
    ({"devices": "1,"}, False),
    ({"devices": "auto", "accelerator": "cpu"}, False),
    ({"devices": -1, "accelerator": "cpu"}, False),
    ({"devices": 2}, True),
    ({"devices": "2"}, True),
    ({"devices": [0, 1]}, True),
    ({"devices": "0,1"}, True),
    ({"num_nodes": 2}, True),
    ({"devices": 1, "num_nodes": 2}, True),
]


@pytest.mark.parametrize(("given", "many"), MANY)
def test_inference_is_shared_only_where_several_devices_were_asked_for(
    given: Any, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share(given) == (0, 1)  # without a process group there is nobody to share with
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 5)
    assert share(given) == ((3, 5) if many else (0, 1))


@pytest.mark.parametrize(
    ("given", "local_rank", "device"),
    [
        ({}, None, "cuda:0"),
        ({"accelerator": "auto"}, None, "cuda:0"),
        ({"accelerator": "gpu"}, None, "cuda:0"),
        ({"accelerator": "cuda", "devices": 1}, None, "cuda:0"),
        ({"accelerator": "gpu", "devices": [1]}, None, "cuda:1"),
        ({"accelerator": "gpu", "devices": "1,"}, None, "cuda:1"),
        ({"accelerator": "gpu", "devices": 2}, "1", "cuda:1"),
        ({"accelerator": "gpu", "devices": [2, 3]}, "1", "cuda:3"),
        ({"accelerator": "gpu", "devices": "2,3"}, "1", "cuda:3"),
        ({"devices": 1}, "1", "cuda:0"),
        ({"accelerator": "cpu"}, None, "cpu"),
        ({"accelerator": "cpu", "devices": 2}, "1", "cpu"),
        ({"accelerator": CPUAccelerator()}, None, "cpu"),
    ],
)
def test_the_device_is_the_one_that_the_trainer_arguments_ask_for(
    given: Any, local_rank: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    if local_rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert device_for(given) == torch.device(device)


@pytest.mark.parametrize(
    "given", [{}, {"accelerator": "auto"}, {"accelerator": "cpu"}, {"devices": 1}]
)
def test_without_an_accelerator_the_device_is_the_cpu(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_for(given) == torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        (None, torch.float32),
        ("32-true", torch.float32),
        (32, torch.float32),
        ("bf16-mixed", torch.bfloat16),
        ("bf16", torch.bfloat16),
        ("16-mixed", torch.float16),
        (16, torch.float16),
    ],
)
def test_autocast_is_that_of_the_fit(precision: Any, dtype: Any) -> None:
    with inference.autocast({"precision": precision}, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_transform_is_the_same_for_every_batch_size(fitted: Any, x: Tensor) -> None:
    answers = [fitted.set_params(batch_size=b).transform(x) for b in (1, 3, 10, 100)]
    for one, other in itertools.pairwise(answers):
        assert torch.allclose(one, other, atol=1e-6)
