"""Model files of a VAE: the same model bit for bit in a fresh process, whatever it was made of."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

import nidl_core as nidl
from nidl_core.errors import MissingComponents, ModelFileError

L, N = 3, 11


def rows(*shape, seed=0):
    return np.random.default_rng(seed).random((N, *shape)).astype(np.float32)


def mlp(*widths):
    return {"name": "mlp", "params": {"widths": list(widths)}}


def cnn(dims):
    return {"name": f"cnn{dims}d", "params": {"widths": [4, 6]}}


def handed_encoder():
    """Its own weights are others at each call: those that count come from the file."""
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh())


def handed_decoder():
    return nn.Linear(L, 6)


# name -> (parameters, data, names of the modules handed in)
CASES = {
    "mlp": ({"encoder": mlp(5), "decoder": mlp(5)}, rows(6), []),
    "cnn2d, optimal scale": (
        {
            "encoder": cnn(2),
            "decoder": cnn(2),
            "likelihood": {"name": "normal", "params": {"scale": "optimal"}},
        },
        rows(1, 8, 8),
        [],
    ),
    "cnn3d, bernoulli": (
        {"encoder": cnn(3), "decoder": mlp(5), "likelihood": "bernoulli"},
        rows(1, 5, 6, 7).round(),
        [],
    ),
    "shared scale, stochastic, own beta": (
        {
            "encoder": mlp(5),
            "decoder": mlp(5),
            "likelihood": {"name": "normal", "params": {"scale": "shared"}},
            "loss": {"name": "beta_vae", "params": {"beta": 2.0}},
            "stochastic_transform": True,
        },
        rows(6),
        [],
    ),
    "double precision": (
        {"encoder": mlp(5), "decoder": mlp(5), "precision": "64-true"},
        rows(6),
        [],
    ),
    "encoder handed in": ({"encoder": handed_encoder(), "decoder": mlp(5)}, rows(6), ["encoder"]),
    "both handed in, laplace": (
        {"encoder": handed_encoder(), "decoder": handed_decoder(), "default_dist": "laplace"},
        rows(6),
        ["encoder", "decoder"],
    ),
}


def make(**params):
    given = {"latent_dim": L, "stochastic_transform": False, "random_state": 0, "batch_size": 4}
    return nidl.build("vae", **{**given, "max_epochs": 2, "lr": 1e-2, **params})


def answers(vae, x):
    """All that must agree, as plain data and tensors."""
    return {
        "weights": {name: weight.clone() for name, weight in vae.state_dict().items()},
        "transform": torch.from_numpy(vae.transform(x)),
        "transform of a tensor": vae.transform(torch.from_numpy(x)),
        "sample": vae.sample(3, seed=7),
        "draw": vae.sample(3, seed=7, draw=True),
        "reconstruct": torch.from_numpy(vae.reconstruct(x)),
        "score": vae.score(x),
        "score_samples": torch.from_numpy(vae.score_samples(x, K=3)),
        "history": vae.history_,
        "seed": vae.seed_,
        "n_features_in": getattr(vae, "n_features_in_", None),
        "input_shape": vae.input_shape_,
    }


SCRIPT = """
import importlib.util, pathlib, sys, torch
import nidl_core as nidl
spec = importlib.util.spec_from_file_location("cases", sys.argv[1])
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
folder = pathlib.Path(sys.argv[2])
torch.manual_seed(99)
for i, (_, x, local) in enumerate(cases.CASES.values()):
    modules = {name: getattr(cases, f"handed_{name}")() for name in local}
    vae = nidl.load(folder / f"{i}.nidl", components=modules)
    torch.save(cases.answers(vae, x), folder / f"{i}.pt")
