"""A VAE by name: each backbone and likelihood from the plugins, on images of their kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import nidl_core as nidl
from nidl_core.errors import DataError, NidlError, ShapeError, UnknownComponent, UnknownParameter
from nidl_core.interfaces import Likelihood, Loss

L, N = 3, 12


def digits():
    return (load_digits().images[:N, None] / 16).astype(np.float32)  # (N, 1, 8, 8), in [0, 1]


def volumes():
    return np.random.default_rng(0).random((N, 1, 7, 5, 6), dtype=np.float32)


def table():
    return np.random.default_rng(0).random((N, 10), dtype=np.float32)


def two_channels():
    return np.random.default_rng(0).random((N, 2, 9, 5), dtype=np.float32)


def make(backbone="mlp", **params):
    given = {"latent_dim": L, "random_state": 0, "max_epochs": 1, "batch_size": 5, **params}
    return nidl.build("vae", encoder=backbone, decoder=backbone, **given)


def narrow(backbone):
    widths = [6] if backbone == "mlp" else [4, 6]
    return {"name": backbone, "params": {"widths": widths}}


DATA = {
    "table-mlp": (table, "mlp"),
    "digits-mlp": (digits, "mlp"),
    "digits-cnn2d": (digits, "cnn2d"),
    "two channels-cnn2d": (two_channels, "cnn2d"),
    "volumes-cnn3d": (volumes, "cnn3d"),
    "volumes-mlp": (volumes, "mlp"),
}


@pytest.mark.parametrize("case", DATA)
def test_every_backbone_gives_back_the_shape_of_its_data_as_an_array(case):
    data, backbone = DATA[case]
    x = data()
    vae = make(narrow(backbone)).fit(x)
    z = vae.transform(x)
    assert isinstance(z, np.ndarray) and z.shape == (N, L) and z.dtype == np.float32
    for images in (vae.reconstruct(x), vae.inverse_transform(z)):
        assert isinstance(images, np.ndarray) and images.shape == x.shape
        assert images.dtype == np.float32
    bounds = vae.score_samples(x, K=2)
    assert isinstance(bounds, np.ndarray) and bounds.shape == (N,)
    assert vae.sample(2).shape == (2, *x.shape[1:]) and isinstance(vae.sample(2), torch.Tensor)
    assert vae.input_shape_ == x.shape[1:]


@pytest.mark.parametrize("case", ["table-mlp", "digits-cnn2d"])
def test_tensor_in_tensor_out(case):
    data, backbone = DATA[case]
    x = torch.from_numpy(data())
    vae = make(narrow(backbone), stochastic_transform=False).fit(x)
    z = vae.transform(x)
    for out, shape in [
        (z, (N, L)),
        (vae.reconstruct(x), x.shape),
        (vae.inverse_transform(z), x.shape),
        (vae.score_samples(x, K=2), (N,)),
    ]:
        assert isinstance(out, torch.Tensor) and out.shape == shape and not out.requires_grad
        assert out.device.type == "cpu"
    for verb in ("transform", "reconstruct"):
        assert np.array_equal(getattr(vae, verb)(x.numpy()), getattr(vae, verb)(x).numpy())


@pytest.mark.parametrize("data", [table, digits], ids=["table", "digits"])
def test_reconstruct_decodes_the_posterior_mean(data):
    x = data()
    vae = make(narrow("mlp"), stochastic_transform=False).fit(x)
    np.testing.assert_allclose(
        vae.inverse_transform(vae.transform(x)), vae.reconstruct(x), rtol=1e-5, atol=1e-6
    )


def test_names_in_full_and_classes_are_the_same_as_names():
    x = digits()
    by_name = make("mlp").fit(x).transform(x)
    in_full = make(
        "nidl-backbones:mlp", likelihood="nidl-likelihoods:normal", loss="nidl-vae:beta_vae"
    )
    assert np.array_equal(in_full.fit(x).transform(x), by_name)
    classes = nidl.build(
        "vae",
        encoder=nidl.encoders.get("mlp"),
        decoder={"name": nidl.decoders.get("mlp")},
        likelihood=nidl.likelihoods.build("normal"),
        latent_dim=L,
        random_state=0,
        max_epochs=1,
        batch_size=5,
    )
    assert np.array_equal(classes.fit(x).transform(x), by_name)


# Likelihoods ----------------------------------------------------------------------------------

LIKELIHOODS = {
    "normal": {},
    "normal-fixed": {"scale": 0.3},
    "normal-learned": {"scale": "learned"},
    "normal-shared": {"scale": "shared"},
    "normal-optimal": {"scale": "optimal"},
    "laplace": {"scale": 0.5},
    "laplace-learned": {"scale": "learned"},
    "bernoulli": {},
}


@pytest.mark.parametrize("case", LIKELIHOODS)
@pytest.mark.parametrize("backbone", ["mlp", "cnn2d"])
def test_every_likelihood_trains_and_answers(case, backbone):
    spec = {"name": case.split("-")[0], "params": LIKELIHOODS[case]}
    x = digits().round()
    vae = make(narrow(backbone), likelihood=spec, max_epochs=2, lr=1e-3).fit(x)
    losses = [row["train/loss"] for row in vae.history_]
    assert np.isfinite(losses).all() and np.isfinite(vae.score(x))
    assert np.isfinite(vae.score_samples(x, K=2)).all()
    assert vae.sample(2, seed=0, draw=True).shape == (2, 1, 8, 8)
    assert vae.reconstruct(x).shape == x.shape


def test_a_likelihood_is_the_terms_of_the_loss():
    """rec_loss is that likelihood's own -log p of what the decoder gives, in nats."""
    x = torch.from_numpy(digits())
    vae = make(narrow("mlp"), likelihood={"name": "normal", "params": {"scale": 0.3}}).fit(x)
    seen = []
    vae.decoder.register_forward_hook(lambda module, inputs, out: seen.append(out.detach()))
    losses = vae.training_step(x, 0)
    mean = seen[-1].double()
    log_prob = torch.distributions.Normal(mean, 0.3).log_prob(x.double()).sum((1, 2, 3))
    assert losses["rec_loss"].item() == pytest.approx(-log_prob.mean().item(), rel=1e-5)


