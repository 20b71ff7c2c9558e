"""The reference page, item by item: `nidl.estimators.autoencoders.vae.VAE` with modules handed in.

Every test names the item that it holds; docs/reference_page.md lists them in the page's order.
References are numpy and scipy in float64, computed from the z that a spying decoder was given.
"""

from __future__ import annotations

import csv
import inspect

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import CSVLogger
from scipy import stats
from sklearn.base import BaseEstimator, clone
from torch import nn
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, Normal
from torch.utils.data import DataLoader

from nidl_core.estimator import TransformerMixin
from nidl_vae import VAE, BetaVAELoss

L, F, SHAPE, D = 3, 5, (1, 2, 3), 6  # latent, features, (C, *S), values a sample


class SpyDecoder(nn.Module):
    """z -> p(x | z), whatever `make` makes of the linear output (N, *SHAPE); remembers z and that."""

    def __init__(self, make=lambda out: out) -> None:
        super().__init__()
        self.linear = nn.Linear(L, D)
        self.make = make

    def forward(self, z):
        self.z = z.detach()
        self.out = self.linear(z).view(-1, *SHAPE)
        return self.make(self.out)


def encoder():
    return nn.Sequential(nn.Flatten(), nn.Linear(D, F), nn.Tanh())


def images(n=16, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def make(decoder=None, **params):
    given = {"encoder_out_dim": F, "latent_dim": L, "random_state": 0, "max_epochs": 1, **params}
    return VAE(encoder(), decoder or SpyDecoder(), **given)


def posterior(vae, x):
    """Mean and standard deviation of q(z | x) (N, L), by numpy in float64."""
    h = np.tanh(linear(vae.encoder[1], x.flatten(1).numpy().astype(np.float64)))
    return linear(vae.fc_mu, h), np.exp(0.5 * linear(vae.fc_logvar, h))


def linear(layer, h):
    return h @ layer.weight.detach().numpy().T.astype(np.float64) + layer.bias.detach().numpy()


def narrow(vae):
    """A posterior of no width: what is sampled from it is its mean."""
    with torch.no_grad():
        vae.fc_logvar.weight.zero_()
        vae.fc_logvar.bias.fill_(-30.0)
    return vae


class Capture(Callback):
    """Runs `look(trainer, outputs)` at the end of each training batch, and keeps the last metrics."""

    def __init__(self, look=lambda trainer, outputs: None) -> None:
        self.look = look
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(self.look(trainer, outputs))

    def on_train_epoch_end(self, trainer, pl_module):
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


# The class ------------------------------------------------------------------------------------


def test_page_signature_has_the_pages_order_and_the_designs_defaults():
    parameters = list(inspect.signature(VAE).parameters.values())
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert {p.name: p.default for p in positional} == {
        "encoder": inspect.Parameter.empty,
        "decoder": inspect.Parameter.empty,
        "encoder_out_dim": None,
        "latent_dim": 32,
        "beta": 1.0,
        "default_dist": "normal",
        "stochastic_transform": True,
        "lr": 1e-4,
        "weight_decay": 0.01,
        "random_state": None,
    }
    assert [p.name for p in positional][:4] == [
        "encoder",
        "decoder",
        "encoder_out_dim",
        "latent_dim",
    ]
    assert [p.name for p in positional] == [p.name for p in parameters[:10]]
    assert {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} == {
        "likelihood": None,
        "loss": "beta_vae",
        "batch_size": 64,
        "num_workers": 0,
        "warm_start": False,
    }
    assert parameters[-1].kind is inspect.Parameter.VAR_KEYWORD


def test_page_all_parameters_may_be_given_by_position():
    values = (F, L, 2.0, "laplace", False, 1e-3, 0.1, 7)
    vae = VAE(encoder(), SpyDecoder(), *values)
    names = ["encoder_out_dim", "latent_dim", "beta", "default_dist", "stochastic_transform"]
    names += ["lr", "weight_decay", "random_state"]
    assert tuple(vae.get_params()[name] for name in names) == values
    assert tuple(getattr(vae, name) for name in names) == values


def test_page_bases_are_a_transformer_mixin_and_an_estimator_over_lightning():
    vae = make()
    assert isinstance(vae, TransformerMixin) and isinstance(vae, BaseEstimator)
    assert isinstance(vae, LightningModule)


# Parameters -----------------------------------------------------------------------------------


def test_page_encoder_maps_x_to_what_the_posterior_layers_read():
    vae, x = narrow(make()), images()
    expected, _ = posterior(vae, x)
    np.testing.assert_allclose(vae(x).detach(), expected, rtol=1e-5, atol=1e-6)


# name -> (what the decoder makes of its output o, default_dist, -log p of one value given o and x)
DECODERS = {
    "tensor-normal": (lambda o: o, "normal", lambda o, x: (x - o) ** 2),
    "tensor-laplace": (lambda o: o, "laplace", lambda o, x: np.abs(x - o)),
    "tensor-bernoulli": (
        torch.sigmoid,
        "bernoulli",
        lambda o, x: -(x * np.log(sigmoid(o)) + (1 - x) * np.log(1 - sigmoid(o))),
    ),
    "Normal": (lambda o: Normal(o, 0.3), "normal", lambda o, x: -stats.norm.logpdf(x, o, 0.3)),
    "Laplace": (lambda o: Laplace(o, 0.7), "normal", lambda o, x: -stats.laplace.logpdf(x, o, 0.7)),
    "Bernoulli": (
        lambda o: Bernoulli(logits=o),
        "normal",
        lambda o, x: np.logaddexp(0, o) - x * o,
    ),
    "Bernoulli-of-probabilities": (
        lambda o: Bernoulli(probs=torch.sigmoid(o)),
        "normal",
        lambda o, x: np.logaddexp(0, o) - x * o,
    ),
    "Independent": (
        lambda o: Independent(Normal(o, 2.0), 3),
        "laplace",
        lambda o, x: -stats.norm.logpdf(x, o, 2.0),
    ),
    "scale-from-the-decoder": (
        lambda o: Normal(o, torch.exp(o)),
        "normal",
        lambda o, x: -stats.norm.logpdf(x, o, np.exp(o)),
    ),
}


def sigmoid(o):
    return 1 / (1 + np.exp(-o))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", DECODERS)
def test_page_decoder_gives_a_tensor_or_a_distribution_and_losses_equal_the_pages_formulas(
    case, dtype
):
    decode, default_dist, nll = DECODERS[case]
    vae = make(SpyDecoder(decode), default_dist=default_dist, beta=2.5).to(dtype)
    x = images()
    losses = vae.training_step(x.to(dtype), 0)
    out = vae.decoder.out.detach().numpy().astype(np.float64)
    mean, std = posterior(vae, x)
    rec_loss = nll(out, x.numpy().astype(np.float64)).sum((1, 2, 3)).mean()
    kl_loss = (0.5 * (mean**2 + std**2 - 1 - np.log(std**2))).sum(1).mean()
    expected = {"loss": rec_loss + 2.5 * kl_loss, "rec_loss": rec_loss, "kl_loss": kl_loss}
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected, rel=rtol)


