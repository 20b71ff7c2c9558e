"""Known faults of the reference implementation, each held to be better here.

What a user may hand in, what is told in plain words, and which parameters reach the loss. `sample`
has test_vae_sample.py, the life of a fit test_vae_fit.py.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from nidl_core.errors import (
    DataError,
    InvalidParameter,
    NidlError,
    NonFiniteError,
    ShapeError,
    SpecError,
    UnknownComponent,
    UnknownParameter,
)
from nidl_vae import VAE, BetaVAELoss

L, D, N = 2, 6, 12

_ENCODER, _DECODER = nn.Sequential(nn.Flatten(), nn.Linear(D, 5), nn.Tanh()), nn.Linear(L, D)


def make(encoder=None, decoder=None, **params):
    """The same initial weights at each call: estimators train copies."""
    given = {"latent_dim": L, "random_state": 0, "max_epochs": 1, "batch_size": 4, **params}
    return VAE(encoder or _ENCODER, decoder or _DECODER, **given)


def rows(n=N):
    """Small whole numbers: equal in each dtype."""
    return torch.randint(0, 5, (n, D), generator=torch.Generator().manual_seed(0)).float()


def weights(vae):
    return torch.cat([w.flatten().double() for w in vae.state_dict().values()])


# Data -----------------------------------------------------------------------------------------

HELD_IN_MEMORY = {
    "float64 tensor": lambda x: x.double(),
    "int64 tensor": lambda x: x.long(),
    "uint8 tensor": lambda x: x.byte(),
    "float16 tensor": lambda x: x.half(),
    "bfloat16 tensor": lambda x: x.bfloat16(),
    "non-contiguous tensor": lambda x: x.t().contiguous().t(),
    "strided tensor": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "tensor with gradients": lambda x: x.clone().requires_grad_(),
    "TensorDataset of x": lambda x: TensorDataset(x),
    "TensorDataset of (x, y)": lambda x: TensorDataset(x.double(), torch.arange(len(x))),
    "float32 array": lambda x: x.numpy(),
    "float64 array": lambda x: x.double().numpy(),
    "int array": lambda x: x.int().numpy(),
    "uint16 array": lambda x: x.numpy().astype(np.uint16),
    "bool-free big-endian array": lambda x: x.numpy().astype(">f8"),
    "Fortran array": lambda x: np.asfortranarray(x.numpy()),
    "reversed array": lambda x: np.ascontiguousarray(x.numpy()[::-1])[::-1],
    "list of lists": lambda x: x.tolist(),
}


@pytest.mark.parametrize("form", HELD_IN_MEMORY)
def test_data_in_memory_give_the_weights_and_latents_of_a_float32_tensor(form):
    x = rows()
    data = HELD_IN_MEMORY[form](x)
    reference = make(stochastic_transform=False).fit(x)
    vae = make(stochastic_transform=False).fit(data)
    assert torch.equal(weights(vae), weights(reference))
    assert {w.dtype for w in vae.parameters()} == {torch.float32}
    z = vae.transform(data)
    assert isinstance(z, np.ndarray) == isinstance(data, (np.ndarray, list))
    assert torch.equal(torch.as_tensor(z), reference.transform(x))


class Pairs(Dataset):
    """(x, y) rows, x in float64."""

    def __init__(self, x) -> None:
        self.x = x.double()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], {"subject": i}


class Stream(IterableDataset):
    def __init__(self, x) -> None:
        self.x = x

    def __iter__(self):
        return iter(self.x)


class Chunks:
    """No Dataset, no DataLoader: an iterable of batches."""

    def __init__(self, x) -> None:
        self.x = x

    def __iter__(self):
        return iter(self.x.split(4))


LOADED = {
    "DataLoader of x": lambda x: DataLoader(x, batch_size=4),
    "DataLoader of (x, y)": lambda x: DataLoader(TensorDataset(x, x.sum(1)), batch_size=4),
    "DataLoader of a Dataset": lambda x: DataLoader(Pairs(x), batch_size=4),
    "DataLoader of a stream": lambda x: DataLoader(Stream(x), batch_size=4),
    "DataLoader of arrays": lambda x: DataLoader(
        x.numpy(), batch_size=4, collate_fn=lambda items: np.stack(items)
    ),
    "IterableDataset": lambda x: Stream(x),
    "iterable of batches": lambda x: Chunks(x),
    "list-batches of integers": lambda x: DataLoader(x.long(), batch_size=4),
}


@pytest.mark.parametrize("form", LOADED)
def test_data_from_loaders_give_one_set_of_weights_and_latents(form):
    x = rows()
    reference = make(stochastic_transform=False).fit(DataLoader(x, batch_size=4))
    vae = make(stochastic_transform=False).fit(LOADED[form](x))
    assert torch.equal(weights(vae), weights(reference))
    z = vae.transform(LOADED[form](x))
    assert isinstance(z, torch.Tensor) and torch.equal(z, reference.transform(x))


def test_data_sets_are_shuffled_by_random_state():
    fits = [weights(make(random_state=seed).fit(Pairs(rows()))) for seed in (0, 0, 1)]
    assert torch.equal(fits[0], fits[1]) and not torch.equal(fits[0], fits[2])


def test_steps_take_pairs_and_other_dtypes():
    vae, x = make(encoder_out_dim=5, stochastic_transform=False), rows()
    expected = vae.transform_step(x, 0)
    for batch in [(x, x.sum(1)), [x.double()], x.long(), x.t().contiguous().t()]:
        assert torch.equal(vae.transform_step(batch, 0), expected)
        assert set(vae.training_step(batch, 0)) == {"loss", "rec_loss", "kl_loss"}


# Told in plain words --------------------------------------------------------------------------


class Empty(IterableDataset):
    def __iter__(self):
        return iter(())


EMPTY = {
    "loader": lambda: DataLoader(TensorDataset(torch.zeros(0, D)), batch_size=4),
    "drop_last": lambda: DataLoader(torch.zeros(3, D), batch_size=4, drop_last=True),
    "stream": lambda: Empty(),
    "loader of a stream": lambda: DataLoader(Empty(), batch_size=4),
    "tensor": lambda: torch.zeros(0, D),
    "data set": lambda: TensorDataset(torch.zeros(0, D)),
}


@pytest.mark.parametrize("form", EMPTY)
def test_empty_data_are_refused_in_words(form):
    for data, val in [(EMPTY[form](), None), (rows(), EMPTY[form]())]:
        with pytest.raises(DataError, match="empty"):
            make().fit(data, val=val)


def test_wrong_encoder_out_dim_says_both_numbers():
    with pytest.raises(ShapeError, match="encoder_out_dim is 7, but the encoder gives 5") as error:
        make(encoder_out_dim=7).fit(rows())
    assert "encoder_out_dim=5" in str(error.value)


@pytest.mark.parametrize(
    "decoder",
    [
        nn.Sequential(nn.Linear(L, D), nn.Unflatten(1, (1, D))),
        nn.Linear(L, 1),
        nn.Sequential(nn.Linear(L, D + 1)),
    ],
    ids=["an axis more", "one value", "another size"],
)
def test_a_decoder_of_another_shape_is_told_both_shapes_and_not_broadcast(decoder):
    with pytest.raises(ShapeError, match="nothing is broadcast") as error:
        make(decoder=decoder).fit(rows())
    expected = tuple(decoder(torch.zeros(1, L)).shape)
    assert str(expected) in str(error.value) and str((1, D)) in str(error.value)


class Fixed(nn.Module):
    """Gives one image, or a distribution over one, however many latents it gets."""

    def __init__(self, make=lambda out: out) -> None:
        super().__init__()
        self.image, self.make = nn.Parameter(torch.zeros(1, D)), make

    def forward(self, z):
        return self.make(self.image)


@pytest.mark.parametrize(
    "make_p", [lambda o: o, lambda o: Normal(o, 1.0), lambda o: Independent(Normal(o, 1.0), 1)]
)
def test_a_decoder_that_gives_one_image_for_a_batch_is_not_broadcast(make_p):
    with pytest.raises(ShapeError, match=r"\(1, 6\) for data of shape \(4, 6\)"):
        make(decoder=Fixed(make_p)).fit(rows())
    with pytest.raises(ShapeError, match="nothing is broadcast"):
        make(decoder=Fixed(make_p), encoder_out_dim=5).training_step(rows(), 0)


def test_a_decoder_that_gives_neither_tensor_nor_distribution_is_told():
    class Pair(nn.Linear):
        def forward(self, z):
            return super().forward(z), z

    with pytest.raises(
        ShapeError, match="a tensor or a torch.distributions.Distribution, got.*tuple"
    ):
        make(decoder=Pair(L, D)).fit(rows())


def test_an_encoder_that_does_not_flatten_is_told_to():
    with pytest.raises(
        ShapeError, match=r"\(N, F\) for x of shape \(N, 2, 3\), got \(N, 2, 3\). Add nn.Flatten"
    ):
        make(encoder=nn.Linear(3, 3)).fit(torch.zeros(4, 2, 3))


CONV = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())  # x (N, 1, 8, 8) -> h (N, 144)
TO_IMAGE = nn.Sequential(nn.Linear(L, 64), nn.Unflatten(1, (1, 8, 8)))
TO_SLICE = nn.Sequential(nn.Linear(L, 64), nn.Unflatten(1, (8, 8)))


def test_wrong_rank_of_a_single_sample_is_told_with_the_remedy():
    with pytest.raises(DataError, match=r"expected x of shape \(N, C, \*S\) or \(N, features\)"):
        make().fit(torch.zeros(D))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        make().fit(np.zeros(D))


@pytest.mark.parametrize(
    "decoder", [TO_IMAGE, TO_SLICE], ids=["decoder (1, 8, 8)", "decoder (8, 8)"]
)
@pytest.mark.parametrize("width", [144, None])
def test_wrong_rank_images_without_a_channel_axis_are_not_read_as_one_image(decoder, width):
    """torch's convolutions take (1, 8, 8) for one image without a batch axis: the probe must not."""
    with pytest.raises(ShapeError, match=r"\(12, 8, 8\)|\(1, 8, 8\)|\(N, 8, 8\)") as error:
        make(CONV, decoder, encoder_out_dim=width).fit(torch.rand(N, 8, 8))
    assert "encoder_out_dim=36" not in str(error.value)  # 36 is no width of that encoder