def test_a_decoder_by_name_gets_the_likelihood_called_default_dist():
    for name in ("normal", "laplace", "bernoulli"):
        vae = make(default_dist=name).fit(digits().round())
        assert type(vae.likelihood) is nidl.likelihoods.get(name)
    with pytest.raises(UnknownComponent, match="no likelihood named 'normall'.*'normal'"):
        make(default_dist="normall")


def test_likelihood_beats_default_dist():
    vae = make(default_dist="normal", likelihood="laplace").fit(digits())
    assert type(vae.likelihood) is nidl.likelihoods.get("laplace")


def test_a_handed_in_decoder_may_have_a_likelihood_by_name():
    """Its output is then theta: here twice the channels, mean and raw scale."""
    decoder = nn.Sequential(nn.Linear(L, 20))
    vae = nidl.build(
        "vae",
        encoder="mlp",
        decoder=decoder,
        likelihood={"name": "normal", "params": {"scale": "learned"}},
        latent_dim=L,
        max_epochs=1,
        random_state=0,
    )
    x = table()
    assert vae.fit(x).reconstruct(x).shape == x.shape
    theta = vae.decoder(torch.zeros(1, L))
    np.testing.assert_allclose(
        vae.inverse_transform(np.zeros((1, L), np.float32)), theta.detach()[:, :10], rtol=1e-6
    )


def test_the_optimal_scale_is_learnt_in_training_and_never_refitted_in_evaluation():
    x = digits()
    vae = make(narrow("mlp"), likelihood={"name": "normal", "params": {"scale": "optimal"}})
    vae.fit(x, val=x + 100)
    level = vae.likelihood.variance.clone()
    seen = vae.likelihood.observations.clone()
    assert 0 < level < 1 and seen == 3  # batches of 5, 5 and 2; none of the validation's
    vae.eval()
    for other in (x, x + 50):
        (
            vae.score(other),
            vae.transform(other),
            vae.score_samples(other, K=2),
            vae.reconstruct(other),
        )
        vae.validation_step(torch.from_numpy(other), 0)
    assert torch.equal(vae.likelihood.variance, level)
    assert torch.equal(vae.likelihood.observations, seen)
    # the bound of far data is that of the level: far below what a re-fitted scale would give
    assert vae.score(x + 50) < -(50**2) * 64 / (2 * level.item()) * 0.5


