"""A second fit begins like the first, whatever happened in between; and what checks look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import StochasticWeightAveraging, TQDMProgressBar
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.utils.data import DataLoader, IterableDataset

from nidl_core.errors import DataError, DataTypeError, NonFiniteError, ShapeError, SpecError
from nidl_core.interfaces import Likelihood
from nidl_vae import VAE, BetaVAELoss
from nidl_vae.bound import log_prob

L, D = 2, 6


_DECODER = nn.Linear(L, D)


def make(encoder=None, decoder=None, **params):
    """The same initial weights at each call: estimators train copies."""
    given = {"latent_dim": L, "encoder_out_dim": D, "max_epochs": 1, "batch_size": 4, **params}
    return VAE(encoder or nn.Flatten(), decoder or _DECODER, random_state=0, **given)


@pytest.fixture
def x():
    return torch.randn(12, D, generator=torch.Generator().manual_seed(0))


class Scaled(Likelihood):
    """Counts the training batches that it sees, and learns their scale."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def observe(self, x, theta):
        self.seen += 1

    def forward(self, theta):
        (mu,) = self.split(theta)
        return Independent(Normal(mu, 1.0), mu.ndim - 1)


class Interrupt(Callback):
    armed = True

    def on_validation_batch_start(self, *_):
        if self.armed:
            raise KeyboardInterrupt


def test_a_fit_after_one_interrupted_in_validation_is_as_a_first_one(x):
    reference = make(likelihood=Scaled()).fit(x, val=x)
    callback = Interrupt()
    vae = make(likelihood=Scaled(), callbacks=callback)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(x, val=x)
    callback.armed = False
    vae.fit(x, val=x)
    assert vae.likelihood.seen == reference.likelihood.seen == 3
    assert torch.equal(vae.fc_mu.weight, reference.fc_mu.weight)
    assert vae.eval().fit(x, val=x).likelihood.seen == 3


@pytest.mark.parametrize(
    "decoder",
    [
        lambda z: Normal(z.repeat(1, 3), 1.0),
        lambda z: Independent(Bernoulli(logits=z.repeat(1, 3)), 1),
    ],
    ids=["normal", "bernoulli"],
)
@pytest.mark.parametrize("stage", ["train", "val"])
def test_nan_behind_an_error_of_a_distribution_is_told_as_nan(decoder, stage, x):
    class Decoder(nn.Linear):
        def forward(self, z):
            return decoder(super().forward(z))

    good = (x > 0).float()
    bad = good.clone()
    bad[5] = torch.nan
    loaders = {k: DataLoader(bad if k == stage else good, batch_size=4) for k in ("train", "val")}
    with pytest.raises(NonFiniteError, match="the batch itself contains NaN") as caught:
        make(decoder=Decoder(L, L)).fit(loaders["train"], val=loaders["val"])
    assert caught.value.epoch == 0


def test_a_fitted_estimator_is_shown_in_a_notebook_alone_and_in_a_pipeline(x):
    vae = make().fit(x)
    assert "VAE" in vae._repr_html_()
    assert "VAE" in make_pipeline(StandardScaler(), vae)._repr_html_()
    assert not hasattr(vae, "trainer")


def test_equal_values_set_again_change_nothing_for_a_warm_start(x):
    vae = make(warm_start=True).fit(x)
    vae.set_params(latent_dim=int("2"), encoder_out_dim=int("6")).fit(x)
    assert vae.set_params(beta=3.0).criterion.beta == 3.0


def test_warm_fits_do_not_repeat_the_same_noise(x):
    vae = make(warm_start=True).fit(x)
    first = vae.seed_
    assert vae.fit(x).seed_ != first
    assert make(warm_start=True).fit(x).fit(x).seed_ == vae.seed_


def test_a_progress_bar_that_is_given_needs_no_terminal(x):
    assert make(callbacks=[TQDMProgressBar()]).fit(x)._fitted


def test_stateful_callbacks_of_lightning_can_be_used_in_a_second_fit(x):
    make(max_epochs=2, callbacks=StochasticWeightAveraging(1e-2)).fit(x).fit(x)


def test_overfit_batches_gives_the_same_batches_in_each_epoch(x):
    class Seen(Callback):
        def __init__(self):
            self.sums = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.sums.append(batch.sum().item())

    seen = Seen()
    make(max_epochs=3, overfit_batches=1, callbacks=seen, limit_val_batches=0).fit(x)
    assert len(set(seen.sums)) == 1
    assert len(seen.sums) == 3


def test_history_has_validation_figures_only_where_there_was_validation(x):
    rows = make(max_epochs=4, check_val_every_n_epoch=2).fit(x, val=x).history_
    assert ["val/loss" in row for row in rows] == [False, True, False, True]


def test_what_modules_share_their_copies_share_also_in_clones(x):
    shared = nn.Linear(D, L, bias=False)

    class Back(nn.Module):
        def __init__(self):
            super().__init__()
            self.forth = shared

        def forward(self, z):
            return z @ self.forth.weight

    vae = make(encoder=shared, decoder=Back(), encoder_out_dim=L)
    for each in (vae, clone(vae), vae.fit(x), clone(vae).fit(x)):
        assert each.encoder is each.decoder.forth
        assert each.encoder is not shared


