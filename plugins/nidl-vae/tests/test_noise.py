"""Noise that belongs to a row: its distribution, and what it must not depend on."""

import numpy as np
import pytest
import scipy.stats
import torch

from nidl_vae import noise
from nidl_vae.noise import row_keys, row_noise


@pytest.fixture
def x():
    return torch.randn(50, 2, 3, 4, generator=torch.Generator().manual_seed(0))


def test_noise_is_standard_normal():
    x = torch.arange(20_000.0)[:, None]
    values = row_noise(x, seed=0, draws=4, size=5).flatten().numpy()

    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert values.std() == pytest.approx(1, abs=4 / np.sqrt(2 * values.size))


def test_noise_of_neighbouring_rows_draws_and_dimensions_is_uncorrelated():
    x = torch.arange(20_000.0)[:, None]
    values = row_noise(x, seed=0, draws=2, size=3).permute(1, 0, 2).reshape(len(x), 6).numpy()
    lagged = np.hstack([values[:-1], values[1:]])
    correlation = np.corrcoef(lagged.T) - np.eye(12)

    assert np.abs(correlation).max() < 5 / np.sqrt(len(x))


def test_noise_belongs_to_the_row_in_any_order_and_batch(x):
    whole = row_noise(x, seed=3, draws=2, size=4)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(row_noise(x[order], 3, 2, 4), whole[:, order], rtol=0, atol=0)
    torch.testing.assert_close(row_noise(x[7:9], 3, 2, 4), whole[:, 7:9], rtol=0, atol=0)


def test_noise_changes_with_the_seed_and_with_one_bit_of_the_row(x):
    near = x.clone()
    near[:, 1, 2, 3] = torch.nextafter(x[:, 1, 2, 3], torch.tensor(torch.inf))

    for other in (row_noise(x, 4, 1, 2), row_noise(near, 3, 1, 2)):
        correlation = np.corrcoef(row_noise(x, 3, 1, 2).flatten(), other.flatten())[0, 1]
        assert abs(correlation) < 0.5
        assert not bool((row_noise(x, 3, 1, 2) == other).any())


def test_first_draws_do_not_depend_on_how_many_are_asked_for(x):
    assert torch.equal(row_noise(x, 0, 5, 3)[:2], row_noise(x, 0, 2, 3))


def test_keys_are_distinct_for_rows_that_permute_the_same_values():
    rows = torch.eye(300)

    assert len(set(row_keys(rows, seed=0).tolist())) == 300


def test_minus_zero_is_zero():
    assert torch.equal(
        row_keys(torch.tensor([[0.0, 1.0]]), 0), row_keys(torch.tensor([[-0.0, 1.0]]), 0)
    )


def test_large_rows_are_hashed_in_parts_with_the_same_result(x, monkeypatch):
    whole = row_keys(x, seed=1)
    monkeypatch.setattr(noise, "_VALUES_AT_ONCE", 30)

    assert torch.equal(row_keys(x, seed=1), whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_noise_follows_any_floating_dtype(x, dtype):
    values = row_noise(x.to(dtype), seed=0, draws=1, size=2)

    assert values.shape == (1, 50, 2)
    assert bool(torch.isfinite(values).all())
