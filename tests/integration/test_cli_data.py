"""Data that a plugin reads and writes for the command line: settings, notes, what is left out, answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nidl_core as nidl
from nidl_core import hooks
from nidl_core.cli import main
from nidl_core.data import ArrayDataset
from nidl_core.errors import DataError, NidlError

SPEC = """
name = "vae"
[params]
encoder = { name = "mlp", params = { widths = [4] } }
decoder = { name = "mlp", params = { widths = [4] } }
latent_dim = 2
max_epochs = 1
random_state = 0
batch_size = 4
"""


class Shelves:
    """Reads shelf:NAME, scaled as the spec says, and writes .txt files."""

    def __init__(self):
        self.specs = []

    @hooks.hookimpl
    def nidl_as_dataset(self, data, spec):
        if not str(data).startswith("shelf:"):
            return None
        self.specs.append(spec)
        wanted = dict(spec or {})
        skips = wanted.pop("skip_bad", False)
        if data == "shelf:bad" and not skips:
            raise DataError("shelf:bad: row 3 is torn. Mend it.")
        x = np.random.default_rng(0).normal(size=(9, 1, 3, 2)).astype(np.float32)
        notes = ["left out: row 3 is torn"] if skips else []
        scale = float(wanted.get("scale", 1.0))
        return ArrayDataset(x * scale, spec={"scale": scale}, notes=notes)

    @hooks.hookimpl
    def nidl_writer(self, out, verb):
        return Text(out, verb) if out.suffix == ".txt" else None


class Text:
    def __init__(self, out, verb):
        self.out, self.verb = out, verb

    def check(self, *, overwrite):
        if self.out.exists() and not overwrite:
            raise NidlError(f"{self.out} is there already.")

    def write(self, model, data, rows, pieces):
        arrays = list(pieces)
        known = None if data is None else data.spec
        self.out.write_text(json.dumps([self.verb, known, rows, [len(a) for a in arrays]]))
        return f"{self.out}, in words"


@pytest.fixture
def shelves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("vae.toml").write_text(SPEC)
    plugin = Shelves()
    with hooks.temporary(plugin):
        yield plugin


def run(*words):
    return main(list(words))


FIT = ("fit", "vae.toml", "--data", "shelf:a", "--out", "new")


def test_the_table_data_goes_to_who_reads_the_data_and_into_the_model(shelves):
    Path("vae.toml").write_text(f"{SPEC}[data]\nscale = 3.0\n")
    assert run(*FIT, "--val", "shelf:b") == 0
    assert shelves.specs == [{"scale": 3.0}, {"scale": 3.0}]
    assert nidl.load("new/model.nidl").data_spec_ == {"scale": 3.0}
    assert json.loads(Path("new/spec.json").read_text())["data"] == {"scale": 3.0}
    assert run("transform", "new/model.nidl", "--data", "shelf:c", "--out", "z.npy") == 0
    assert shelves.specs[-1] == {"scale": 3.0}
    assert np.load("z.npy").shape == (9, 2)


def test_the_spec_that_fit_writes_gives_the_same_model_again(shelves):
    Path("vae.toml").write_text(f"{SPEC}[data]\nscale = 3.0\n")
    assert run(*FIT) == 0
    assert run("fit", "new/spec.json", "--data", "shelf:a", "--out", "again") == 0
    again = nidl.load("again/model.nidl")
    assert again.data_spec_ == {"scale": 3.0}
    first = nidl.load("new/model.nidl").state_dict()
    assert all(bool((value == first[name]).all()) for name, value in again.state_dict().items())


def test_settings_for_data_that_take_none_are_refused_before_any_work(shelves, capsys):
    np.save("x.npy", np.zeros((9, 1, 3, 2), dtype=np.float32))
    Path("vae.toml").write_text(f"{SPEC}[data]\nscale = 3.0\n")
    assert run("fit", "vae.toml", "--data", "x.npy", "--out", "new") == 1
    assert "x.npy is read as it is, by what takes no settings" in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data = 3", "'data' must be a table of settings, got 3."),
        ("dat = 3", "got also 'dat'. Did you mean 'data'?"),
    ],
)
def test_a_table_data_that_is_none_is_refused(shelves, text, message, capsys):
    Path("vae.toml").write_text(f"{text}\n{SPEC}")
    assert run(*FIT) == 1
    assert message in capsys.readouterr().err


def test_what_is_bad_is_left_out_where_that_is_said_and_listed(shelves, capsys):
    fit = ("fit", "vae.toml", "--data", "shelf:bad", "--out", "new")
    assert run(*fit) == 1
    assert "shelf:bad: row 3 is torn. Mend it." in capsys.readouterr().err
    assert run(*fit, "--skip-bad") == 0
    assert "nidl: left out: row 3 is torn" in capsys.readouterr().err
    assert nidl.load("new/model.nidl").data_spec_ == {"scale": 1.0}
    transform = ("transform", "new/model.nidl", "--data", "shelf:bad", "--out", "z.npy")
    assert run(*transform) == 1
    assert run(*transform, "--skip-bad") == 0


def test_explain_shows_the_table_data(shelves, capsys):
    Path("vae.toml").write_text(f"{SPEC}[data]\nscale = 3.0\n")
    assert run("explain", "vae.toml") == 0
    assert capsys.readouterr().out.endswith("data\n  scale = 3.0  given\n")


def test_explain_of_a_model_shows_how_its_data_were_made_and_fits_the_same_again(shelves, capsys):
    Path("vae.toml").write_text(f"{SPEC}[data]\nscale = 3.0\n")
    assert run(*FIT) == 0
    capsys.readouterr()
    assert run("explain", "new/model.nidl") == 0
    assert capsys.readouterr().out.endswith("data\n  scale = 3.0\n")
    assert run("explain", "new/model.nidl", "--json") == 0
    Path("again.json").write_text(capsys.readouterr().out)
    assert run("fit", "again.json", "--data", "shelf:a", "--out", "again") == 0
    assert nidl.load("again/model.nidl").data_spec_ == {"scale": 3.0}


@pytest.mark.parametrize(
    ("verb", "more", "written"),
    [
        ("transform", ("--data", "shelf:a"), ["transform", {"scale": 1.0}, 9, [9]]),
        ("reconstruct", ("--data", "shelf:a"), ["reconstruct", {"scale": 1.0}, 9, [9]]),
        ("sample", ("-n", "5"), ["sample", None, 5, [5]]),
    ],
)
def test_a_plugin_writes_the_files_that_it_knows(shelves, verb, more, written, capsys):
    assert run(*FIT) == 0
    answer = (verb, "new/model.nidl", *more, "--out", "z.txt")
    assert run(*answer) == 0
    assert capsys.readouterr().out.endswith("written: z.txt, in words\n")
    assert json.loads(Path("z.txt").read_text()) == written
    assert run(*answer) == 1
    assert "z.txt is there already" in capsys.readouterr().err
    assert run(*answer, "--overwrite") == 0