@pytest.mark.parametrize("shape", [(64,), (1, 1, 8, 8)], ids=["flat rows", "an axis too many"])
def test_wrong_rank_for_the_encoder_is_a_shape_error_that_says_what_came(shape):
    with pytest.raises(ShapeError) as error:
        make(CONV, TO_IMAGE).fit(torch.rand(N, *shape))
    assert str(shape)[1:-1].rstrip(",") in str(error.value)


def test_wrong_number_of_features_for_the_encoder_is_a_shape_error():
    with pytest.raises(ShapeError, match="7"):
        make(decoder=nn.Linear(L, 7)).fit(torch.rand(N, 7))


@pytest.mark.parametrize("shape", [(N, D + 1), (N, 1, D), (N, 2, 3)])
@pytest.mark.parametrize("verb", ["transform", "score", "score_samples", "reconstruct"])
def test_another_shape_than_the_fitted_one_is_told_by_every_verb(verb, shape):
    vae = make().fit(rows())
    with pytest.raises(ShapeError, match=r"takes data of shape \(N, 6\), got \(4, "):
        getattr(vae, verb)(torch.zeros(shape))


def test_validation_data_of_another_shape_are_told():
    with pytest.raises(ShapeError, match=r"\(N, 6\)|\(12, 7\)|\(4, 7\)"):
        make().fit(rows(), val=torch.zeros(N, 7))


