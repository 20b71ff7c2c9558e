"""Bernoulli: soft targets, huge logits, and what `check` says."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import special

from nidl_core.errors import DataError
from nidl_likelihoods import Bernoulli

F32, F64 = torch.float32, torch.float64


def test_soft_targets_give_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    logits = 10 * rng.standard_normal((3, 2, 5, 4))
    x = rng.random((3, 2, 5, 4))
    expected = special.xlogy(x, special.expit(logits)) + special.xlogy(
        1 - x, special.expit(-logits)
    )
    actual = Bernoulli()(torch.from_numpy(logits)).log_prob(torch.from_numpy(x))
    np.testing.assert_allclose(actual, expected.sum(axis=(1, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(
    ("logit", "x", "expected"),
    [
        (1e4, 1.0, 0.0),
        (1e4, 0.0, -1e4),
        (-1e4, 0.0, 0.0),
        (-1e4, 1.0, -1e4),
        (1e4, 0.25, -7.5e3),
        (-1e4, 0.25, -2.5e3),
        (40.0, 1.0, -math.exp(-40)),  # log p = -log1p(exp(-l)): x·l - softplus(l) would give 0
        (-40.0, 0.0, -math.exp(-40)),
        (0.0, 1.0, -math.log(2)),
    ],
)
def test_huge_logits_are_exact(logit: float, x: float, expected: float, dtype: torch.dtype) -> None:
    theta = torch.full((1, 1), logit, dtype=dtype, requires_grad=True)
    actual = Bernoulli()(theta).log_prob(torch.full((1, 1), x, dtype=dtype))
    rel = 1e-15 if dtype == F64 else 1e-7
    assert actual.item() == pytest.approx(expected, rel=rel, abs=0)
    actual.backward()
    assert theta.grad is not None
    slope = x - special.expit(logit)
    assert theta.grad.item() == pytest.approx(slope, rel=1e-6, abs=1e-16)


def test_log_prob_is_never_above_zero() -> None:
    logits = torch.linspace(-200, 200, 100_001).unsqueeze(1)
    for x in (torch.zeros_like(logits), torch.ones_like(logits)):
        assert Bernoulli()(logits).log_prob(x).max() <= 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64], ids=str)
def test_masks_and_integers_are_taken_as_they_are(dtype: torch.dtype) -> None:
    logits = torch.linspace(-3, 4, 24).reshape(2, 1, 4, 3)
    x = (torch.arange(24).reshape(2, 1, 4, 3) % 3 == 0).to(dtype)
    p = Bernoulli()(logits)
    assert torch.equal(p.log_prob(x), p.log_prob(x.float()))


def test_half_precision_targets_lose_nothing() -> None:
    x = torch.full((1, 1), 2**-10, dtype=torch.bfloat16)  # 1 - x is 1 in bfloat16
    actual = Bernoulli()(torch.full((1, 1), 8.0)).log_prob(x).item()
    expected = 2**-10 * 8 - math.log1p(math.exp(8))
    assert actual == pytest.approx(expected, rel=1e-6)


def test_mean_is_the_sigmoid_and_samples_are_zero_or_one() -> None:
    logits = torch.linspace(-5, 5, 35, dtype=F64).reshape(1, 1, 5, 7)
    p = Bernoulli()(logits)
    np.testing.assert_allclose(p.mean, special.expit(logits.numpy()), rtol=1e-12)
    samples = p.sample((50,))
    assert samples.dtype == F64
    assert sorted(samples.unique().tolist()) == [0.0, 1.0]


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.0), (0.0, 255.0)])
def test_data_outside_the_unit_interval_are_refused(low: float, high: float) -> None:
    with pytest.raises(DataError) as info:
        Bernoulli().check(torch.tensor([[low, high]]))
    assert str(info.value) == (
        f"Bernoulli takes values in [0, 1], got values in [{low:g}, {high:g}]. Rescale the data, "
        "e.g. x = (x - x.min()) / (x.max() - x.min()), or choose likelihood='normal'."
    )


def test_soft_data_warn_once_an_instance() -> None:
    soft = torch.tensor([[0.0, 0.5, 1.0]])
    for likelihood in (Bernoulli(), Bernoulli()):
        with pytest.warns(UserWarning) as caught:
            likelihood.check(soft)
            likelihood.check(soft)
        assert [str(w.message) for w in caught] == [
            "Bernoulli got values between 0 and 1. What it computes is then a cross-entropy, not a "
            "likelihood of the data, and samples are still 0 or 1. For a likelihood threshold the "
            "data, e.g. x = (x > 0.5), or choose likelihood='normal'."
        ]
        assert caught[0].filename == __file__


def test_binary_data_warn_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Bernoulli().check(torch.tensor([[0.0, 1.0]]))
        Bernoulli().check(torch.tensor([[True, False]]))