def test_page_decoder_is_given_a_sample_of_the_posterior():
    vae, x = make(), images(4000)[:1].expand(4000, -1, -1, -1)
    torch.manual_seed(0)
    vae.training_step(x, 0)
    mean, std = posterior(vae, x[:1])
    z = (vae.decoder.z.numpy() - mean) / std
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01


@pytest.mark.parametrize(
    ("default_dist", "expected"),
    [("normal", stats.norm(0, 0.5**0.5)), ("laplace", stats.laplace(0, 1)), ("bernoulli", None)],
)
def test_page_default_dist_is_the_distribution_that_a_tensor_is_the_mean_of(default_dist, expected):
    """The L2 loss is a Normal's -log p of variance 1/2 less a constant; L1 a Laplace's of scale 1."""
    squash = torch.sigmoid if default_dist == "bernoulli" else lambda o: o
    vae, x = make(SpyDecoder(squash), default_dist=default_dist, lr=1e-9), images().round()
    bound = narrow(vae.fit(x)).score(x)
    mean, _ = posterior(vae, x)
    out = linear(vae.decoder.linear, mean).reshape(-1, *SHAPE)
    data = x.numpy().astype(np.float64)
    if expected is None:
        log_prob = stats.bernoulli(sigmoid(out)).logpmf(data)
    else:
        log_prob = expected.logpdf(data - out)
    kl = (0.5 * (mean**2 - 1 + 30.0)).sum(1)
    assert bound == pytest.approx((log_prob.sum((1, 2, 3)) - kl).mean(), rel=1e-6)


