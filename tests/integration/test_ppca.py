"""A linear VAE is probabilistic PCA, whose likelihood is known exactly (Lucas et al. 2019).

With the noise s fixed, the maximum of log N(x; b, W W' + s^2 I) over W and b is in closed form:
b the mean, W = U (Lambda - s^2 I)^(1/2) with the leading eigenvectors and -values of the covariance
(Tipping & Bishop 1999, eq. 7). A VAE with a linear encoder and decoder can reach it, posterior and all.
"""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import nidl_core as nidl

N, D, L, S = 1000, 8, 2, 0.5
LINEAR = {"name": "mlp", "params": {"widths": []}}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(D, L)) * [1.0, 0.7]
    noise = S * rng.normal(size=(N, D))
    return (rng.normal(size=(N, L)) @ loadings.T + noise + rng.normal(size=D)).astype(np.float32)


def linear_vae(data, scale, stages=((3e-2, 30), (1e-2, 20), (1e-3, 20))):
    """Fitted in stages, (learning rate, epochs) each, that go on from one another's weights."""
    vae = nidl.build(
        "vae",
        encoder=LINEAR,
        decoder=LINEAR,
        likelihood={"name": "normal", "params": {"scale": scale}},
        latent_dim=L,
        weight_decay=0.0,
        batch_size=50,
        warm_start=True,
        random_state=0,
    )
    for lr, epochs in stages:
        vae.set_params(lr=lr, max_epochs=epochs).fit(data)
    return vae


@pytest.fixture(scope="module")
def vae(data):
    return linear_vae(data, S)


def ppca_log_likelihood(x):
    """Mean log-likelihood at the maximum over W and b, the noise being fixed at S."""
    covariance = np.cov(x.T, bias=True).astype(np.float64)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:L], vectors[:, ::-1][:, :L]
    loadings = vectors * np.sqrt(np.maximum(values - S**2, 0))
    model = loadings @ loadings.T + S**2 * np.eye(D)
    return multivariate_normal(x.mean(0), model).logpdf(x).mean()


def exact_log_likelihood(vae, x):
    """log p(x) of each row under the VAE's own decoder, by the Gaussian's closed form."""
    weight, bias = (p.detach().double().numpy() for p in vae.decoder.parameters())
    return multivariate_normal(bias, weight @ weight.T + S**2 * np.eye(D)).logpdf(x)


def mean_score(vae, x, seeds=10):
    """The ELBO, with the noise of its one sample a row averaged over some seeds."""
    try:
        return np.mean([vae.set_params(random_state=seed).score(x) for seed in range(seeds)])
    finally:
        vae.set_params(random_state=0)


def test_linear_vae_reaches_the_exact_ppca_log_likelihood(vae, data):
    best = ppca_log_likelihood(data)

    assert mean_score(vae, data) == pytest.approx(best, rel=0.003)
    assert exact_log_likelihood(vae, data).mean() <= best  # no W and b are better


def test_score_samples_lies_between_the_elbo_and_the_exact_value_for_each_row(vae, data):
    exact = exact_log_likelihood(vae, data)
    bound, error = vae.score_samples(data, K=64, return_std=True)

    assert mean_score(vae, data) <= bound.mean() + 0.02
    assert bound.mean() <= exact.mean() + 3 * np.sqrt((error**2).sum()) / N
    assert np.abs(bound - exact).max() < 6 * error.max()


def test_importance_weighted_bound_grows_with_k_to_the_exact_value(data):
    early = linear_vae(data, S, stages=((1e-2, 3),))  # a poor posterior: the bounds lie apart
    exact = exact_log_likelihood(early, data).mean()
    bounds = [mean_score(early, data), *(early.score_samples(data, K=k).mean() for k in (8, 128))]

    assert bounds == sorted(bounds)
    assert bounds[0] < exact - 0.5
    assert exact - 0.25 < bounds[-1] < exact


def test_bound_with_one_sample_is_the_elbo_in_expectation(data):
    early = linear_vae(data, S, stages=((1e-2, 3),))
    ones = []
    for seed in range(10):
        ones.append(early.set_params(random_state=100 + seed).score_samples(data, K=1).mean())

    assert np.mean(ones) == pytest.approx(mean_score(early, data), abs=0.1)


def test_learned_scales_find_the_noise_of_the_maximum_likelihood_solution(data):
    """sigma^2 of PPCA is the mean of the eigenvalues left out (Tipping & Bishop 1999, eq. 8)."""
    values = np.linalg.eigvalsh(np.cov(data.T, bias=True).astype(np.float64))
    expected = values[: D - L].mean()
    for scale in ("shared", "optimal"):
        vae = linear_vae(data, scale)
        p = vae.eval().decode(vae.encode(vae.as_input(data[:2])).loc)

        assert p.base_dist.scale.square().mean().item() == pytest.approx(expected, rel=0.03), scale
