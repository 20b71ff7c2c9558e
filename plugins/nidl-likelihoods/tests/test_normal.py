"""Normal: floors, limits, and the optimal scale in training, evaluation and two processes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from nidl_likelihoods import Normal

SHAPE = (4, 2, 5, 3)
D = 2 * 5 * 3


def batches(n: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    """Pairs of x and mu whose residuals differ in size from batch to batch."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            (1 + i % 7) * torch.randn(SHAPE, generator=generator, dtype=dtype),
            torch.randn(SHAPE, generator=generator, dtype=dtype),
        )
        for i in range(n)
    ]


def mean_square(x: Tensor, mu: Tensor) -> float:
    return float(np.mean((x.numpy() - mu.numpy()) ** 2))


def scale_of(likelihood: Normal) -> float:
    return likelihood(torch.zeros(1, 1, dtype=torch.float64)).stddev.item()


def test_fixed_scale_is_not_floored() -> None:
    assert scale_of(Normal(scale=1e-6, min_scale=0.1)) == 1e-6


def test_tiny_scale_is_exact_in_float32() -> None:
    p = Normal(scale=1e-25)(torch.zeros(1, 2))
    expected = -0.5 - 2 * math.log(1e-25) - math.log(2 * math.pi)
    assert p.log_prob(torch.tensor([[0.0, 1e-25]])).item() == pytest.approx(expected, rel=1e-6)


def test_l2_loss_is_the_normal_with_variance_one_half() -> None:
    ((x, mu),) = batches(1)
    l2 = (x - mu).square().flatten(1).sum(1)
    constant = D / 2 * math.log(math.pi)
    nll = -Normal(scale=math.sqrt(0.5))(mu).log_prob(x)
    torch.testing.assert_close(nll, l2 + constant, rtol=1e-12, atol=0)


def test_learned_scale_never_falls_below_the_floor() -> None:
    p = Normal("learned", min_scale=0.02)(torch.tensor([[0.0, -1e4]], dtype=torch.float64))
    assert p.stddev.item() == 0.02


def test_constant_background_leaves_the_learned_likelihood_bounded() -> None:
    theta = torch.cat([torch.zeros(1, D), torch.full((1, D), -torch.inf)], dim=1)
    actual = Normal("learned")(theta).log_prob(torch.zeros(1, D)).item()
    assert actual == pytest.approx(D * stats.norm.logpdf(0, 0, 1e-3), rel=1e-6)


@pytest.mark.parametrize(("min_scale", "start"), [(1e-3, 1.0), (0.25, 1.0), (0.5, 1.0), (3.0, 6.0)])
def test_shared_scale_starts_at_one_unless_the_floor_is_near(
    min_scale: float, start: float
) -> None:
    assert scale_of(Normal("shared", min_scale=min_scale)) == pytest.approx(start, rel=1e-6)


def test_shared_scale_has_a_floor_that_it_can_leave() -> None:
    likelihood = Normal("shared", min_scale=0.1)
    with torch.no_grad():
        likelihood.log_scale.fill_(-10)
    assert scale_of(likelihood) == pytest.approx(0.1 + math.exp(-10), rel=1e-6)
    likelihood(torch.zeros(1, 1)).log_prob(torch.ones(1, 1)).sum().backward()
    assert likelihood.log_scale.grad is not None
    assert likelihood.log_scale.grad.item() > 0  # uphill in log p: a larger scale


def test_shared_scale_learns_the_root_mean_square() -> None:
    likelihood = Normal("shared").double()
    ((x, mu),) = batches(1)
    optimiser = torch.optim.LBFGS(
        likelihood.parameters(), max_iter=50, tolerance_grad=1e-10, tolerance_change=0
    )

    def nll() -> Tensor:
        optimiser.zero_grad()
        loss = -likelihood(mu).log_prob(x).mean()
        loss.backward()
        return loss

    optimiser.step(nll)
    assert scale_of(likelihood) == pytest.approx(math.sqrt(mean_square(x, mu)), rel=1e-6)


def test_optimal_scale_is_one_before_any_observation() -> None:
    likelihood = Normal("optimal")
    assert scale_of(likelihood.train()) == scale_of(likelihood.eval()) == 1


def test_optimal_nll_in_training_is_that_at_the_optimum() -> None:
    likelihood = Normal("optimal").double()
    for x, mu in batches(3):
        likelihood.observe(x, mu)
        nll = -likelihood(mu).log_prob(x).mean().item()
        expected = D / 2 * (math.log(2 * math.pi * mean_square(x, mu)) + 1)
        assert nll == pytest.approx(expected, rel=1e-12)


def test_optimal_scale_is_the_best_of_all_scales() -> None:
    likelihood = Normal("optimal").double()
    ((x, mu),) = batches(1)
    likelihood.observe(x, mu)
    best = likelihood(mu).log_prob(x).mean()
    s = scale_of(likelihood)
    for other in (0.99 * s, 1.01 * s):
        assert Normal(scale=other)(mu).log_prob(x).mean() < best