def test_page_default_dist_takes_nothing_else():
    with pytest.raises(
        ValueError, match="default_dist.*'normal', 'laplace', 'bernoulli'.*'poisson'"
    ):
        make(default_dist="poisson")


def test_page_encoder_out_dim_is_the_width_that_the_posterior_layers_take():
    vae = VAE(encoder(), SpyDecoder(), encoder_out_dim=F, latent_dim=L)
    assert (vae.fc_mu.in_features, vae.fc_logvar.in_features) == (F, F)


def test_page_encoder_out_dim_may_be_left_out():
    vae = VAE(encoder(), SpyDecoder(), latent_dim=L)
    assert vae(images(2)).shape == (2, L)
    assert vae.fc_mu.in_features == F


def test_page_latent_dim_is_the_size_of_mean_and_log_variance():
    for size in (1, 7):
        vae = VAE(encoder(), nn.Linear(size, D), F, size)
        assert (vae.fc_mu.out_features, vae.fc_logvar.out_features) == (size, size)
        assert vae(images(4)).shape == (4, size)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_page_beta_scales_the_kl_divergence(beta):
    losses = make(beta=beta).training_step(images(), 0)
    assert losses["loss"].item() == pytest.approx(
        losses["rec_loss"].item() + beta * losses["kl_loss"].item(), rel=1e-6
    )
    assert losses["kl_loss"] > 1e-3


def test_page_beta_is_1_by_default():
    assert VAE(encoder(), SpyDecoder(), F, L).criterion.beta == 1.0


def test_page_stochastic_transform_true_samples_from_the_posterior():
    x = images(1).expand(4000, -1, -1, -1).clone()
    vae = make().fit(images())
    mean, std = posterior(vae, x[:1])
    torch.manual_seed(0)
    z = (vae.transform_step(x, 0).detach().numpy() - mean) / std
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(z.T) - np.eye(L)).max() < 0.06  # independent over dimensions
    rows = images(4000, seed=3)  # transform keys its noise by row: these are all different
    mean, std = posterior(vae, rows)
    z = (vae.transform(rows).numpy() - mean) / std
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01


def test_page_stochastic_transform_false_gives_the_posterior_mean():
    vae, x = make(stochastic_transform=False).fit(images()), images(6, seed=1)
    mean, _ = posterior(vae, x)
    np.testing.assert_allclose(vae.transform(x), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vae.transform_step(x, 0).detach(), mean, rtol=1e-5, atol=1e-6)


def test_page_lr_and_weight_decay_move_the_weights_as_adamw_says():
    """AdamW's first step is w (1 - lr·decay) - lr·sign(gradient) (Loshchilov & Hutter 2019)."""
    lr, decay = 0.01, 0.5
    decoder = SpyDecoder()
    vae = make(decoder, lr=lr, weight_decay=decay, max_steps=1, max_epochs=None).fit(images())
    before, after = decoder.linear.weight.detach(), vae.decoder.linear.weight.detach()
    step = (after - before * (1 - lr * decay)).abs()
    torch.testing.assert_close(step, torch.full_like(step, lr), rtol=1e-3, atol=0)


def test_page_random_state_makes_a_fit_reproducible():
    x, decoder, shared = images(), SpyDecoder(), encoder()

    def fitted(seed):
        vae = VAE(shared, decoder, F, L, random_state=seed, max_epochs=2, batch_size=4)
        return torch.cat([w.flatten() for w in vae.fit(x).state_dict().values()])

    assert torch.equal(fitted(3), fitted(3))
    assert not torch.equal(fitted(3), fitted(4))


def test_page_random_state_is_none_by_default_and_then_fits_differ():
    a, b = (make(random_state=None).fit(images()).fc_mu.weight for _ in range(2))
    assert not torch.equal(a, b)


def test_page_kwargs_are_trainer_parameters():
    seen = Capture(lambda t, _: (t.max_epochs, t.gradient_clip_val, t.accumulate_grad_batches))
    given = {"max_epochs": 3, "gradient_clip_val": 0.5, "accumulate_grad_batches": 2}
    vae = make(callbacks=[seen], **given).fit(images())
    assert seen.seen == [(3, 0.5, 2)] * 3
    assert {name: vae.get_params()[name] for name in given} == given


# Attributes -----------------------------------------------------------------------------------


