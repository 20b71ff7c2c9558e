"""What an interface asks for, and the supports of likelihoods."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from nidl_core import Decoder, Encoder, Estimator, Likelihood, Loss
from nidl_core.errors import DataError, ShapeError

RESCALE = (
    "Rescale the data, e.g. x = (x - x.min()) / (x.max() - x.min()), or choose likelihood='normal'."
)
THRESHOLD = "Threshold the data, e.g. x = (x > 0.5), or choose likelihood='normal'."
NAN, INF = math.nan, math.inf


class Gauss(Likelihood):
    def forward(self, theta: Tensor) -> Any:
        return Independent(Normal(theta, 1.0), theta.ndim - 1)


def gauss(support: str) -> Gauss:
    likelihood = Gauss()
    likelihood.support = support  # type: ignore[assignment]
    return likelihood


@pytest.mark.parametrize(
    ("support", "values"),
    [
        ("real", [-1e30, 0.0, 1e30]),
        ("positive", [1e-30, 3.0]),
        ("unit", [0.0, 0.5, 1.0]),
        ("binary", [0.0, 1.0]),
        ("count", [0.0, 1.0, 1e6]),
    ],
)
def test_check_lets_the_support_pass(support: str, values: list[float]) -> None:
    for dtype in (torch.float32, torch.float64):
        gauss(support).check(torch.tensor([values], dtype=dtype)[:, None])
    if support in ("binary", "count"):
        gauss(support).check(torch.tensor([[0, 1]]))


@pytest.mark.parametrize(
    ("support", "values", "text"),
    [
        (
            "positive",
            [0.0, 2.0],
            "Gauss takes values above 0, got values in [0, 2]. Shift the data, or choose likelihood='normal'.",
        ),
        (
            "unit",
            [-0.25, 1.0],
            f"Gauss takes values in [0, 1], got values in [-0.25, 1]. {RESCALE}",
        ),
        ("unit", [0.0, 255.0], f"Gauss takes values in [0, 1], got values in [0, 255]. {RESCALE}"),
        ("binary", [0.0, 0.5], f"Gauss takes values 0 and 1, got values in [0, 0.5]. {THRESHOLD}"),
        (
            "count",
            [0.0, 1.5],
            "Gauss takes counts 0, 1, 2, ..., got values in [0, 1.5]. Round the data, or choose "
            "likelihood='normal'.",
        ),
        (
            "count",
            [-1.0, 1.0],
            "Gauss takes counts 0, 1, 2, ..., got values in [-1, 1]. Round the data, or choose "
            "likelihood='normal'.",
        ),
        (
            "real",
            [0.0, INF],
            "Gauss takes finite values, got values in [0, inf]. Remove or impute NaN and infinite values.",
        ),
    ],
)
def test_check_refuses_what_is_outside_in_words_that_say_what_to_do(
    support: str, values: list[float], text: str
) -> None:
    with pytest.raises(DataError) as caught:
        gauss(support).check(torch.tensor([[values]]))
    assert str(caught.value) == text


@pytest.mark.parametrize("support", ["real", "positive", "unit", "binary", "count"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_no_support_contains_nan_or_infinity(support: str, bad: float) -> None:
    with pytest.raises(DataError):
        gauss(support).check(torch.tensor([[1.0, bad]]))


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("shape", [(), (4,), (3, 5), (2, 3, 4)], ids=str)
def test_split_gives_one_block_of_channels_for_each_parameter(
    parts: int, shape: tuple[int, ...]
) -> None:
    likelihood = gauss("real")
    likelihood.params_per_value = parts
    theta = torch.randn(7, parts * 2, *shape)
    blocks = likelihood.split(theta)
    assert len(blocks) == parts
    for i, block in enumerate(blocks):
        assert torch.equal(block, theta[:, 2 * i : 2 * i + 2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_split_ends_half_precision(dtype: torch.dtype) -> None:
    (block,) = gauss("real").split(torch.ones(2, 3, dtype=dtype))
    assert block.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)


@pytest.mark.parametrize(
    ("parts", "shape", "text"),
    [
        (
            2,
            (4, 3, 5),
            "Gauss() takes theta of shape (N, 2*C, *S), got (4, 3, 5): 3 channels are not a multiple of 2. "
            "Build the decoder with output_shape (2*C, *S), x being (N, C, *S).",
        ),
        (
            1,
            (4,),
            "Gauss() takes theta of shape (N, C, *S), got (4,). Build the decoder with output_shape "
            "(C, *S), x being (N, C, *S).",
        ),
    ],
)
def test_split_refuses_channels_that_do_not_divide(parts: int, shape: Any, text: str) -> None:
    likelihood = gauss("real")
    likelihood.params_per_value = parts
    with pytest.raises(ShapeError) as caught:
        likelihood.split(torch.zeros(shape))
    assert str(caught.value) == text


@pytest.mark.parametrize("interface", [Encoder, Decoder, Likelihood, Loss])
def test_an_interface_cannot_be_built_without_its_forward(interface: type) -> None:
    with pytest.raises(TypeError, match="forward"):
        interface()
    assert interface.__abstractmethods__ == {"forward"}  # type: ignore[attr-defined]


def test_a_subclass_needs_nothing_but_super_init() -> None:
    likelihood = Gauss()
    assert (likelihood.params_per_value, likelihood.support) == (1, "real")
    assert likelihood.observe(torch.zeros(2, 1), torch.zeros(2, 1)) is None
    assert likelihood(torch.zeros(2, 1, 3)).event_shape == (1, 3)
    assert pickle.loads(pickle.dumps(likelihood)).support == "real"


def test_an_estimator_without_build_networks_says_so() -> None:
    class Empty(Estimator):
        pass

    with pytest.raises(NotImplementedError, match="Empty does not define build_networks"):
        Empty().fit(torch.zeros(2, 3))