def test_optimal_gradient_is_that_of_the_log_mean_square() -> None:
    likelihood = Normal("optimal").double()
    ((x, mu),) = batches(1)
    mu.requires_grad_()
    likelihood.observe(x, mu)
    assert likelihood.batch_variance is not None
    assert not likelihood.batch_variance.requires_grad  # else it would keep the decoder's graph
    nll = -likelihood(mu).log_prob(x).mean()
    envelope = D / 2 * (x - mu).square().mean().log()
    actual, expected = (torch.autograd.grad(loss, mu)[0] for loss in (nll, envelope))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)


def test_data_set_level_is_a_cumulative_mean_then_a_moving_average() -> None:
    likelihood = Normal("optimal").double()
    seen: list[float] = []
    level = math.nan
    for x, mu in batches(30):
        likelihood.observe(x, mu)
        seen.append(mean_square(x, mu))
        level = float(np.mean(seen)) if len(seen) <= 20 else 0.95 * level + 0.05 * seen[-1]
        assert likelihood.observations.item() == len(seen)
        assert likelihood.variance.item() == pytest.approx(level, rel=1e-12)


def test_evaluation_uses_the_data_set_level_and_never_refits() -> None:
    likelihood = Normal("optimal").double()
    first, second, test = batches(3)
    likelihood.observe(*first)
    likelihood.observe(*second)
    level = (mean_square(*first) + mean_square(*second)) / 2
    assert scale_of(likelihood) == pytest.approx(math.sqrt(mean_square(*second)), rel=1e-12)

    likelihood.eval()
    before = {name: value.clone() for name, value in likelihood.named_buffers()}
    likelihood.observe(*test)
    assert scale_of(likelihood) == pytest.approx(math.sqrt(level), rel=1e-12)
    after = dict(likelihood.named_buffers())
    assert sorted(after) == ["batch_variance", "observations", "variance"]
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_loaded_level_serves_until_the_first_batch() -> None:
    trained = Normal("optimal").double()
    first, second = batches(2)
    trained.observe(*first)
    resumed = Normal("optimal").double()
    resumed.load_state_dict(trained.state_dict(), strict=True)
    assert scale_of(resumed.train()) == scale_of(trained.eval())
    resumed.observe(*second)
    level = (mean_square(*first) + mean_square(*second)) / 2
    assert resumed.variance.item() == pytest.approx(level, rel=1e-12)


def test_perfect_reconstruction_meets_the_floor() -> None:
    likelihood = Normal("optimal", min_scale=0.01)
    x = torch.ones(SHAPE)
    likelihood.observe(x, x)
    assert scale_of(likelihood.train()) == scale_of(likelihood.eval()) == 0.01


def test_overflow_shows_in_the_batch_but_not_in_the_level() -> None:
    likelihood = Normal("optimal").double()
    good, bad = batches(2)
    likelihood.observe(*good)
    bad[1][0, 0, 0, 0] = torch.inf
    likelihood.observe(*bad)
    assert not math.isfinite(scale_of(likelihood.train()))
    assert scale_of(likelihood.eval()) == pytest.approx(math.sqrt(mean_square(*good)), rel=1e-12)
    assert likelihood.observations.item() == 1


def test_half_precision_residuals_do_not_overflow() -> None:
    likelihood = Normal("optimal")
    x = torch.full(SHAPE, 300.0, dtype=torch.float16)  # 300² is above float16's 65504
    likelihood.observe(x, torch.zeros_like(x))
    assert likelihood.variance.item() == 300**2
    assert likelihood.variance.dtype == torch.float32


def test_observing_twice_before_backward_is_allowed() -> None:
    likelihood = Normal("optimal").double()
    (x, mu), second = batches(2)
    mu.requires_grad_()
    likelihood.observe(x, mu)
    nll = -likelihood(mu).log_prob(x).mean()
    likelihood.observe(*second)
    nll.backward()
    assert mu.grad is not None
    expected = (mu.detach() - x) / mean_square(x, mu.detach()) / len(x)
    torch.testing.assert_close(mu.grad, expected, rtol=1e-12, atol=0)


PROCESS = """
import sys, torch
from nidl_likelihoods import Normal
rank, rendezvous, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
likelihood = Normal("optimal").double()
for x, mu in torch.load(out + "/batches.pt"):
    part = slice(0, 3) if rank == 0 else slice(3, 4)  # unequal: a mean of means would be wrong
    likelihood.observe(x[part], mu[part])
torch.save(dict(likelihood.named_buffers()), f"{out}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_two_processes_agree_on_the_pooled_batch(tmp_path: Path) -> None:
    data = batches(3)
    torch.save(data, tmp_path / "batches.pt")
    command = [sys.executable, "-c", PROCESS]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "rendezvous"), str(tmp_path)])
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    pooled = Normal("optimal").double()
    for x, mu in data:
        pooled.observe(x, mu)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, expected in pooled.named_buffers():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-12, atol=0)
