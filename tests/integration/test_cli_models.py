"""`nidl fit`, `transform`, `reconstruct`, `sample` and `explain`: from spec files to results."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

import nidl_core as nidl
from nidl_core import hooks
from nidl_core.cli import arrays, main
from nidl_core.cli.progress import Progress

L, N = 3, 23
SPEC = """
name = "vae"
[params]
decoder = { name = "mlp", params = { widths = [6] } }
latent_dim = 3
max_epochs = 2
batch_size = 5
random_state = 0
[params.encoder]
name = "cnn2d"
params = { widths = [4, 6] }
"""


def digits():
    return (load_digits().images[:N, None] / 16).astype(np.float32)  # (N, 1, 8, 8)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a spec, data and what `nidl fit` made of them in `out`."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "vae.toml").write_text(SPEC)
    np.save(folder / "x.npy", digits())
    np.save(folder / "v.npy", digits()[:7])
    fit = ("fit", folder / "vae.toml", "--data", folder / "x.npy", "--val", folder / "v.npy")
    assert run(*fit, "--out", folder / "out") == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A working directory of its own, with the spec, the data and the model."""
    for name in ("vae.toml", "x.npy", "v.npy", "out/model.nidl", "out/spec.json"):
        shutil.copy(made / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


FIT = ("fit", "vae.toml", "--data", "x.npy", "--out", "new")


# fit ------------------------------------------------------------------------------------------


def test_fit_is_what_python_does(made):
    x = digits()
    mine = nidl.build(
        "vae",
        encoder={"name": "cnn2d", "params": {"widths": [4, 6]}},
        decoder={"name": "mlp", "params": {"widths": [6]}},
        latent_dim=L,
        max_epochs=2,
        batch_size=5,
        random_state=0,
    ).fit(x, val=x[:7])
    model = nidl.load(made / "out" / "model.nidl")

    for name, value in mine.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.history_ == mine.history_


def test_metrics_are_the_history_a_row_an_epoch(made):
    history = nidl.load(made / "out" / "model.nidl").history_
    found = rows(made / "out" / "metrics.csv")

    assert [row["epoch"] for row in found] == ["0", "1"]
    assert [{k: float(v) for k, v in row.items()} for row in found] == history
    assert list(found[0])[:2] == ["epoch", "train/elbo"] and "val/loss" in found[0]


def test_the_spec_that_fit_writes_gives_the_same_model_again(here, capsys):
    out = ("--data", "x.npy", "--val", "v.npy", "--out", "again")
    assert run("fit", "spec.json", *out) == 0
    first, second = nidl.load("model.nidl"), nidl.load("again/model.nidl")

    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    spec, again = (json.loads(Path(p).read_text()) for p in ("spec.json", "again/spec.json"))
    assert (spec["name"], spec["params"]) == (again["name"], again["params"])


def test_fit_prints_a_summary_with_the_score_and_progress_goes_to_stderr(here, capsys):
    assert run(*FIT, "--val", "v.npy") == 0
    out, err = capsys.readouterr()
    score = nidl.load("new/model.nidl").score(np.load("v.npy"))

    bits = -score / (np.load("v.npy")[0].size * np.log(2))
    assert f"score of --val: {score:.5g} nats (mean evidence lower bound), {bits:.4g} bits" in out
    assert "written: new/model.nidl, new/metrics.csv, new/spec.json" in out
    assert all(line.startswith("epoch ") for line in err.splitlines())
    assert "epoch 2/2, train/loss" in err and "val/loss" in err and "elapsed" in err
    assert sorted(os.listdir("new")) == ["metrics.csv", "model.nidl", "spec.json"]


def test_the_summary_as_json_is_all_there_is_on_stdout(here, capsys):
    assert run(*FIT, "--val", "v.npy", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    model = nidl.load("new/model.nidl")

    assert found["epochs"] == 2 and found["model"] == "new/model.nidl"
    assert found["score"] == model.score(np.load("v.npy"))
    assert found["bits_per_value"] == pytest.approx(
        -found["score"] / (np.load("v.npy")[0].size * np.log(2))
    )
    assert found["figures"] == {k: v for k, v in model.history_[-1].items() if k != "epoch"}


def test_settings_are_json_or_text_and_reach_components(here):
    settings = ["latent_dim=2", "encoder.widths=[5]", "default_dist=laplace", "loss.beta=3"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert run(*FIT, *words, "--set", "max_epochs=1") == 0
    model = nidl.load("new/model.nidl")

    assert model.fc_mu.out_features == 2 and model.encoder.out_features == 5 * 4 * 4
    assert type(model.likelihood) is nidl.likelihoods.get("laplace")
    assert model.criterion.beta == 3
    params = json.loads(Path("new/spec.json").read_text())["params"]
    assert params["likelihood"]["name"] == "nidl-likelihoods:laplace"
    assert params["loss"]["params"]["beta"] == 3


SETTINGS = {
    "latent_dmi=2": (1, "VAE has no parameter 'latent_dmi'. Did you mean 'latent_dim'?"),
    "encoder.width=[2]": (1, "encoder 'cnn2d' has no parameter 'width'. Did you mean 'widths'?"),
    "encoder.params.widths=[2]": (1, "has no parameter 'params__widths'"),
    "encoder=os.system": (1, "no encoder named 'os.system'"),
    "decoder.name=mlp": (1, "has no parameter 'name'"),
    "lr=-1": (1, "lr must be a finite number > 0, got lr=-1"),
    "lr=NaN": (2, "lr is nan: a spec holds finite numbers"),
    "encoder.widths=[2": (2, "begins like JSON but is not"),
    "warm_start=False": (2, "say false, as in JSON"),
    "lr": (2, "'lr' is not NAME=VALUE"),
    "=3": (2, "'=3' is not NAME=VALUE"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_nothing_takes_fails_before_any_work(here, setting, capsys):
    status, text = SETTINGS[setting]
    usage = pytest.raises(SystemExit, match="2") if status == 2 else contextlib.nullcontext()
    with usage:
        assert run(*FIT, "--set", setting) == status
    assert text in capsys.readouterr().err
    assert not Path("new").exists()


def test_fit_refuses_to_overwrite_a_model_unless_told(here, capsys):
    os.mkdir("new")
    for name in ("model.nidl", "unfinished.nidl"):
        Path("new", name).write_text("mine")
        assert run(*FIT) == 1
        assert f"new/{name} is there already" in capsys.readouterr().err
        assert os.listdir("new") == [name] and Path("new", name).read_text() == "mine"
        assert run(*FIT, "--overwrite", "--set", "max_epochs=1") == 0
        assert sorted(os.listdir("new")) == ["metrics.csv", "model.nidl", "spec.json"]
        assert nidl.load("new/model.nidl").get_params()["max_epochs"] == 1
        shutil.rmtree("new")
        os.mkdir("new")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("fit", "vae.toml", "--data", "x.npy", "--out", "x.npy"), "--out x.npy is a file"),
        (("fit", "vae.toml", "--data", "x.npy", "--out", "x.npy/a"), "x.npy is not a folder"),
        (("fit", "vae.toml", "--data", "gone.npy", "--out", "new"), "there is no file gone.npy"),
        (("fit", "vae.toml", "--data", "gone", "--out", "new"), "there is no file gone"),
        (("fit", "vae.toml", "--data", "vae.toml", "--out", "new"), "no installed plugin reads"),
        (
            ("fit", "vae.toml", "--data", "x.npy", "--val", "gone.npy", "--out", "new"),
            "there is no file gone.npy",
        ),
        (("fit", "gone.toml", "--data", "x.npy", "--out", "new"), "there is no spec file"),
    ],
    ids=str,
)
def test_fit_tells_what_is_wrong_with_its_files_before_any_work(here, words, text, capsys):
    assert run(*words) == 1
    out, err = capsys.readouterr()
    assert text in err and err.count("\n") == 1 and out == ""
    assert not Path("new").exists()


def test_a_failed_fit_leaves_its_figures_and_no_model(here, capsys):
    x = np.load("x.npy")
    x[-1] = np.inf
    np.save("bad.npy", x)
    assert run("fit", "vae.toml", "--data", "bad.npy", "--out", "new") == 1
    assert "infinit" in capsys.readouterr().err
    assert not Path("new/model.nidl").exists()


class CtrlC(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            signal.raise_signal(signal.SIGINT)


class Interrupts:
    """A session plugin that presses Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    @hooks.hookimpl
    def nidl_fit_callbacks(self, estimator):
        return [CtrlC(self.epoch)]


def test_ctrl_c_keeps_the_model_as_it_is_and_says_so(here, capsys):
    with hooks.temporary(Interrupts(3)):
        assert run(*FIT, "--set", "max_epochs=1000") == 130
    err = capsys.readouterr().err

    kept = "Kept: new/unfinished.nidl, new/unfinished.csv, new/unfinished.json"
    assert f"nidl: interrupted after 3 whole epochs. {kept}" in err
    names = ["unfinished.csv", "unfinished.json", "unfinished.nidl"]
    assert sorted(os.listdir("new")) == names
    assert [row["epoch"] for row in rows("new/unfinished.csv")] == ["0", "1", "2"]
    transform = ("transform", "new/unfinished.nidl", "--data", "x.npy", "--out", "z.npy")
    assert run(*transform) == 0
    assert np.load("z.npy").shape == (N, L)


def test_what_cuts_a_fit_short_leaves_an_older_result_whole(here):
    assert run(*FIT) == 0
    older = {path.name: path.read_bytes() for path in Path("new").iterdir()}
    assert sorted(older) == ["metrics.csv", "model.nidl", "spec.json"]
    for epoch in (0, 1):
        with hooks.temporary(Interrupts(epoch)):
            assert run(*FIT, "--overwrite", "--set", "latent_dim=2") == 130
        now = {path.name: path.read_bytes() for path in Path("new").iterdir()}
        assert {name: now[name] for name in older} == older
        assert "unfinished.nidl" in now
    assert run(*FIT, "--overwrite", "--set", "latent_dim=2") == 0
    assert sorted(os.listdir("new")) == sorted(older)
    assert json.loads(Path("new/spec.json").read_text())["params"]["latent_dim"] == 2


class Breaks:
    """A session plugin that ends a fit with an error, at its first step."""

    @hooks.hookimpl
    def nidl_fit_callbacks(self, estimator):
        class Break(Callback):
            def on_train_batch_start(self, *_):
                raise nidl.NidlError("broken on purpose")

        return [Break()]


def test_what_an_unfinished_fit_leaves_is_all_of_one_fit(here):
    with hooks.temporary(Interrupts(1)):
        assert run(*FIT) == 130
    with hooks.temporary(Breaks()):
        assert run(*FIT, "--overwrite", "--set", "latent_dim=2") == 1
    assert sorted(os.listdir("new")) == ["unfinished.json"]
    assert json.loads(Path("new/unfinished.json").read_text())["params"]["latent_dim"] == 2


def test_data_that_are_refused_leave_no_trace(here, capsys):
    np.save("bad.npy", np.zeros(5, dtype=complex))
    fit = ("fit", "vae.toml", "--data", "bad.npy", "--out", "new")
    assert run(*fit) == 1
    assert not Path("new").exists()
    assert run(*FIT) == 0
    older = {path.name: path.read_bytes() for path in Path("new").iterdir()}
    assert run(*fit, "--overwrite") == 1
    assert {path.name: path.read_bytes() for path in Path("new").iterdir()} == older


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 1)])
def test_a_score_that_fails_costs_no_model(here, monkeypatch, capsys, error, code):
    def score(self, X):
        raise error

    monkeypatch.setattr("nidl_vae.VAE.score", score)
    assert run(*FIT, "--val", "v.npy") == code
    assert "written: new/model.nidl, new/metrics.csv, new/spec.json" in capsys.readouterr().out
    assert nidl.load("new/model.nidl").transform(np.load("v.npy")).shape[1] == L


def test_validation_now_and_then_leaves_gaps_in_the_metrics(here):
    more = ("--set", "max_epochs=5", "--set", "check_val_every_n_epoch=2")
    assert run(*FIT, "--val", "v.npy", *more) == 0
    found = rows("new/metrics.csv")

    assert [row["epoch"] for row in found] == ["0", "1", "2", "3", "4"]
    assert [bool(row["val/loss"]) for row in found] == [False, True, False, True, False]
    history = nidl.load("new/model.nidl").history_
    assert [float(row["train/loss"]) for row in found] == [row["train/loss"] for row in history]


def test_checkpoints_that_the_spec_asks_for_go_to_the_folder(here):
    before = sorted(os.listdir())
    assert run(*FIT, "--set", "enable_checkpointing=true") == 0
    assert sorted(os.listdir()) == sorted([*before, "new"])
    assert [path.suffix for path in Path("new/checkpoints").iterdir()] == [".ckpt"]


def test_a_spec_without_loggers_gives_no_metrics(here, capsys):
    assert run(*FIT, "--set", "logger=false") == 0
    assert "written: new/model.nidl, new/spec.json\n" in capsys.readouterr().out


def test_a_spec_that_asks_for_quiet_gets_it(here, capsys):
    assert run(*FIT, "--set", "enable_progress_bar=false") == 0
    assert "epoch" not in capsys.readouterr().err


def test_two_processes_write_one_result(here):
    more = ["--set", "strategy=ddp", "--set", "devices=2", "--set", "accelerator=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "nidl_core.cli", *FIT, "--val", "v.npy", "--json", *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 2  # once: the other process is silent
    assert len(rows("new/metrics.csv")) == 2
    assert sorted(os.listdir("new")) == ["metrics.csv", "model.nidl", "spec.json"]


def test_processes_that_lightning_spawns_write_one_result_too(here):
    more = ["--set", "strategy=ddp_spawn", "--set", "devices=2", "--set", "accelerator=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "nidl_core.cli", *FIT, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(rows("new/metrics.csv")) == 2
    assert sorted(os.listdir("new")) == ["metrics.csv", "model.nidl", "spec.json"]


def test_a_fit_of_no_epoch_leaves_a_whole_result(here):
    assert run(*FIT, "--set", "max_epochs=0") == 0
    assert sorted(os.listdir("new")) == ["model.nidl", "spec.json"]


# transform, reconstruct, sample ---------------------------------------------------------------


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of one batch, so that the 23 rows come in five."""
    monkeypatch.setattr(arrays, "_PIECE", 1)


@pytest.mark.parametrize("verb", ["transform", "reconstruct"])
def test_pieces_are_the_whole_bit_for_bit(here, small_pieces, verb, capsys):
    assert run(verb, "model.nidl", "--data", "x.npy", "--out", "out.npy") == 0
    whole = getattr(nidl.load("model.nidl"), verb)(digits())
    found = np.load("out.npy")

    assert found.dtype == whole.dtype and np.array_equal(found, whole)
    out, err = capsys.readouterr()
    assert out == f"written: out.npy {whole.shape}\n"
    assert f"{verb}: row 5/23 " in err and f"{verb}: row 23/23 " in err


class Digits(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.from_numpy(digits()[index])


KINDS = {
    "a Dataset": Digits,
    "a tensor": lambda: torch.from_numpy(digits()),
    "a loader": lambda: DataLoader(Digits(), batch_size=4),
    "a list": lambda: digits().tolist(),
}


class Reads:
    """A session plugin that knows where one kind of data is."""

    def __init__(self, kind):
        self.kind = kind

    @hooks.hookimpl
    def nidl_as_dataset(self, data):
        return KINDS[self.kind]() if data == "scans://digits" else None


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_plugin_reads_can_be_fitted_and_transformed(here, small_pieces, kind):
    with hooks.temporary(Reads(kind)):
        data = ("--data", "scans://digits")
        assert run("fit", "vae.toml", *data, "--out", "new", "--set", "max_epochs=1") == 0
        assert run("transform", "model.nidl", *data, "--out", "z.npy") == 0
    whole = nidl.load("model.nidl").transform(digits())
    assert np.allclose(np.load("z.npy"), whole, atol=1e-5)
    assert np.load("z.npy").shape == (N, L)


def test_what_inference_reads_can_be_set_on_a_model(here):
    more = ("--set", "stochastic_transform=false", "--set", "batch_size=4")
    assert run("transform", "model.nidl", "--data", "x.npy", "--out", "z.npy", *more) == 0
    mean = nidl.load("model.nidl").set_params(stochastic_transform=False, batch_size=4)
    assert np.array_equal(np.load("z.npy"), mean.transform(digits()))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("latent_dim=9", "latent_dim belongs to the networks, which have been trained"),
        ("encoder.widths=[9]", "encoder__widths belongs to the networks"),
        ("batch_sise=3", "Did you mean 'batch_size'?"),
        ("batch_size=0", "batch_size must be an int >= 1"),
    ],
)
def test_what_a_model_does_not_take_is_refused(here, setting, text, capsys):
    words = ("transform", "model.nidl", "--data", "x.npy", "--out", "z.npy", "--set", setting)
    assert run(*words) == 1
    assert text in capsys.readouterr().err
    assert not Path("z.npy").exists()


def test_no_seed_in_the_model_is_one_seed_for_all_pieces(here, small_pieces):
    x = np.repeat(digits()[:1], N, axis=0)  # equal rows get equal noise under one seed
    np.save("same.npy", x)
    words = ("transform", "model.nidl", "--data", "same.npy", "--set", "random_state=null")
    assert run(*words, "--out", "a.npy") == run(*words, "--out", "b.npy") == 0
    a, b = np.load("a.npy"), np.load("b.npy")
    assert np.ptp(a, axis=0).max() == 0
    assert not np.array_equal(a, b)


def test_samples_are_those_of_python(here, capsys):
    words = ("sample", "model.nidl", "-n", "6", "--seed", "4")
    assert run(*words, "--out", "s.npy") == run(*words, "--draw", "--out", "d.npy") == 0
    model = nidl.load("model.nidl")

    assert np.array_equal(np.load("s.npy"), model.sample(6, seed=4).numpy())
    assert np.array_equal(np.load("d.npy"), model.sample(6, seed=4, draw=True).numpy())


def test_samples_in_pieces_are_repeatable_and_all_different(here, small_pieces):
    words = ("sample", "model.nidl", "-n", "12", "--seed", "4")
    assert run(*words, "--out", "a.npy") == run(*words, "--out", "b.npy") == 0
    a = np.load("a.npy")
    assert a.shape == (12, 1, 8, 8) and np.array_equal(a, np.load("b.npy"))
    assert len(np.unique(a.reshape(12, -1), axis=0)) == 12


def test_samples_without_a_seed_differ_and_tell_theirs(here, capsys):
    words = ("sample", "model.nidl", "-n", "2")
    assert run(*words, "--out", "a.npy") == 0
    seed = capsys.readouterr().err.split("--seed ")[1].split()[0]
    assert run(*words, "--out", "b.npy") == run(*words, "--seed", seed, "--out", "c.npy") == 0
    a, b, c = (np.load(f"{name}.npy") for name in "abc")
    assert np.array_equal(a, c) and not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--out", "z.csv"), "--out writes .npy files, got z.csv. Name it z.npy."),
        (("--out", "gone/z.npy"), "the folder gone does not exist"),
        (("--out", "x.npy"), "x.npy is there already. Choose another name, or say --overwrite."),
        (("--out", "folder.npy"), "cannot write folder.npy: it is a folder"),
    ],
)
@pytest.mark.parametrize("verb", ["transform", "sample"])
def test_a_bad_target_is_told_before_any_work(here, verb, words, text, capsys, monkeypatch):
    os.mkdir("folder.npy")
    monkeypatch.setattr(nidl, "load", None)  # it would fail if it came so far
    source = ("-n", "3") if verb == "sample" else ("--data", "x.npy")
    assert run(verb, "model.nidl", *source, *words) == 1
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1


