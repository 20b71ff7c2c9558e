"""The life of a fit: what it leaves alone, what it starts from, how it ends, and Lightning's own."""

from __future__ import annotations

import copy
import os
import pickle
import random
import signal

import joblib
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nidl_core import training
from nidl_core.errors import NidlError
from nidl_vae import VAE

L, D, N = 2, 6, 19


class Decoder(nn.Module):
    """Linear with a dropout; calls `event(step)` at each training step."""

    def __init__(self, event=lambda step: None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(L, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, D))
        self.event, self.steps = event, 0

    def forward(self, z):
        if self.training:
            self.event(self.steps)
            self.steps += 1
        return self.layers(z)


def nothing(step):
    """Does nothing: a function of this module, so that estimators can be pickled."""


_ENCODER = nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.Tanh())
_DECODER = Decoder(nothing)


def make(decoder=_DECODER, **params):
    """The same initial weights at each call: estimators train copies. 19 rows are 5 steps."""
    given = {"random_state": 0, "max_epochs": 2, "batch_size": 4, "lr": 1e-2, **params}
    return VAE(_ENCODER, decoder, latent_dim=L, **given)


def rows(n=N, seed=0):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def assert_same_weights(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, weight in a.state_dict().items():
        assert torch.equal(weight, b.state_dict()[name]), name


def differ(a, b):
    return any(not torch.equal(w, b.state_dict()[name]) for name, w in a.state_dict().items())


# The random state -----------------------------------------------------------------------------


def random_states():
    legacy = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(),
        "torch's seed": torch.initial_seed(),
        "numpy": (legacy[0], legacy[1].tolist(), *legacy[2:]),
        "python": random.getstate(),
        "PL_GLOBAL_SEED": os.environ.get("PL_GLOBAL_SEED"),
        "PL_SEED_WORKERS": os.environ.get("PL_SEED_WORKERS"),
    }


def fail(step):
    if step == 3:
        raise ValueError("spilt milk")


def interrupt(step):
    if step == 3:
        raise KeyboardInterrupt


_FAILS, _INTERRUPTS, _MISFITS = Decoder(fail), Decoder(interrupt), nn.Linear(L, 7)


def attempt(decoder, error):
    with pytest.raises(error):
        make(decoder).fit(rows())


ACTIONS = {
    "construction": lambda: make(encoder_out_dim=5),
    "fit": lambda: make().fit(rows(), val=rows()),
    "fit on a loader that shuffles": lambda: make().fit(
        DataLoader(rows(16), batch_size=4, shuffle=True)
    ),
    "fit without a seed": lambda: make(random_state=None).fit(rows()),
    "failed fit": lambda: attempt(_FAILS, ValueError),
    "interrupted fit": lambda: attempt(_INTERRUPTS, KeyboardInterrupt),
    "refused fit": lambda: attempt(_MISFITS, NidlError),
}


@pytest.mark.parametrize("global_seed", [None, "7"])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_callers_random_state_survives(action, global_seed, monkeypatch):
    if global_seed is None:
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    else:
        monkeypatch.setenv("PL_GLOBAL_SEED", global_seed)
    torch.manual_seed(11), np.random.seed(12), random.seed(13)
    torch.rand(3), np.random.rand(3), random.random()
    before = random_states()
    ACTIONS[action]()
    assert random_states() == before


@pytest.mark.parametrize("verb", ["transform", "score", "score_samples", "reconstruct"])
def test_inference_leaves_the_callers_random_state(verb):
    vae = make().fit(rows())
    before = random_states()
    getattr(vae, verb)(rows())
    assert random_states() == before


def test_weights_come_from_random_state_alone():
    fits = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed), np.random.seed(global_seed), random.seed(global_seed)
        torch.rand(global_seed)
        fits.append(make().fit(rows()))
    assert_same_weights(*fits)
    assert differ(fits[0], make(random_state=1).fit(rows()))


def test_weights_do_not_depend_on_the_global_seed_of_lightning(monkeypatch):
    vae = make().fit(rows())
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert_same_weights(vae, make().fit(rows()))


def test_random_state_none_is_fresh_entropy_whatever_the_global_seed():
    fits = []
    for _ in range(2):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        fits.append(make(random_state=None).fit(rows()))
    assert differ(*fits)
    assert fits[0].seed_ != fits[1].seed_
    assert_same_weights(fits[0], make(random_state=fits[0].seed_).fit(rows()))


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_random_state_may_be_a_numpy_generator(kind):
    vae = make(random_state=kind(3)).fit(rows())
    assert_same_weights(vae, make(random_state=kind(3)).fit(rows()))
    first = copy.deepcopy(vae)
    assert differ(first, vae.fit(rows()))  # its next number