def test_the_optimal_scale_is_the_same_for_a_score_in_any_batches():
    x = digits()
    vae = make(narrow("mlp"), likelihood={"name": "normal", "params": {"scale": "optimal"}}).fit(x)
    scores = [vae.set_params(batch_size=size).score(x) for size in (1, 4, 12)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)


def test_bernoulli_refuses_data_outside_the_unit_interval_at_the_first_batch():
    vae = make(likelihood="bernoulli")
    with pytest.raises(
        DataError, match=r"Bernoulli takes values in \[0, 1\], got values in \[0, 16\]"
    ):
        vae.fit(digits() * 16)
    with pytest.raises(nidl.NidlError):
        vae.set_params(default_dist="bernoulli", likelihood=None).fit(digits() - 0.5)


def test_bernoulli_says_once_that_grey_values_make_it_a_cross_entropy():
    with pytest.warns(UserWarning, match="cross-entropy") as caught:
        make(likelihood="bernoulli", max_epochs=3).fit(digits())
    assert len([w for w in caught if "cross-entropy" in str(w.message)]) == 1


# Losses ---------------------------------------------------------------------------------------


def test_a_loss_by_name_gets_the_estimators_beta():
    vae = make(narrow("mlp"), beta=7.0).fit(digits())
    assert vae.criterion.beta == 7.0
    vae.beta = 3.0
    assert vae.criterion.beta == 3.0


def test_a_loss_spec_with_a_beta_of_its_own_keeps_it():
    spec = {"name": "beta_vae", "params": {"beta": 9.0}}
    vae = make(narrow("mlp"), loss=spec, beta=2.0).fit(digits())
    vae.beta = 3.0
    losses = vae.training_step(torch.from_numpy(digits()), 0)
    assert losses["loss"].item() == pytest.approx(
        losses["rec_loss"].item() + 9 * losses["kl_loss"].item(), rel=1e-5
    )


class Squared(Loss):
    """Returns "loss" alone; takes no beta."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x, p, q, z=None):
        assert z.shape == (len(x), L)
        return {"loss": self.weight * (p.mean - x).square().mean()}


class WithExtras(Loss):
    """A third figure is logged, and not returned by the steps."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x, p, q, z=None):
        nll = -p.log_prob(x).mean()
        return {"loss": nll * self.beta, "capacity": nll.detach() * 0 + 2.5}


class Pathless(Loss):
    def forward(self, x, p, q, z=None):
        return {"total": x.mean()}


def test_a_third_partys_loss_that_gives_loss_alone_is_completed_by_the_true_terms():
    x = torch.from_numpy(digits())
    with nidl.losses.temporary("squared", Squared):
        vae = make(narrow("mlp"), loss={"name": "squared", "params": {"weight": 2.0}}, beta=5.0)
        vae.fit(x, val=x)
        reference = make(narrow("mlp"), random_state=0).fit(x)
        reference.load_state_dict(vae.state_dict())
        torch.manual_seed(0)
        losses = vae.training_step(x, 0)
        torch.manual_seed(0)
        expected = reference.training_step(x, 0)
    assert losses.keys() == {"loss", "rec_loss", "kl_loss"}
    for name in ("rec_loss", "kl_loss"):
        torch.testing.assert_close(losses[name], expected[name])
    row = vae.history_[-1]
    for stage in ("train", "val"):
        assert row[f"{stage}/elbo"] == pytest.approx(
            -row[f"{stage}/rec_loss"] - row[f"{stage}/kl_loss"], rel=1e-5
        )
    assert vae.score(x) == reference.score(x)  # the bound, whatever the objective


def test_other_figures_of_a_loss_are_logged_and_not_returned():
    x = torch.from_numpy(digits())
    with nidl.losses.temporary("extras", WithExtras):
        vae = make(narrow("mlp"), loss="extras", beta=0.5).fit(x)
        assert vae.criterion.beta == 0.5
        assert vae.training_step(x, 0).keys() == {"loss", "rec_loss", "kl_loss"}
    assert vae.history_[0]["train/capacity"] == 2.5


def test_a_loss_without_loss_is_told():
    told = pytest.raises(NidlError, match="Pathless must return a dict of scalars with 'loss'")
    with nidl.losses.temporary("pathless", Pathless), told:
        make(narrow("mlp"), loss="pathless").fit(digits())