def test_a_bad_model_is_told(here, capsys):
    os.mkdir("run")
    shutil.copy("model.nidl", "run/model.nidl")
    Path("text.nidl").write_text("no model")
    for model, text in [
        ("gone.nidl", "there is no model file gone.nidl."),
        ("run", "there is no model file run. Say run/model.nidl."),
        ("text.nidl", "text.nidl"),
    ]:
        assert run("transform", model, "--data", "x.npy", "--out", "z.npy") == 1
        assert text in capsys.readouterr().err
    assert not Path("z.npy").exists()


def test_a_verb_that_a_model_lacks_is_told(here, capsys, monkeypatch):
    monkeypatch.delattr(nidl.estimators.get("vae"), "reconstruct")
    words = ("reconstruct", "model.nidl", "--data", "x.npy", "--out", "z.npy")
    assert run(*words) == 1
    assert "model.nidl is a VAE, which has no reconstruct." in capsys.readouterr().err


def test_a_failure_half_way_leaves_what_was_there_and_no_litter(here, small_pieces, capsys):
    x = digits()
    x[-1, 0, 0, 0] = np.nan
    np.save("bad.npy", x)
    Path("z.npy").write_text("mine")
    before = sorted(os.listdir())
    words = ("transform", "model.nidl", "--data", "bad.npy", "--out", "z.npy", "--overwrite")
    assert run(*words) == 1
    assert "x contains NaN or infinite values" in capsys.readouterr().err
    assert sorted(os.listdir()) == before and Path("z.npy").read_text() == "mine"


