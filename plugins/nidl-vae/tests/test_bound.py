"""The terms of the bound, against scipy, torch and Monte-Carlo."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import (
    Bernoulli,
    Cauchy,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from nidl_core.errors import ShapeError
from nidl_vae import BetaVAELoss
from nidl_vae.bound import centre, implied, kl_to_prior, log_prob

SHAPES = [(4, 1, 3, 5), (1, 2, 7), (3, 6)]


@pytest.fixture(params=SHAPES, ids=str)
def x(request):
    return torch.randn(
        request.param, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


def per_sample(values):
    return values.reshape(len(values), -1).sum(1)


@pytest.mark.parametrize("independent", [False, True])
def test_log_prob_of_a_normal_counts_its_scale_and_matches_scipy(x, independent):
    p = Normal(torch.full_like(x, 0.3), torch.full_like(x, 0.7))
    expected = per_sample(scipy.stats.norm(0.3, 0.7).logpdf(x.numpy()))
    p = Independent(p, x.ndim - 1) if independent else p

    np.testing.assert_allclose(log_prob(p, x).numpy(), expected, rtol=1e-12)


def test_log_prob_of_a_laplace_counts_its_scale_and_matches_scipy(x):
    p = Laplace(torch.full_like(x, -0.2), torch.full_like(x, 2.5))
    expected = per_sample(scipy.stats.laplace(-0.2, 2.5).logpdf(x.numpy()))

    np.testing.assert_allclose(log_prob(p, x).numpy(), expected, rtol=1e-12)


def test_log_prob_of_a_bernoulli_takes_soft_targets_and_does_not_saturate():
    logits = torch.tensor([[40.0, -40.0, 800.0, -800.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.25]], dtype=torch.float64)
    expected = -math.log1p(math.exp(-40)) * 2 - 800 - 0.25 * 800

    assert log_prob(Bernoulli(logits=logits), targets).item() == pytest.approx(expected, rel=1e-14)


def test_log_prob_of_a_distribution_with_events_of_its_own_is_per_sample():
    p = MultivariateNormal(torch.zeros(5, 3), torch.eye(3))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(log_prob(p, x), Normal(0, 1).log_prob(x).sum(1))


def test_log_prob_refuses_to_broadcast():
    with pytest.raises(
        ShapeError, match=r"\(4, 1\) for data of shape \(4, 3\).*nothing is broadcast"
    ):
        log_prob(Normal(torch.zeros(4, 1), 1.0), torch.zeros(4, 3))


def test_exact_log_prob_of_a_volume_is_summed_in_float64():
    x = torch.randn(1, 1, 128, 128, 128, generator=torch.Generator().manual_seed(0))
    p = Independent(Normal(torch.zeros_like(x), torch.full_like(x, 0.1)), 4)
    expected = scipy.stats.norm(0, np.float32(0.1)).logpdf(x.double().numpy()).sum()

    assert log_prob(p, x, exact=True).dtype == torch.float64
    assert log_prob(p, x, exact=True).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("kind", ["normal", "laplace", "bernoulli"])
def test_a_tensor_implies_the_likelihood_whose_loss_is_the_pages(kind):
    """The page's L2, L1 and cross-entropy are -log p of the implied distribution, less a constant."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(4, 1, 3, 5, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    x = torch.rand(4, 1, 3, 5, generator=generator, dtype=torch.float64)
    q = Normal(torch.zeros(4, 2, dtype=torch.float64), 1.0)
    constant = {"normal": 7.5 * math.log(math.pi), "laplace": 15 * math.log(2), "bernoulli": 0.0}[
        kind
    ]
    rec_loss = BetaVAELoss(default_dist=kind)(x, mean, q)["rec_loss"]

    negative = -log_prob(implied(mean, kind), x).mean()
    assert rec_loss.item() + constant == pytest.approx(negative.item(), rel=1e-12)


def test_kl_matches_torch_and_is_per_sample():
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    scale = torch.rand(6, 4, generator=generator, dtype=torch.float64) + 0.1
    expected = kl_divergence(Normal(loc, scale), Normal(torch.zeros_like(loc), 1.0)).sum(1)

    torch.testing.assert_close(kl_to_prior(Normal(loc, scale)), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(kl_to_prior(Independent(Normal(loc, scale), 1)), expected)


def test_kl_agrees_with_monte_carlo():
    q = Normal(torch.tensor([[0.7, -1.2]]), torch.tensor([[0.5, 1.6]]))
    prior = Normal(torch.zeros(1, 2), torch.ones(1, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = q.sample((400_000,))
    estimate = (q.log_prob(z) - prior.log_prob(z)).sum(-1)
    error = estimate.std().item() / math.sqrt(len(z))

    assert abs(estimate.mean().item() - kl_to_prior(q).item()) < 4 * error


def test_kl_is_zero_at_the_prior_and_positive_next_to_it():
    at = kl_to_prior(Normal(torch.zeros(1, 8), torch.ones(1, 8)))
    near = kl_to_prior(Normal(torch.zeros(1, 1), torch.full((1, 1), 1 + 1e-4)))

    assert at.item() == 0.0
    assert near.item() == pytest.approx(1e-8, rel=0.05)  # (s - 1)^2; the plain formula gives noise


def test_kl_gradient_is_exact():
    loc = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    log_scale = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(
        lambda m, s: kl_to_prior(Normal(m, s.exp(), validate_args=False)), (loc, log_scale)
    )


def test_centre_is_the_mean_or_else_the_mode():
    assert centre(Laplace(torch.tensor(2.0), 1.0)).item() == 2.0
    assert centre(Cauchy(torch.tensor(3.0), 1.0)).item() == 3.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_tensors_are_computed_in_float32_under_autocast(dtype):
    x, mean = torch.full((2, 70_000), 3.0, dtype=dtype), torch.zeros(2, 70_000, dtype=dtype)
    q = Normal(torch.zeros(2, 3), torch.ones(2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        losses = BetaVAELoss()(x, mean, q)

    assert losses["loss"].dtype == torch.float32
    assert losses["rec_loss"].item() == 630_000  # beyond float16, and not a multiple of bfloat16


@pytest.mark.parametrize("batch", [1, 5])
def test_loss_sums_over_a_sample_and_averages_over_the_batch(batch):
    x = torch.zeros(batch, 2, 3)
    q = Normal(torch.full((batch, 4), 2.0), torch.ones(batch, 4))
    losses = BetaVAELoss(beta=3.0)(x, x + 2, q)

    assert losses["rec_loss"].item() == 24.0
    assert losses["kl_loss"].item() == 8.0
    assert losses["loss"].item() == 48.0


def test_reconstruction_loss_of_no_distribution_is_a_type_error():
    with pytest.raises(TypeError, match="needs a torch.distributions.Distribution"):
        BetaVAELoss().reconstruction_loss(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1"])
def test_impossible_beta_is_refused(value):
    with pytest.raises(ValueError, match="beta must be a finite number >= 0"):
        BetaVAELoss(beta=value)


def test_unknown_default_dist_is_a_value_error():
    with pytest.raises(
        ValueError, match=r"default_dist must be one of \('normal', 'laplace', 'bernoulli'\)"
    ):
        BetaVAELoss(default_dist="cauchy")