class Halves(Likelihood):
    """A third party's likelihood: a Normal of scale 1/2, and no check of its own."""

    def forward(self, theta):
        p = torch.distributions.Normal(theta.float(), 0.5)
        return torch.distributions.Independent(p, theta.ndim - 1)


def test_a_third_partys_likelihood_is_used_by_name():
    x = digits()
    with nidl.likelihoods.temporary("halves", Halves):
        mine = make(narrow("mlp"), likelihood="halves").fit(x)
    normal = {"name": "normal", "params": {"scale": 0.5}}
    assert mine.score(x) == pytest.approx(make(narrow("mlp"), likelihood=normal).fit(x).score(x))


# Errors ---------------------------------------------------------------------------------------

UNKNOWN = {
    "encoder": ({"encoder": "cnn2"}, "no encoder named 'cnn2'. Did you mean 'cnn2d'"),
    "decoder": ({"decoder": "mpl"}, "no decoder named 'mpl'. Did you mean 'mlp'"),
    "likelihood": ({"likelihood": "gaussian"}, "no likelihood named 'gaussian'"),
    "loss": ({"loss": "beta-vae"}, "no loss named 'beta-vae'. Did you mean 'beta_vae'"),
    "in full": ({"encoder": "nidl-monai:mlp"}, "no encoder named 'nidl-monai:mlp'"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_names_fail_at_construction(case):
    params, text = UNKNOWN[case]
    with pytest.raises(UnknownComponent, match=text):
        nidl.build("vae", **{"encoder": "mlp", "decoder": "mlp", **params})


def test_unknown_parameters_of_a_component_fail_at_construction():
    spec = {"name": "cnn2d", "params": {"width": [4]}}
    with pytest.raises(
        UnknownParameter, match="encoder 'cnn2d' has no parameter 'width'.*'widths'"
    ):
        make(spec)
    with pytest.raises(UnknownParameter, match="likelihood 'normal' has no parameter 'sigma'"):
        make(likelihood={"name": "normal", "params": {"sigma": 1}})


@pytest.mark.parametrize(
    ("backbone", "shape", "fits"),
    [
        ("cnn2d", (N, 8, 8), r"\(N, C, H, W\)"),
        ("cnn2d", (N, 10), r"\(N, C, H, W\)"),
        ("cnn3d", (N, 1, 8, 8), r"\(N, C, D, H, W\)"),
        ("cnn2d", (N, 1, 6, 6, 6), r"\(N, C, H, W\)"),
    ],
)
def test_data_of_a_wrong_rank_are_told_what_would_fit(backbone, shape, fits):
    with pytest.raises(ShapeError, match=fits) as error:
        make(backbone).fit(torch.rand(shape))
    assert ", ".join(map(str, shape[1:])) in str(error.value)


def test_a_wrong_encoder_out_dim_is_told_with_both_numbers_by_name_too():
    with pytest.raises(ShapeError, match="encoder_out_dim is 7, but the encoder gives 6"):
        make(narrow("mlp"), encoder_out_dim=7).fit(digits())


def test_networks_by_name_exist_from_fit_on():
    vae = make(narrow("cnn2d"))
    assert dict(vae.named_parameters()) == {}
    assert vae.encoder == narrow("cnn2d")  # what was given, until it is built
    vae.fit(digits())
    assert isinstance(vae.encoder, nn.Module) and vae.encoder.out_features == vae.fc_mu.in_features
    assert vae.get_params()["encoder"] == narrow("cnn2d")


def test_sample_by_name_before_fit_says_that_it_is_not_fitted():
    with pytest.raises(ValueError, match="not fitted"):
        make().sample(2)


def test_beta_trades_reconstruction_for_kl():
    """On the digits, more beta gives a smaller divergence and a larger reconstruction loss."""
    x, last = digits(), []
    sharp = {"name": "normal", "params": {"scale": 0.1}}
    for beta in (0.1, 1000.0):
        vae = make(
            narrow("mlp"), beta=beta, likelihood=sharp, max_epochs=100, lr=1e-2, batch_size=N
        )
        last.append(vae.fit(x).history_[-1])
    assert last[0]["train/kl_loss"] > 2 * last[1]["train/kl_loss"]
    assert last[0]["train/rec_loss"] < last[1]["train/rec_loss"]