def test_ctrl_c_half_way_leaves_what_was_there_and_no_litter(here, small_pieces, monkeypatch):
    monkeypatch.setattr(Progress, "step", lambda *_: signal.raise_signal(signal.SIGINT))
    before = sorted(os.listdir())
    assert run("transform", "model.nidl", "--data", "x.npy", "--out", "z.npy") == 130
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((0, 1, 8, 8), np.float32), "Found array with 0 sample(s)"),
        (np.float32(3), "expected x of shape (N, C, *S)"),
        (np.zeros((4, 1, 8, 9), np.float32), "this model takes data of shape (N, 1, 8, 8)"),
        (np.array(["a", "b"]), "not numbers"),
    ],
    ids=["no rows", "a number", "another shape", "text"],
)
def test_data_that_a_model_cannot_take_are_told_in_words(here, x, text, capsys):
    np.save("bad.npy", x)
    assert run("transform", "model.nidl", "--data", "bad.npy", "--out", "z.npy") == 1
    err = capsys.readouterr().err
    assert text in err and err.count("\n") <= 2  # the second says --debug, if it was scikit-learn
    assert not Path("z.npy").exists()


def test_rows_that_a_data_set_does_not_give_are_told(tmp_path):
    pieces = iter([np.zeros((2, 3)), np.zeros((1, 3))])
    with pytest.raises(nidl.NidlError, match="the data have 5 rows by their length, but gave 3"):
        arrays.write_rows(tmp_path / "z.npy", 5, pieces)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_the_file_is_what_numpy_would_write(tmp_path, dtype):
    whole = (np.arange(42).reshape(7, 2, 3) % 5).astype(dtype)
    arrays.write_rows(tmp_path / "a.npy", 7, (whole[i : i + 3] for i in range(0, 7, 3)))
    np.save(tmp_path / "b.npy", whole)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


