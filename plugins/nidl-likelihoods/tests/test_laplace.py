"""Laplace: limits that the table in test_likelihoods does not reach."""

from __future__ import annotations

import math

import pytest
import torch

from nidl_likelihoods import Laplace


def test_learned_scale_never_falls_below_the_floor() -> None:
    p = Laplace("learned", min_scale=0.02)(torch.tensor([[0.0, -1e4]]))
    assert p.base_dist.scale.item() == pytest.approx(0.02, rel=1e-7)


def test_tiny_scale_is_exact() -> None:
    p = Laplace(scale=1e-25)(torch.zeros(1, 2))
    expected = -1 - 2 * math.log(2e-25)
    assert p.log_prob(torch.tensor([[0.0, -1e-25]])).item() == pytest.approx(expected, rel=1e-6)


def test_l1_loss_differs_by_the_dropped_constant() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mu = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64, generator=generator).unbind()
    constant = 2 * 5 * 4 * math.log(2)
    l1 = (x - mu).abs().flatten(1).sum(1)
    torch.testing.assert_close(-Laplace()(mu).log_prob(x), l1 + constant, rtol=1e-12, atol=0)