def test_latents_of_another_width_are_told():
    with pytest.raises(ShapeError, match=r"latents have the shape \(N, 2\), got \(3, 5\)"):
        make().fit(rows()).inverse_transform(torch.zeros(3, 5))


IMPOSSIBLE = [
    ("latent_dim", 0),
    ("latent_dim", -1),
    ("latent_dim", 2.5),
    ("latent_dim", True),
    ("latent_dim", "2"),
    ("encoder_out_dim", 0),
    ("beta", -1),
    ("beta", float("nan")),
    ("beta", float("inf")),
    ("beta", "1"),
    ("beta", None),
    ("lr", float("nan")),
    ("lr", 0),
    ("lr", -1e-3),
    ("weight_decay", -0.1),
    ("weight_decay", float("nan")),
    ("batch_size", 0),
    ("batch_size", 1.5),
    ("num_workers", -1),
    ("random_state", -1),
    ("random_state", "zero"),
    ("random_state", 2**32),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
@pytest.mark.parametrize("way", ["constructor", "set_params", "assignment"])
def test_impossible_values_are_told_by_name_at_fit_and_not_before(name, value, way):
    if way == "constructor":
        vae = make(**{name: value})
    else:
        vae = make(encoder_out_dim=5)
        if way == "set_params":
            vae.set_params(**{name: value})
        else:
            setattr(vae, name, value)
    assert repr(vae.get_params()[name]) == repr(value)
    with pytest.raises(InvalidParameter, match=f"^{name} must be") as error:
        vae.fit(rows())
    assert error.value.parameter == name and repr(value) in str(error.value)
    with pytest.raises(NotFittedError):
        vae.transform(rows())
    good = clone(make()).get_params()[name]
    assert vae.set_params(**{name: good}).fit(rows()).transform(rows()).shape == (N, L)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("latnt_dim", "latent_dim"), ("max_epoch", "max_epochs"), ("warmstart", "warm_start")],
)
def test_a_misspelt_keyword_is_told_at_construction_with_the_nearest(wrong, meant):
    with pytest.raises(
        UnknownParameter, match=f"VAE has no parameter '{wrong}'. Did you mean '{meant}'"
    ):
        make(**{wrong: 1})
    vae = make()
    before = vae.get_params()
    with pytest.raises(UnknownParameter, match=f"'{meant}'"):
        vae.set_params(beta=5.0, **{wrong: 1})
    assert vae.get_params() == before and vae.criterion.beta == 1.0