def test_noise_of_transform_and_score_repeats_with_an_int_and_not_with_none():
    vae = make().fit(rows())
    assert torch.equal(vae.transform(rows()), vae.transform(rows()))
    assert vae.score(rows()) == vae.score(rows())
    vae.set_params(random_state=None)
    assert not torch.equal(vae.transform(rows()), vae.transform(rows()))
    assert vae.score(rows()) != vae.score(rows())


# Ends -----------------------------------------------------------------------------------------


@pytest.fixture
def sigint():
    """A SIGINT handler of the caller's own, put back afterwards."""

    def handler(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    yield handler
    signal.signal(signal.SIGINT, before)


def assert_unfitted(vae):
    with pytest.raises(NotFittedError):
        vae.transform(rows())
    assert vae._trainer is None


def press_ctrl_c(step):
    if step == 3:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("event", [interrupt, press_ctrl_c])
def test_ctrl_c_stays_keyboard_interrupt_and_leaves_the_estimator_unfitted(event, sigint):
    vae = make().fit(rows())
    vae.set_params(decoder=Decoder(event))
    with pytest.raises(KeyboardInterrupt):
        vae.fit(rows())
    assert signal.getsignal(signal.SIGINT) is sigint
    assert_unfitted(vae)
    assert vae.set_params(decoder=_DECODER).fit(rows()).transform(rows()).shape == (N, L)


def test_a_fit_restores_the_sigint_handler(sigint):
    make().fit(rows())
    assert signal.getsignal(signal.SIGINT) is sigint


def test_system_exit_in_a_fit_stays_system_exit():
    def leave(step):
        raise SystemExit(3)

    vae = make(Decoder(leave))
    with pytest.raises(SystemExit) as error:
        vae.fit(rows())
    assert error.value.code == 3
    assert_unfitted(vae)


def test_a_failed_fit_raises_the_original_error_and_leaves_the_estimator_unfitted():
    vae = make().fit(rows())
    vae.set_params(decoder=Decoder(fail))
    with pytest.raises(ValueError, match="^spilt milk$"):
        vae.fit(rows())
    assert_unfitted(vae)


def test_the_trainer_is_let_go_after_a_fit():
    vae = make().fit(rows(), val=rows())
    assert vae._trainer is None
    assert all(weight.grad is None for weight in vae.parameters())
    losses = vae.training_step(rows(), 0)  # and logging is harmless
    assert losses["loss"].isfinite()


def test_steps_and_sampling_work_by_hand_after_a_fit():
    vae = make().fit(rows())
    assert vae(rows()).shape == (N, L)
    assert vae.validation_step(rows(), 0).keys() == {"loss", "rec_loss", "kl_loss"}
    assert not torch.equal(vae.transform_step(rows(), 0), vae.transform_step(rows(), 0))


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_a_fitted_estimator_survives(how, tmp_path):
    stop = EarlyStopping("train/loss", patience=9)
    vae = make(callbacks=[stop], logger=CSVLogger(tmp_path)).fit(rows(), val=rows())
    if how == "pickle":
        other = pickle.loads(pickle.dumps(vae))
    elif how == "joblib":
        joblib.dump(vae, tmp_path / "vae.joblib")
        other = joblib.load(tmp_path / "vae.joblib")
    else:
        other = copy.deepcopy(vae)
    assert_same_weights(vae, other)
    assert torch.equal(vae.transform(rows()), other.transform(rows()))
    assert torch.equal(vae.sample(2, seed=0), other.sample(2, seed=0))
    other.set_params(beta=2.0)
    assert (vae.criterion.beta, other.criterion.beta) == (1.0, 2.0)


def test_a_pickle_holds_no_data():
    """10000 rows of 24 bytes would show; the networks are the same."""
    few, many = (make(batch_size=5000, max_epochs=1).fit(rows(n)) for n in (20, 10000))
    assert len(pickle.dumps(many)) < len(pickle.dumps(few)) + 5000


# Beginnings -----------------------------------------------------------------------------------


def test_the_callers_modules_are_not_trained():
    encoder, decoder = copy.deepcopy(_ENCODER), copy.deepcopy(_DECODER)
    vae = VAE(encoder, decoder, latent_dim=L, lr=0.1, max_epochs=2, random_state=0).fit(rows())
    for theirs, before in [(encoder, _ENCODER), (decoder, _DECODER)]:
        assert_same_weights(theirs, before)  # the batch norm's statistics included
        assert theirs.training and all(w.grad is None for w in theirs.parameters())
    assert decoder.steps == 0
    assert differ(vae.encoder, encoder) and differ(vae.decoder, decoder)
    assert vae.get_params()["encoder"] is encoder and vae.get_params()["decoder"] is decoder


def test_each_fit_starts_from_the_beginning():
    vae = make().fit(rows(seed=1))
    assert_same_weights(vae.fit(rows()), make().fit(rows()))
    assert len(vae.history_) == 2


def test_clone_after_a_fit_holds_no_trained_weight():
    vae = make().fit(rows())
    fresh = clone(vae)
    assert_same_weights(fresh.encoder, _ENCODER)
    assert_same_weights(fresh.decoder, _DECODER)
    assert_unfitted(fresh)
    assert_same_weights(fresh.fit(rows()), vae)


def test_a_callback_that_has_stopped_one_fit_does_not_stop_the_next():
    """EarlyStopping counts in itself: neither another fit nor a clone starts with its old counts."""
    stop = EarlyStopping("train/loss", patience=2, min_delta=1e9)
    vae = make(max_epochs=9, callbacks=[stop]).fit(rows())
    epochs = len(vae.history_)
    assert epochs == 3
    assert len(clone(vae).fit(rows()).history_) == epochs
    assert len(vae.fit(rows()).history_) == epochs


def test_warm_start_goes_on_from_the_weights_of_the_last_fit():
    vae = make(warm_start=True, lr=1e-12, weight_decay=0.0).fit(rows())
    trained = make(warm_start=True).fit(rows())
    before = copy.deepcopy(trained)
    trained.set_params(lr=1e-12, weight_decay=0.0).fit(rows())
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight, before.get_parameter(name), atol=1e-8, rtol=1e-6)
    assert differ(vae.encoder, trained.encoder)


