"""Checks of losses: named scalars, in float32 or better, that do not depend on the batch's size."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from nidl_core.seeding import preserved, seed_all
from nidl_core.testing.cases import Case
from nidl_core.testing.catalogue import check
from nidl_core.testing.subjects import Subject, subjects

KIND = "losses"
N = 4
_ARGUMENTS = ("p's mean", "q's mean", "q's deviation")


@check(KIND)
def check_figures(case: Case) -> None:
    """It gives a dict of finite scalars, "loss" among them, with a gradient to p and q."""
    for built in subjects(case):
        inputs = [x.requires_grad_() for x in built.inputs(N)]
        figures = _figures(built, *inputs)
        assert isinstance(figures, dict) and "loss" in figures, 'it gives no dict with "loss"'
        for name, value in figures.items():
            assert isinstance(value, Tensor) and value.ndim == 0, f"{name} is no scalar tensor"
            assert bool(value.isfinite()), f"{name} is {value}"
        gradients = torch.autograd.grad(figures["loss"], inputs[1:], allow_unused=True)
        for name, gradient in zip(_ARGUMENTS, gradients, strict=True):
            assert gradient is not None and bool(gradient.any()), f"the loss leaves out {name}"
            assert bool(gradient.isfinite().all()), f"its gradient to {name} is not finite"


@check(KIND)
def check_reduction(case: Case) -> None:
    """Figures are means over the batch: that of a batch is the mean of those of its samples."""
    for built in subjects(case):
        inputs = built.inputs(N, torch.float64)
        whole = _figures(built, *inputs)
        rows = [_figures(built, *(x[i : i + 1] for x in inputs)) for i in range(N)]
        for name, value in whole.items():
            mean = torch.stack([row[name] for row in rows]).mean()
            assert torch.isclose(value, mean, rtol=1e-9, atol=1e-9), (
                f"{name} of the batch is {float(value):.6g}, the mean over its samples {float(mean):.6g}"
            )


@check(KIND)
def check_autocast(case: Case) -> None:
    """Under autocast the figures are float32: a sum over a volume is too long for half precision."""
    for built in subjects(case):
        inputs = built.inputs(N)
        expected = _figures(built, *inputs)
        with torch.autocast(built.backend.device, dtype=torch.bfloat16):
            found = _figures(built, *inputs)
        for name, value in found.items():
            assert value.dtype == torch.float32, f"{name} is {value.dtype} under autocast"
            assert torch.isclose(value, expected[name], rtol=1e-5, atol=1e-5), (
                f"{name} is {float(value):.6g} under autocast, {float(expected[name]):.6g} without"
            )


def _figures(built: Subject, x: Tensor, mean: Tensor, loc: Tensor, raw: Tensor) -> dict[str, Any]:
    """As in `subjects.run_loss`, with z the mean of q: no noise between a batch and its rows.

    By a copy: a schedule that counts training steps is at the same step for all of them.
    """
    p: Distribution = Independent(Normal(mean, torch.ones_like(mean)), mean.ndim - 1)
    q = Normal(loc, torch.nn.functional.softplus(raw))
    with preserved():
        seed_all(0)
        figures: dict[str, Any] = copy.deepcopy(built.module)(x, p, q, q.mean)
    return figures