def test_page_attributes_encoder_and_decoder_are_the_networks():
    given, decoder = encoder(), SpyDecoder()
    vae = VAE(given, decoder, F, L)
    for mine, theirs in [(vae.encoder, given), (vae.decoder, decoder)]:
        assert type(mine) is type(theirs) and isinstance(mine, nn.Module)
        for name, weight in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], weight)
    x = images()
    assert torch.equal(vae.encoder(x), given(x))


@pytest.mark.parametrize("head", ["fc_mu", "fc_logvar"])
def test_page_attributes_fc_mu_and_fc_logvar_are_linear_layers_from_h_to_the_latents(head):
    layer = getattr(make(), head)
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (F, L)
    assert layer.bias is not None


def test_page_fc_mu_and_fc_logvar_are_trained_with_the_networks():
    decoder, mine = SpyDecoder(), encoder()
    vae = VAE(mine, decoder, F, L, random_state=0, max_epochs=1)
    before = {name: w.clone() for name, w in vae.state_dict().items()}
    vae.fit(images())
    assert {name.split(".")[0] for name in before} == {"encoder", "decoder", "fc_mu", "fc_logvar"}
    for name, weight in vae.state_dict().items():
        assert not torch.equal(weight, before[name]), name


def test_known_from_the_reference_criterion_is_a_beta_vae_loss_of_the_live_parameters():
    vae = make(beta=4.0, default_dist="laplace")
    assert isinstance(vae.criterion, BetaVAELoss)
    assert (vae.criterion.beta, vae.criterion.default_dist) == (4.0, "laplace")


# Methods --------------------------------------------------------------------------------------


def test_page_configure_optimizers_declares_one_adamw_over_all_parameters():
    vae = make(lr=0.02, weight_decay=0.3)
    optimizers = vae.configure_optimizers()
    assert isinstance(optimizers, list) and len(optimizers) == 1
    (optimizer,) = optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    assert {id(p) for p in group["params"]} == {id(p) for p in vae.parameters()}


def test_page_configure_optimizers_has_the_pages_defaults():
    (optimizer,) = VAE(encoder(), SpyDecoder(), F, L).configure_optimizers()
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-4, 0.01)


def test_page_forward_encodes_and_samples_from_the_posterior():
    vae, x = make(), images(1).expand(4000, -1, -1, -1)
    torch.manual_seed(0)
    z = vae(x)
    assert z.shape == (4000, L) and z.requires_grad
    mean, std = posterior(vae, x[:1])
    assert stats.kstest(((z.detach().numpy() - mean) / std).ravel(), "norm").pvalue > 0.01


def test_page_sample_decodes_latents_of_the_prior():
    """A decoder that hands z through shows the latents: standard normal."""
    vae = VAE(nn.Flatten(), nn.Identity(), D, D)
    torch.manual_seed(0)
    x = vae.sample(3000)
    assert x.shape == (3000, D)
    assert stats.kstest(x.numpy().ravel(), "norm").pvalue > 0.01


@pytest.mark.parametrize("case", DECODERS)
def test_page_sample_gives_a_tensor_before_and_after_fit(case):
    decode, default_dist, _ = DECODERS[case]
    vae = make(SpyDecoder(decode), default_dist=default_dist)
    for model in (vae, vae.fit((images() > 0.5).float())):
        x = model.sample(3)
        assert type(x) is torch.Tensor and x.shape == (3, *SHAPE) and x.isfinite().all()


@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_page_steps_return_exactly_three_scalars_before_fit(step):
    losses = getattr(make(), step)(images(), 0)
    assert set(losses) == {"loss", "rec_loss", "kl_loss"}
    assert all(isinstance(v, torch.Tensor) and v.shape == () for v in losses.values())
    losses["loss"].backward()


@pytest.mark.parametrize("step", ["training_step", "validation_step", "transform_step"])
def test_page_steps_ignore_batch_idx_and_dataloader_idx(step):
    vae, x = make(), images()
    answers = []
    for arguments in [(0,), (5, 3), (1, None)]:
        torch.manual_seed(1)
        answers.append(getattr(vae, step)(x, *arguments))
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0], rtol=0, atol=0)
    torch.manual_seed(1)
    torch.testing.assert_close(
        getattr(vae, step)(batch=x, batch_idx=2, dataloader_idx=1), answers[0], rtol=0, atol=0
    )


def test_page_validation_step_computes_what_training_step_does():
    vae, x = make(), images()
    torch.manual_seed(0)
    trained = vae.training_step(x, 0)
    torch.manual_seed(0)
    assert vae.validation_step(x, 0) == trained