def test_warm_start_without_a_fit_before_it_starts_anew():
    assert_same_weights(make(warm_start=True).fit(rows()), make().fit(rows()))


def test_warm_start_after_a_failed_fit_starts_anew():
    vae = make(Decoder(fail), warm_start=True)
    with pytest.raises(ValueError, match="spilt milk"):
        vae.fit(rows())
    vae.set_params(decoder=_DECODER)
    assert_same_weights(vae.fit(rows()), make().fit(rows()))


def test_warm_start_on_data_of_another_shape_is_told_in_words():
    vae = make(warm_start=True).fit(rows())
    with pytest.raises(NidlError, match="7"):
        vae.fit(torch.randn(N, 7))


def test_warm_start_does_not_pass_over_a_structural_change():
    """`latent_dim` set on a fitted estimator counts from the next fit, or is refused; never ignored."""
    vae = make(decoder=nn.Linear(L, D), warm_start=True).fit(rows())
    vae.set_params(latent_dim=3, decoder=nn.Linear(3, D))
    try:
        vae.fit(rows())
    except NidlError:
        return
    assert vae.transform(rows()).shape == (N, 3)


# Lightning's own ------------------------------------------------------------------------------


class Items(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, i):
        return rows()[i], i


FORMS = {
    "tensor": rows,
    "Dataset": Items,
    "DataLoader": lambda: DataLoader(TensorDataset(rows()), batch_size=4, shuffle=True),
}


not_empty = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


def saving(folder):
    return [ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1)]


@not_empty
@pytest.mark.parametrize("form", FORMS)
def test_resuming_from_a_checkpoint_equals_an_uninterrupted_fit_bit_for_bit(form, tmp_path):
    """Shuffling, dropout, posterior noise, AdamW's moments and the history: all go on as before."""
    whole = make(max_epochs=4).fit(FORMS[form](), val=rows())
    make(max_epochs=2, callbacks=saving(tmp_path)).fit(FORMS[form](), val=rows())
    resumed = make(max_epochs=4, callbacks=saving(tmp_path))
    resumed.fit(FORMS[form](), val=rows(), ckpt_path=tmp_path / "epoch=1-step=10.ckpt")
    assert_same_weights(resumed, whole)
    assert resumed.history_ == whole.history_
    assert [row["epoch"] for row in whole.history_] == [0, 1, 2, 3]


@not_empty
def test_resuming_needs_no_int_random_state(tmp_path):
    given = {"random_state": None, "max_epochs": 1, "callbacks": saving(tmp_path)}
    first = make(**given).fit(rows())
    again = make(**given).fit(rows(), ckpt_path=tmp_path / "epoch=0-step=5.ckpt")
    assert_same_weights(again, first)