MEMORY = """
import resource, sys
from nidl_core.cli import arrays, main
arrays._PIECE = 2**20
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_does_not_grow_with_the_data(here):
    peaks = []
    for count in (8_192, 208_192):  # 2 and 51 MiB in, as much out
        np.lib.format.open_memmap("big.npy", "w+", np.float32, (count, 1, 8, 8)).flush()
        words = ["reconstruct", "model.nidl", "--data", "big.npy", "--out", "r.npy", "--overwrite"]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *words, "--set", "batch_size=4096"],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stderr.split()[-1]) / 1024)
    mapped = 49  # more pages of the input that the kernel has not taken back yet
    assert peaks[1] - peaks[0] < mapped + 20, peaks  # an answer held whole would be 49 more


# explain --------------------------------------------------------------------------------------


def test_explain_tells_where_each_value_comes_from(here, capsys):
    assert run("explain", "vae.toml", "--set", "beta=2") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]

    assert lines[0][0] == "nidl-vae:vae" and lines[0][-1].startswith("nidl_vae")
    assert ["latent_dim", "=", "3", "given"] in lines
    assert ["lr", "=", "0.0001", "default"] in lines
    assert ["encoder", "=", '"nidl-backbones:cnn2d"', "given"] in lines
    assert ["likelihood", "=", '"nidl-likelihoods:normal"', "default"] in lines
    assert ["widths", "=", "[4,", "6]", "given"] in lines
    assert ["beta", "=", "2", "given"] in lines
    assert ["beta", "=", "2", "from", "the", "estimator"] in lines


def test_explain_as_json_is_a_spec_that_means_the_same(here, capsys):
    assert run("explain", "vae.toml", "--json") == 0
    text = capsys.readouterr().out
    Path("full.json").write_text(text)
    assert run("explain", "full.json", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    full = json.loads(text)

    assert (full["name"], full["params"]) == (again["name"], again["params"])
    assert full["params"]["encoder"]["params"]["kernel_size"] == 3  # filled in
    assert "beta" not in full["params"]["loss"]["params"]  # it goes on following the estimator's
    kinds = [component["kind"] for component in full["resolved"]["components"]]
    assert kinds == ["estimators", "encoders", "decoders", "likelihoods", "losses"]
    encoder = full["resolved"]["components"][1]
    assert encoder["distribution"] == "nidl-backbones" and encoder["target"].endswith("Encoder")
    assert encoder["parameters"]["depth"] == {"value": 1, "from": "default"}


def test_explain_builds_no_encoder_or_decoder_and_needs_no_data(here, monkeypatch):
    for kind, name in [("encoders", "cnn2d"), ("decoders", "mlp")]:
        cls = getattr(nidl, kind).get(name)

        @functools.wraps(cls.__init__)
        def explode(self, *_, **__):
            raise AssertionError("built")

        monkeypatch.setattr(cls, "__init__", explode)
    os.remove("x.npy")
    assert run("explain", "vae.toml") == 0
    assert run("fit", "vae.toml", "--data", "v.npy", "--out", "new") == 1  # and this would have


VALUE = '{"name": "vae", "params": {"encoder": "mlp", "decoder": "mlp", %s}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "vea"}', "no estimator named 'vea'. Did you mean 'vae'?"),
        ('{"name": "vae"}', "vae needs encoder and decoder: give them in params."),
        ('{"name": "vae", "params": {"encoder": "mpl", "decoder": "mlp"}}', "'mlp'"),
        (
            '{"name": "vae", "params": {"encoder": "mlp", "decoder": "mlp", "latentdim": 2}}',
            "VAE has no parameter 'latentdim'. Did you mean 'latent_dim'?",
        ),
        ('{"name": "os.system"}', "no estimator named 'os.system'"),
        (VALUE % '"latent_dim": "x"', "latent_dim must be an int"),
        (VALUE % '"callbacks": ["swa"]', "callbacks must be objects of Lightning's Callback"),
    ],
)
def test_explain_refuses_what_fit_would(here, text, message, capsys):
    Path("a.json").write_text(text)
    assert run("explain", "a.json") == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_explain_of_a_model_tells_its_facts_and_gives_a_spec(here, capsys):
    assert run("explain", "model.nidl") == 0
    out = capsys.readouterr().out
    assert "input_shape = [1, 8, 8]" in out and "seed = 0" in out and "epochs = 2" in out
    assert torch.__version__ in out and "estimator: " in out and "is installed" in out

    assert run("explain", "model.nidl", "--json") == 0
    Path("again.json").write_text(capsys.readouterr().out)
    assert run("fit", "again.json", "--data", "x.npy", "--val", "v.npy", "--out", "new") == 0
    first, second = nidl.load("model.nidl"), nidl.load("new/model.nidl")
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def changed(path, **more):
    """The model file with other entries in its header."""
    with zipfile.ZipFile("model.nidl") as archive:
        header = {**json.loads(archive.read("nidl.json")), **more}
        weights = archive.read("weights.safetensors")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nidl.json", json.dumps(header))
        archive.writestr("weights.safetensors", weights)


def test_explain_shows_a_strange_file_without_its_control_characters(here, capsys):
    odd = {"parameter": "", "kind": "estimators", "distribution": "x", "version": "1"}
    changed("odd.nidl", components=[{**odd, "id": "x:\x1b[31mvae"}], local=["\x1b]0;title\x07"])
    assert run("explain", "odd.nidl") == 0
    out = capsys.readouterr().out
    assert "x:?[31mvae 1   estimator: not installed" in out
    assert "\x1b" not in out and "\x07" not in out


@pytest.mark.parametrize(
    "more",
    [{"components": 3}, {"components": [{}]}, {"params": None}, {"fit": []}, {"facts": 1}],
    ids=str,
)
def test_explain_of_a_damaged_model_is_one_line(here, more, capsys):
    changed("odd.nidl", **more)
    assert run("explain", "odd.nidl") == 1
    err = capsys.readouterr().err
    assert "odd.nidl is not a model file, or is damaged" in err and err.count("\n") == 1


def test_explain_takes_no_settings_for_a_model(here, capsys):
    assert run("explain", "model.nidl", "--set", "lr=1") == 1
    assert "--set goes with a spec" in capsys.readouterr().err


# Progress -------------------------------------------------------------------------------------


def test_progress_has_a_first_and_a_last_line_and_few_between(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("nidl_core.cli.progress.time.monotonic", lambda: now[0])
    progress = Progress("epoch", 36_000)
    for done in range(1, 36_001):  # ten hours, an epoch a second
        now[0] += 1
        progress.step(done, "loss 1")
    lines = capsys.readouterr().err.splitlines()

    assert lines[0] == "epoch 1/36000, loss 1 (0:00:01 elapsed, 9:59:59 to go)"
    assert lines[-1] == "epoch 36000/36000, loss 1 (10:00:00 elapsed)"
    assert 100 < len(lines) < 600


def test_progress_towards_an_unknown_end(capsys):
    Progress("row", None).step(7)
    assert capsys.readouterr().err == "row 7 (0:00:00 elapsed)\n"