def test_a_keyword_that_is_like_nothing_is_told_with_what_is_taken():
    with pytest.raises(UnknownParameter, match="It takes: encoder, decoder, .*Lightning's Trainer"):
        make(xyzzy=1)


def test_an_unknown_component_fails_at_construction():
    with pytest.raises(UnknownComponent, match="no loss named 'beta_vea'. Did you mean 'beta_vae'"):
        make(loss="beta_vea")
    for name in ("encoder", "decoder"):
        with pytest.raises(SpecError, match=f"{name} must be"):
            make(**{name: 3})


# NaN and infinity -----------------------------------------------------------------------------


class Spoils(nn.Module):
    """A decoder whose output (or gradient) becomes `value` at training step number `at`."""

    def __init__(self, at, value=float("nan"), *, gradient=False) -> None:
        super().__init__()
        self.linear = nn.Linear(L, D)
        self.at, self.value, self.gradient, self.calls = at, value, gradient, 0

    def forward(self, z):
        out = self.linear(z)
        if self.training:
            self.calls += 1
            if self.calls == self.at + 1 and self.gradient:
                out.register_hook(lambda grad: grad * self.value)
            elif self.calls == self.at + 1:
                out = out * self.value
        return out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_fit_and_names_epoch_step_and_causes(value):
    vae = make(decoder=Spoils(4, value), max_epochs=3)  # 3 steps an epoch
    with pytest.raises(NonFiniteError, match="not finite at epoch 1, step 4") as error:
        vae.fit(rows())
    assert (error.value.epoch, error.value.step) == (1, 4)
    assert any("learning rate" in cause for cause in error.value.causes)
    assert vae.decoder.calls == 5  # it did not train on
    with pytest.raises(NotFittedError):
        vae.transform(rows())


def test_a_loss_that_is_not_finite_is_blamed_on_data_of_large_scale():
    with pytest.raises(NonFiniteError) as error:
        make(max_epochs=3).fit(rows() * 1e25)
    assert any("standardise" in cause for cause in error.value.causes)


def test_a_gradient_that_is_not_finite_is_found_in_the_next_step():
    with pytest.raises(NonFiniteError, match="epoch 0, step 2") as error:
        make(decoder=Spoils(1, gradient=True)).fit(rows())
    assert any("diverged" in cause for cause in error.value.causes)


def test_a_gradient_that_is_not_finite_in_the_very_last_step_is_found_too():
    vae = make(decoder=Spoils(2, gradient=True))
    with pytest.raises(NonFiniteError, match="a weight") as error:
        vae.fit(rows())
    assert (error.value.epoch, error.value.step) == (0, 2)  # one epoch of three steps, from 0
    with pytest.raises(NotFittedError):
        vae.transform(rows())


def with_nan(value=float("nan")):
    x = rows()
    x[5, 3] = value
    return x


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["tensor", "array", "TensorDataset"])
def test_data_in_memory_that_are_not_finite_are_refused_before_training(kind, value):
    kinds = {"tensor": lambda x: x, "array": lambda x: x.numpy(), "TensorDataset": TensorDataset}
    for data, val in [(with_nan(value), None), (rows(), with_nan(value))]:
        with pytest.raises(ValueError, match="(NaN|infinity|infinite)"):
            make().fit(kinds[kind](data), val=None if val is None else kinds[kind](val))