"""


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    """Case -> (answers before saving, answers of a fresh process that loaded the file)."""
    folder = tmp_path_factory.mktemp("models")
    before = []
    for i, (params, x, _) in enumerate(CASES.values()):
        vae = make(**params).fit(x)
        vae.save(folder / f"{i}.nidl")
        before.append(answers(vae, x))
    command = [sys.executable, "-c", SCRIPT, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    after = [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(len(CASES))]
    return dict(zip(CASES, zip(before, after, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_weights_agree_bit_for_bit_in_a_fresh_process(case, round_trip):
    before, after = (answer["weights"] for answer in round_trip[case])
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert weight.dtype == after[name].dtype and torch.equal(weight, after[name]), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "item",
    ["transform", "transform of a tensor", "sample", "draw", "reconstruct", "score_samples"],
)
def test_answers_agree_bit_for_bit_in_a_fresh_process(case, item, round_trip):
    before, after = (answer[item] for answer in round_trip[case])
    assert before.dtype == after.dtype and torch.equal(before, after)


@pytest.mark.parametrize("case", CASES)
def test_what_the_fit_left_behind_agrees_in_a_fresh_process(case, round_trip):
    before, after = round_trip[case]
    for item in ("score", "history", "seed", "n_features_in", "input_shape"):
        assert before[item] == after[item], item
    assert len(before["history"]) == 2


def test_double_precision_stays_double(round_trip):
    before, after = round_trip["double precision"]
    for answer in (before, after):
        assert {w.dtype for w in answer["weights"].values()} == {torch.float64}
        assert answer["sample"].dtype == torch.float64


def saved(tmp_path, x, **params):
    vae = make(**params).fit(x)
    vae.save(tmp_path / "model.nidl")
    return vae


PLAIN = {"encoder": mlp(5), "decoder": mlp(5)}


def test_trainer_arguments_and_all_parameters_are_stored(tmp_path):
    given = {"max_epochs": 3, "gradient_clip_val": 0.5, "accelerator": "cpu", "devices": 1}
    vae = saved(tmp_path, rows(6), **PLAIN, **given, beta=2.0)
    params = nidl.load(tmp_path / "model.nidl").get_params(deep=False)
    assert {name: params[name] for name in given} == given
    original = vae.get_params(deep=False)
    for name in ("beta", "latent_dim", "lr", "weight_decay", "batch_size", "random_state"):
        assert params[name] == original[name]
    assert params.keys() == original.keys()


def test_a_loaded_estimator_can_be_fitted_again_like_the_original(tmp_path):
    x = rows(6)
    vae = saved(tmp_path, x, **PLAIN)
    loaded = nidl.load(tmp_path / "model.nidl")
    first, again = vae.state_dict(), loaded.fit(x).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_loaded_estimator_leaves_the_random_state_and_takes_beta_at_once(tmp_path):
    saved(tmp_path, rows(6), **PLAIN)
    before = torch.get_rng_state()
    loaded = nidl.load(tmp_path / "model.nidl")
    assert torch.equal(torch.get_rng_state(), before)
    loaded.beta = 5.0
    assert loaded.criterion.beta == 5.0


def test_callbacks_and_loggers_are_left_out_and_named_in_a_warning(tmp_path):
    vae = make(**PLAIN, callbacks=[EarlyStopping("train/loss")]).fit(rows(6))
    with pytest.warns(UserWarning, match=r"left out: callbacks \(list\).*set_params"):
        vae.save(tmp_path / "model.nidl")
    assert nidl.load(tmp_path / "model.nidl").get_params().get("callbacks") is None


def test_a_model_of_plain_parameters_is_saved_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(tmp_path, rows(6), **PLAIN, random_state=np.int64(3), lr=np.float32(0.25))
    loaded = nidl.load(tmp_path / "model.nidl")
    assert (loaded.random_state, loaded.lr) == (3, 0.25)


CHANGES = {
    "latent_dim": {"latent_dim": 5},
    "a component": {"encoder": "cnn2d"},
    "a component's parameter": {"decoder__widths": [9, 9]},
    "likelihood": {"likelihood": "laplace"},
    "loss": {"loss": {"name": "beta_vae", "params": {"beta": 8.0}}},
    "default_dist": {"default_dist": "laplace"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_structure_changed_after_the_fit_is_not_what_is_saved(change, tmp_path):
    """The file holds the model that was fitted; what was set since counts from the next fit."""
    x = rows(6)
    vae = make(**PLAIN).fit(x)
    before = answers(vae, x)
    vae.set_params(**CHANGES[change]).save(tmp_path / "model.nidl")
    after = answers(nidl.load(tmp_path / "model.nidl"), x)
    for name, weight in before["weights"].items():
        assert torch.equal(weight, after["weights"][name])
    for item in ("transform", "sample", "draw", "score_samples"):
        assert torch.equal(before[item], after[item]), item


def test_other_parameters_changed_after_the_fit_are_saved_as_they_are(tmp_path):
    vae = make(**PLAIN).fit(rows(6)).set_params(beta=7.0, stochastic_transform=True, batch_size=2)
    vae.save(tmp_path / "model.nidl")
    loaded = nidl.load(tmp_path / "model.nidl")
    assert (loaded.beta, loaded.stochastic_transform, loaded.batch_size) == (7.0, True, 2)
    assert loaded.criterion.beta == 7.0


def test_modules_handed_in_are_asked_for_when_loading(tmp_path):
    saved(tmp_path, rows(6), encoder=handed_encoder(), decoder=handed_decoder())
    with pytest.raises(MissingComponents, match=r"components=\{'encoder': ..., 'decoder': ...\}"):
        nidl.load(tmp_path / "model.nidl")
    with pytest.raises(MissingComponents, match=r"components=\{'decoder': ...\}"):
        nidl.load(tmp_path / "model.nidl", components={"encoder": handed_encoder()})


def test_modules_handed_in_for_loading_stay_the_callers(tmp_path):
    vae = saved(tmp_path, rows(6), encoder=handed_encoder(), decoder=mlp(5))
    mine = handed_encoder()
    before = {name: weight.clone() for name, weight in mine.state_dict().items()}
    loaded = nidl.load(tmp_path / "model.nidl", components={"encoder": mine})
    assert all(torch.equal(weight, before[name]) for name, weight in mine.state_dict().items())
    assert torch.equal(loaded.encoder[1].weight, vae.encoder[1].weight)


def test_a_module_that_does_not_fit_the_weights_is_told(tmp_path):
    saved(tmp_path, rows(6), encoder=handed_encoder(), decoder=mlp(5))
    other = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    with pytest.raises(ModelFileError, match="do not fit"):
        nidl.load(tmp_path / "model.nidl", components={"encoder": other})


def test_a_component_that_is_not_installed_is_told_before_anything_is_built(tmp_path):
    """A likelihood known only to the session that saved."""
    from nidl_core.interfaces import Likelihood

    class Mine(Likelihood):
        def forward(self, theta):
            p = torch.distributions.Normal(theta, 1.0)
            return torch.distributions.Independent(p, theta.ndim - 1)

    with nidl.likelihoods.temporary("mine", Mine):
        saved(tmp_path, rows(6), **PLAIN, likelihood="mine")
        nidl.load(tmp_path / "model.nidl")
    with pytest.raises(MissingComponents, match="likelihood 'session:mine'.*register them again"):
        nidl.load(tmp_path / "model.nidl")


def test_the_file_holds_json_and_safetensors_and_nothing_else(tmp_path):
    saved(tmp_path, rows(6), **PLAIN)
    with zipfile.ZipFile(tmp_path / "model.nidl") as archive:
        assert sorted(archive.namelist()) == ["nidl.json", "weights.safetensors"]


def test_equal_models_are_equal_files(tmp_path):
    for name in ("a", "b"):
        make(**PLAIN).fit(rows(6)).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    vae = saved(tmp_path, rows(6), **PLAIN)
    before = (tmp_path / "model.nidl").read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        vae.set_params(beta=3.0).save(tmp_path / "model.nidl")
    assert [p.name for p in tmp_path.iterdir()] == ["model.nidl"]
    assert (tmp_path / "model.nidl").read_bytes() == before