def test_page_transform_step_gives_latents_before_fit():
    x = images()
    vae = make(stochastic_transform=False)
    mean, _ = posterior(vae, x)
    np.testing.assert_allclose(vae.transform_step(x, 0).detach(), mean, rtol=1e-5, atol=1e-6)
    vae = make()
    assert vae.transform_step(x, 0).shape == (len(x), L)
    assert not torch.equal(vae.transform_step(x, 0), vae.transform_step(x, 0))


def test_page_training_step_logs_the_three_losses_that_it_returns():
    seen = Capture(lambda _, outputs: {k: v.item() for k, v in outputs.items()})
    make(callbacks=[seen]).fit(images())  # one batch an epoch
    for name in ("loss", "rec_loss", "kl_loss"):
        assert seen.metrics[f"train/{name}"] == pytest.approx(seen.seen[0][name], rel=1e-6)


def test_page_training_losses_are_means_over_the_epochs_rows():
    """19 rows in batches of 8: the last batch has 3 rows, and weighs 3."""
    seen = Capture(lambda _, outputs: outputs["loss"].item())
    make(callbacks=[seen], batch_size=8).fit(images(19))
    assert seen.metrics["train/loss"] == pytest.approx(np.average(seen.seen, weights=[8, 8, 3]))


def test_page_validation_step_logs_the_three_losses():
    """A decoder that ignores z leaves no noise in the losses: means over 19 rows in batches of 8."""
    decoder, x = SpyDecoder(), images(19, seed=1)
    nn.init.zeros_(decoder.linear.weight)
    seen = Capture()
    vae = make(decoder, callbacks=[seen], lr=1e-12, beta=3.0, batch_size=8).fit(images(), val=x)
    mean, std = posterior(vae, x)
    kl_loss = (0.5 * (mean**2 + std**2 - 1 - np.log(std**2))).sum(1).mean()
    constant = decoder.linear.bias.detach().view(1, *SHAPE)
    rec_loss = ((x - constant) ** 2).sum((1, 2, 3)).mean().item()
    expected = {"loss": rec_loss + 3 * kl_loss, "rec_loss": rec_loss, "kl_loss": kl_loss}
    for name, value in expected.items():
        assert seen.metrics[f"val/{name}"] == pytest.approx(value, rel=1e-5), name


def test_page_losses_reach_a_logger_by_the_pages_names(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    make(logger=logger, max_epochs=2, log_every_n_steps=1).fit(images(), val=images())
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for stage in ("train", "val"):
        for name in ("loss", "rec_loss", "kl_loss"):
            logged = [float(row[f"{stage}/{name}"]) for row in rows if row[f"{stage}/{name}"]]
            assert len(logged) == 2 and np.isfinite(logged).all()


def loader(seed, **options):
    return DataLoader(images(16, seed), batch_size=8, **options)


FITS = {
    "by position": lambda vae: vae.fit(loader(0), loader(1)),
    "by keyword": lambda vae: vae.fit(train_dataloader=loader(0), val_dataloader=loader(1)),
    "the second by keyword": lambda vae: vae.fit(loader(0), val_dataloader=loader(1)),
}


@pytest.mark.parametrize("form", FITS)
def test_page_fit_takes_a_train_and_a_val_dataloader(form):
    reference = make().fit(loader(0), val=loader(1))
    vae = clone(reference)
    assert FITS[form](vae) is vae
    assert vae.history_ == reference.history_
    assert "val/loss" in vae.history_[0]


def test_page_fit_needs_no_val_dataloader():
    vae = make().fit(train_dataloader=loader(0))
    assert not any(name.startswith("val/") for name in vae.history_[0])


def test_page_fit_and_transform_take_loaders_and_give_the_latent_embeddings():
    vae = make(stochastic_transform=False).fit(loader(0))
    z = vae.transform(loader(2))
    assert isinstance(z, torch.Tensor) and z.shape == (16, L) and not z.requires_grad
    np.testing.assert_allclose(z, posterior(vae, images(16, 2))[0], rtol=1e-5, atol=1e-6)


def test_page_losses_compare_by_the_closed_form_of_torch():
    """kl_loss = D_KL(q(z|x) || N(0, I)), independently by torch.distributions."""
    vae, x = make(), images()
    mean, std = map(torch.from_numpy, posterior(vae, x))
    prior: Distribution = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(Normal(mean, std), prior).sum(1).mean()
    assert vae.training_step(x, 0)["kl_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