def test_a_batch_that_is_not_finite_stops_the_fit_and_is_named_as_the_cause():
    """Row 5 is in the second batch of a loader in order."""
    with pytest.raises(NonFiniteError, match="epoch 0, step 1") as error:
        make().fit(DataLoader(with_nan(), batch_size=4))
    assert "batch itself contains NaN" in str(error.value)


def test_a_validation_batch_that_is_not_finite_stops_the_fit_too():
    with pytest.raises(NonFiniteError, match="validation"):
        make().fit(rows(), val=DataLoader(with_nan(), batch_size=4))


@pytest.mark.parametrize("verb", ["transform", "score", "reconstruct"])
def test_inference_refuses_data_in_memory_that_are_not_finite(verb):
    with pytest.raises(ValueError, match="NaN"):
        getattr(make().fit(rows()), verb)(with_nan())


def test_data_outside_the_unit_interval_are_refused_by_a_bernoulli_decoder():
    to_p = nn.Sequential(nn.Linear(L, D), nn.Sigmoid())

    class Logits(nn.Linear):
        def forward(self, z):
            return Bernoulli(logits=super().forward(z))

    for vae in (make(decoder=to_p, default_dist="bernoulli"), make(decoder=Logits(L, D))):
        with pytest.raises(DataError, match=r"data in \[0, 1\], got values in \[0, 4\]"):
            vae.fit(rows())
    with pytest.raises(DataError, match=r"probabilities.*nn.Sigmoid\(\)"):
        make(default_dist="bernoulli").fit((rows() > 2).float())


# Parameters that reach the loss -----------------------------------------------------------------

