"""`sample()`: on any dtype and device, in evaluation mode, without gradients, seeded, data."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Bernoulli, Cauchy, Independent, Laplace, Normal

from nidl_core.errors import InvalidParameter
from nidl_vae import VAE

L, D = 2, 6


class Decoder(nn.Module):
    """z -> whatever `make` makes of a linear output; with a batch norm and a dropout inside."""

    def __init__(self, make=lambda out: out) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(L, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.layers.append(nn.Linear(8, D))
        self.make = make

    def forward(self, z):
        return self.make(self.layers(z))


_DECODER = Decoder()


def make(decoder=_DECODER, **params):
    """The same initial weights at each call: estimators train copies."""
    return VAE(nn.Flatten(), decoder, D, L, max_epochs=1, random_state=0, **params)


def rows(n=12):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(0))


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("draw", [False, True])
def test_sample_has_the_device_of_the_model_and_its_dtype_or_float32(device, dtype, draw):
    x = make().to(device=device, dtype=dtype).sample(3, draw=draw)
    expected = torch.float32 if dtype == torch.bfloat16 else dtype
    assert (x.dtype, x.device.type, x.shape) == (expected, device, (3, D))


def test_sample_after_a_fit_in_double_precision_is_float64():
    assert make(precision="64-true").fit(rows()).sample(2).dtype == torch.float64


def test_sample_follows_a_decoder_without_parameters():
    vae = VAE(nn.Flatten(), nn.Identity(), D, D)
    assert vae.sample(3).shape == (3, D)


def test_sample_needs_no_encoder_out_dim_before_fit():
    assert VAE(nn.Flatten(), Decoder(), latent_dim=L).sample(3).shape == (3, D)


def test_sample_has_no_gradients_and_leaves_grad_mode_as_it_was():
    vae = make()
    assert not vae.sample(3).requires_grad and not vae.sample(3, draw=True).requires_grad
    assert torch.is_grad_enabled()
    assert all(weight.requires_grad for weight in vae.parameters())


def test_sample_decodes_in_evaluation_mode():
    vae = make().train()
    before = {name: b.clone() for name, b in vae.named_buffers()}
    assert torch.equal(vae.sample(5, seed=1), vae.eval().sample(5, seed=1))
    for name, buffer in vae.named_buffers():  # the batch norm's statistics
        assert torch.equal(buffer, before[name])


def test_sample_restores_the_mode_of_every_submodule():
    vae = make().train()
    vae.decoder.layers[1].eval()
    modes = [m.training for m in vae.modules()]
    assert len(set(modes)) == 2
    vae.sample(3)
    assert [m.training for m in vae.modules()] == modes


def test_sample_restores_the_mode_when_the_decoder_fails():
    def fail(out):
        raise ValueError("no luck")

    vae = make(Decoder(fail)).train()
    with pytest.raises(ValueError, match="no luck"):
        vae.sample(3)
    assert all(m.training for m in vae.modules())


def test_sample_with_a_seed_repeats_and_without_one_draws_afresh():
    vae = make()
    assert torch.equal(vae.sample(3, seed=1), vae.sample(3, seed=1))
    assert not torch.equal(vae.sample(3, seed=1), vae.sample(3, seed=2))
    assert not torch.equal(vae.sample(3), vae.sample(3))  # random_state=0 all the same
    assert torch.equal(vae.sample(3, 1, True), vae.sample(3, seed=1, draw=True))


def test_sample_with_a_seed_does_not_depend_on_the_batch_size():
    torch.testing.assert_close(
        make(batch_size=2).sample(5, seed=1), make(batch_size=64).sample(5, seed=1)
    )


def states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


@pytest.mark.parametrize("draw", [False, True])
def test_sample_with_a_seed_leaves_the_callers_random_state(draw):
    vae = make(Decoder(lambda out: Normal(out, 1.0)))
    before = states()
    vae.sample(3, seed=1, draw=draw)
    assert states() == before


def test_sample_without_a_seed_follows_the_callers_random_state():
    vae = make()
    torch.manual_seed(5)
    first = vae.sample(3)
    torch.manual_seed(5)
    assert torch.equal(first, vae.sample(3))


# what the decoder gives -> its mean as a function of the linear output
MEANS = {
    "Normal": (lambda o: Normal(o, 2.0), lambda o: o),
    "Laplace": (lambda o: Laplace(o, 2.0), lambda o: o),
    "Bernoulli": (lambda o: Bernoulli(logits=o), torch.sigmoid),
    "Independent": (lambda o: Independent(Normal(o, 2.0), 1), lambda o: o),
    "Cauchy, which has no mean: its mode": (lambda o: Cauchy(o, 1.0), lambda o: o),
    "tensor": (lambda o: o, lambda o: o),
}


@pytest.mark.parametrize("case", MEANS)
def test_sample_is_the_mean_of_what_the_decoder_gives(case):
    decode, mean = MEANS[case]
    vae = make(Decoder(decode)).eval()
    outputs = []
    vae.decoder.layers.register_forward_hook(lambda *a: outputs.append(a[-1].detach()))
    torch.testing.assert_close(vae.sample(4), mean(outputs[0]))


@pytest.mark.parametrize(
    ("decode", "expected"),
    [
        (lambda o: Normal(0 * o, 2.0), stats.norm(0, 2)),
        (lambda o: Laplace(0 * o, 2.0), stats.laplace(0, 2)),
        (lambda o: 0 * o, stats.norm(0, 0.5**0.5)),  # default_dist="normal": variance 1/2
    ],
)
def test_sample_draw_is_a_draw_from_p(decode, expected):
    x = make(Decoder(decode)).sample(800, seed=0, draw=True)
    assert stats.kstest(x.numpy().ravel(), expected.cdf).pvalue > 0.01


def test_sample_draw_of_a_bernoulli_is_0_or_1():
    x = make(Decoder(lambda o: Bernoulli(logits=o))).sample(50, seed=0, draw=True)
    assert set(x.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("n", [0, -1, 2.0, "3", True, None])
def test_sample_refuses_an_impossible_number(n):
    with pytest.raises(InvalidParameter, match="n_samples must be an int >= 1"):
        make().sample(n)


def test_sample_takes_a_numpy_integer():
    assert len(make().sample(np.int64(3))) == 3