def test_checkpoints_load_with_weights_only_and_hold_the_weights(tmp_path):
    save = ModelCheckpoint(tmp_path, monitor="val/loss", save_last=True)
    vae = make(callbacks=[save]).fit(rows(), val=rows())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == vae.state_dict().keys()
    for name, weight in vae.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][name], weight), name


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss", "val/rec_loss", "val/elbo"])
def test_early_stopping_watches_a_loss_by_its_name(monitor):
    """No improvement is ever enough, so the fit ends after `patience` epochs more."""
    stop = EarlyStopping(monitor, patience=2, min_delta=1e9)
    vae = make(max_epochs=50, callbacks=stop).fit(rows(), val=rows())
    assert len(vae.history_) == 3 and stop.stopped_epoch == 2


def test_model_checkpoint_keeps_the_best_epoch_by_name(tmp_path):
    save = ModelCheckpoint(tmp_path, monitor="val/loss", filename="{epoch}", save_top_k=1)
    vae = make(max_epochs=4, callbacks=[save]).fit(rows(), val=rows())
    losses = [row["val/loss"] for row in vae.history_]
    assert save.best_model_path == str(tmp_path / f"epoch={int(np.argmin(losses))}.ckpt")
    assert float(save.best_model_score) == pytest.approx(min(losses))


def test_callbacks_and_loggers_are_used_by_lightnings_names(tmp_path):
    logger = CSVLogger(tmp_path, name="run", version=1)
    monitor = LearningRateMonitor("epoch")
    make(logger=logger, callbacks=[monitor], log_every_n_steps=1).fit(rows())
    text = (tmp_path / "run" / "version_1" / "metrics.csv").read_text()
    assert "train/loss" in text and "lr-AdamW" in text and "0.01" in text


class Seen(Callback):
    def on_fit_end(self, trainer, pl_module):
        self.steps, self.epochs, self.limit = (
            trainer.global_step,
            trainer.current_epoch,
            trainer.max_epochs,
        )


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"max_epochs": 3}, 15),
        ({"max_steps": 7, "max_epochs": None}, 7),
        ({"max_epochs": 2, "limit_train_batches": 2}, 4),
        ({"max_epochs": 1, "accumulate_grad_batches": 5}, 1),
        ({"max_epochs": 9, "fast_dev_run": 1}, 1),
    ],
)
def test_trainer_arguments_limit_the_fit(given, steps):
    seen = Seen()
    make(callbacks=[seen], **given).fit(rows())
    assert seen.steps == steps


def test_without_any_limit_a_fit_has_100_epochs():
    seen = Seen()
    make(callbacks=[seen], max_epochs=None).fit(rows(4))
    assert seen.epochs == seen.limit == 100


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_is_shown_on_a_terminal_by_default(terminal, monkeypatch):
    given = {}
    real = training.Trainer
    monkeypatch.setattr(training, "Trainer", lambda **kw: given.update(kw) or real(**kw))
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    make(max_epochs=1).fit(rows(4))
    assert given["enable_progress_bar"] is terminal
    make(max_epochs=1, enable_progress_bar=False).fit(rows(4))
    assert given["enable_progress_bar"] is False


def test_nothing_is_written_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vae = make().fit(rows(), val=rows())
    vae.transform(rows()), vae.score(rows()), vae.sample(2)
    make(callbacks=[EarlyStopping("val/loss")]).fit(rows(), val=rows())
    assert os.listdir(tmp_path) == []


def test_a_fit_prints_nothing_without_a_terminal(capfd, caplog):
    make().fit(rows(), val=rows())
    out, err = capfd.readouterr()
    assert (out, err) == ("", "") and caplog.records == []


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true", "32-true"])
def test_fits_in_lightnings_precisions(precision):
    vae = make(precision=precision).fit(rows(), val=rows())
    kept = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    assert {w.dtype for w in vae.parameters()} == {kept}
    assert np.isfinite(vae.score(rows())) and vae.sample(2).isfinite().all()


def test_history_has_a_row_for_each_epoch():
    vae = make(max_epochs=3).fit(rows(), val=rows())
    assert [row["epoch"] for row in vae.history_] == [0, 1, 2]
    names = {f"{s}/{n}" for s in ("train", "val") for n in ("loss", "rec_loss", "kl_loss", "elbo")}
    for row in vae.history_:
        assert names <= row.keys() and all(isinstance(v, (int, float)) for v in row.values())


def test_validation_uses_the_same_noise_at_each_epoch():
    """With weights that stand still, the validation curve stands still."""
    encoder = nn.Linear(D, 5)
    vae = VAE(encoder, nn.Linear(L, D), latent_dim=L, lr=1e-12, max_epochs=3, random_state=0)
    vae.fit(rows(), val=rows())
    losses = [row["val/loss"] for row in vae.history_]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    trained = [row["train/loss"] for row in vae.history_]
    assert len(set(trained)) == 3