WAYS = {
    "set_params": lambda vae, beta: vae.set_params(beta=beta),
    "assignment": lambda vae, beta: setattr(vae, "beta", beta),
}
STAGES = {
    "built": lambda: make(encoder_out_dim=5),
    "fitted": lambda: make().fit(rows()),
    "cloned": lambda: clone(make(encoder_out_dim=5).fit(rows())),
    "fitted again": lambda: make(beta=7.0).fit(rows()).fit(rows()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", STAGES)
def test_beta_reaches_the_loss_at_once(stage, way):
    vae = STAGES[stage]()
    WAYS[way](vae, 3.0)
    assert (vae.beta, vae.criterion.beta, vae.get_params()["beta"]) == (3.0, 3.0, 3.0)
    losses = {k: v.item() for k, v in vae.training_step(rows(), 0).items()}
    assert losses["loss"] == pytest.approx(losses["rec_loss"] + 3 * losses["kl_loss"])
    assert clone(vae).criterion.beta == 3.0
    if stage == "fitted":
        assert vae.transform(rows()).shape == (N, L)  # still fitted


def test_beta_changed_after_a_fit_counts_in_the_next():
    vae = make().fit(rows())
    vae.beta = 50.0
    assert torch.equal(weights(vae.fit(rows())), weights(make(beta=50.0).fit(rows())))
    assert not torch.equal(weights(vae), weights(make().fit(rows())))


def test_a_handed_in_loss_keeps_its_beta():
    loss = BetaVAELoss(beta=9.0)
    vae = make(encoder_out_dim=5, loss=loss, beta=2.0)
    for change in (lambda: None, lambda: vae.set_params(beta=3.0), lambda: vae.fit(rows())):
        change()
        assert vae.criterion.beta == 9.0
        losses = vae.training_step(rows(), 0)
        expected = losses["rec_loss"] + 9 * losses["kl_loss"]
        torch.testing.assert_close(losses["loss"], expected)
    assert loss.beta == 9.0 and vae.criterion is not loss


def test_a_loss_spec_keeps_the_beta_it_names():
    vae = make(encoder_out_dim=5, loss={"name": "beta_vae", "params": {"beta": 9.0}}, beta=2.0)
    assert vae.criterion.beta == 9.0
    vae.beta = 3.0
    assert vae.criterion.beta == 9.0
    assert make(encoder_out_dim=5, loss={"name": "beta_vae"}, beta=2.0).criterion.beta == 2.0


def test_structural_parameters_set_on_a_fitted_estimator_count_from_the_next_fit():
    vae = make().fit(rows())
    vae.set_params(latent_dim=3, decoder=nn.Linear(3, D))
    assert vae.transform(rows()).shape == (N, L)
    assert vae.sample(2).shape == (2, D)
    assert vae.fit(rows()).transform(rows()).shape == (N, 3)


def test_features_are_counted_anew_by_each_fit():
    """An array's number of features is forgotten by a fit on a tensor of another width."""
    vae = VAE(nn.Identity(), nn.Linear(L, 4), latent_dim=L, random_state=0, max_epochs=1)
    vae.fit(np.zeros((N, 4), dtype=np.float32))
    vae.set_params(decoder=nn.Linear(L, D)).fit(rows())
    assert vae.transform(rows().numpy()).shape == (N, L)


# Inference ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("stochastic", [True, False])
def test_inference_gives_float32_in_lower_precisions(precision, stochastic):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*16.* is not supported|.*GradScaler.*")
        if precision == "16-mixed":
            vae = make(stochastic_transform=stochastic).fit(rows()).set_params(precision=precision)
        else:
            vae = make(stochastic_transform=stochastic, precision=precision).fit(rows())
    for out in (vae.transform(rows()), vae.reconstruct(rows()), vae.score_samples(rows(), K=2)):
        assert out.dtype in (torch.float32, torch.float64) and out.isfinite().all()
    assert vae.transform(rows().numpy()).dtype == np.float32


def test_mixed_precision_is_really_used_in_inference():
    full = make(stochastic_transform=False).fit(rows())
    z = full.transform(rows())
    mixed = full.set_params(precision="bf16-mixed").transform(rows())
    assert not torch.equal(mixed, z)
    torch.testing.assert_close(mixed, z, rtol=0.05, atol=0.05)


def test_losses_are_computed_in_float32_under_mixed_precision():
    vae = make(encoder_out_dim=5)
    with torch.autocast("cpu", torch.bfloat16):
        losses = vae.training_step(rows(), 0)
    assert {v.dtype for v in losses.values()} == {torch.float32}


@pytest.mark.parametrize("verb", ["transform", "score", "score_samples", "reconstruct"])
def test_inference_warns_when_the_loader_shuffles_and_only_then(verb):
    vae = make().fit(rows())
    with pytest.warns(UserWarning, match="not in the data set's order"):
        getattr(vae, verb)(DataLoader(rows(), batch_size=4, shuffle=True))
    getattr(vae, verb)(DataLoader(rows(), batch_size=4))  # warnings are errors here


def test_inference_warns_when_the_loader_drops_rows():
    vae = make().fit(rows())
    with pytest.warns(UserWarning, match="rows are missing"):
        vae.transform(DataLoader(rows(), batch_size=5, drop_last=True))


@pytest.mark.parametrize("batch_size", [1, 5, 12, 64])
def test_inference_gives_every_row_once_in_order_whatever_the_batch_size(batch_size):
    vae = make().fit(rows())
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.cat([vae.transform(row[None]) for row in x])
    torch.testing.assert_close(vae.set_params(batch_size=batch_size).transform(x), one_by_one)


def test_inference_restores_modes_and_leaves_no_gradients():
    vae = make().fit(rows()).train()
    vae.decoder.eval()
    modes = [m.training for m in vae.modules()]
    for verb in ("transform", "score", "reconstruct"):
        getattr(vae, verb)(rows())
        assert [m.training for m in vae.modules()] == modes
    assert not vae.transform(rows()).requires_grad


@pytest.mark.parametrize(
    "verb", ["transform", "score", "score_samples", "reconstruct", "inverse_transform", "save"]
)
def test_every_verb_of_an_unfitted_estimator_says_so(verb):
    with pytest.raises(NotFittedError, match="not fitted"):
        getattr(make(encoder_out_dim=5), verb)(rows())


@pytest.mark.parametrize("K", [0, -1, 1.5, "many", True])
def test_score_samples_refuses_an_impossible_number_of_samples(K):
    with pytest.raises(InvalidParameter, match="K must be an int >= 1"):
        make().fit(rows()).score_samples(rows(), K=K)


def test_every_error_of_this_file_is_a_nidl_error():
    for error in (DataError, InvalidParameter, NonFiniteError, ShapeError, UnknownParameter):
        assert issubclass(error, NidlError) and issubclass(error, ValueError)