def test_validation_data_outside_the_support_are_refused():
    binary = (torch.rand(12, D, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    decoder = nn.Sequential(nn.Linear(L, D), nn.Sigmoid())
    with pytest.raises(DataError, match=r"takes data in \[0, 1\]"):
        make(decoder=decoder, default_dist="bernoulli").fit(binary, val=binary * 100)


def test_soft_targets_of_a_bernoulli_decoder_are_called_a_cross_entropy_once():
    soft = torch.rand(12, D, generator=torch.Generator().manual_seed(0))
    vae = make(decoder=nn.Sequential(nn.Linear(L, D), nn.Sigmoid()), default_dist="bernoulli")
    with pytest.warns(UserWarning, match="cross-entropy, not a likelihood") as caught:
        vae.fit(soft, val=soft).score(soft)
    assert len(caught) == 1


def test_a_stream_gives_each_row_once_whatever_num_workers(x):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(x)

    vae = make(num_workers=2, stochastic_transform=False).fit(x)
    assert torch.equal(vae.transform(Stream()), vae.transform(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_distributions_are_raised_to_float32(dtype):
    theta = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).to(dtype)
    target = (torch.rand(2, 5000, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    for half, full in [
        (Bernoulli(logits=theta), Bernoulli(logits=theta.double())),
        (Normal(theta, theta.exp()), Normal(theta.double(), theta.exp().double())),
    ]:
        found = log_prob(Independent(half, 1), target)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found.double(), full.log_prob(target.double()).sum(1), rtol=1e-6, atol=0
        )


def test_latents_come_back_from_any_form_that_transform_gives(x):
    pandas = pytest.importorskip("pandas")
    vae = make(stochastic_transform=False).fit(x.numpy())
    z = vae.transform(x.numpy())
    expected = vae.inverse_transform(z)
    np.testing.assert_array_equal(vae.inverse_transform(pandas.DataFrame(z)), expected)
    np.testing.assert_array_equal(vae.inverse_transform(z[::-1]), expected[::-1])
    with pytest.raises(DataError, match="NaN"):
        vae.inverse_transform(z * np.nan)
    with pytest.raises(ShapeError, match=r"latents have the shape \(N, 2\), got \(12, 1\)"):
        vae.inverse_transform(z[:, :1])


def test_a_loss_may_give_plain_numbers_but_only_scalars(x):
    class Plain(BetaVAELoss):
        def forward(self, x, p, q, z=None):
            return {**super().forward(x, p, q), "temperature": 0.5}

    class Unreduced(BetaVAELoss):
        def forward(self, x, p, q, z=None):
            return {"loss": (x - p).square().sum(1)}

    assert make(loss=Plain()).fit(x).history_[-1]["train/temperature"] == 0.5
    with pytest.raises(SpecError, match=r"must give scalars.*\{'loss': \(4,\)\}"):
        make(loss=Unreduced()).fit(x)


def test_a_likelihood_that_gives_no_distribution_is_told_by_name(x):
    class Raw(Likelihood):
        def forward(self, theta):
            return theta

    with pytest.raises(SpecError, match=r"the likelihood Raw must return a torch.distributions"):
        make(likelihood=Raw()).fit(x)


def test_a_decoder_for_another_latent_dim_is_a_shape_error(x):
    with pytest.raises(
        ShapeError, match=r"the decoder cannot take z of shape \(N, 2\), latent_dim being 2"
    ):
        make(decoder=nn.Linear(5, D)).fit(x)


def test_images_in_second_place_are_not_taken_for_labels():
    images = torch.rand(8, 1, 2, 3)
    with pytest.raises(DataTypeError, match=r"fit\(X, val=...\)"):
        make().fit(images, images)


def test_a_components_parameter_at_construction_is_told_where_it_goes():
    with pytest.raises(
        TypeError, match=r"Give loss__beta by set_params, or as loss=\{'name': ..., 'params'"
    ):
        make(loss__beta=2.0)


def test_images_are_compared_by_their_whole_shape_in_our_words():
    vae = make(decoder=nn.Sequential(nn.Linear(L, D), nn.Unflatten(1, (1, 2, 3)))).fit(
        torch.rand(8, 1, 2, 3).numpy()
    )
    for wrong in ((8, 2, 3), (8, 2, 2, 3)):
        with pytest.raises(ShapeError, match=r"this model takes data of shape \(N, 1, 2, 3\)"):
            vae.transform(np.zeros(wrong, dtype=np.float32))
    with pytest.raises(ShapeError, match=r"One sample is x\[None\]"):
        vae.transform(np.zeros((1, 2, 3), dtype=np.float32))


def test_score_samples_takes_a_numpy_integer_for_k(x):
    vae = make().fit(x)
    assert torch.equal(vae.score_samples(x, K=np.int64(4)), vae.score_samples(x, K=4))
