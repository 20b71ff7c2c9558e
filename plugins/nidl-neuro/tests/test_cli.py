"""The command line on scans: fit, transform to a table, reconstruct to images, sample to volumes."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

import nidl_core as nidl
import nidl_neuro.hooks
from nidl_core import hooks
from nidl_core.cli import main
from nidl_neuro.datasets import synthetic_cohort

SPEC = """
name = "vae"
[params]
encoder = { name = "mlp", params = { widths = [16] } }
decoder = { name = "mlp", params = { widths = [16] } }
latent_dim = 2
max_epochs = 1
random_state = 0
batch_size = 4
[data]
shape = 20
"""
FIT = ("fit", "vae.toml", "--data", "cohort", "--out", "run")


def run(*words):
    return main(list(words))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a cohort, a spec and a fitted model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NIDL_CACHE", str(tmp_path / "cache"))
    synthetic_cohort(5, size=16).write(tmp_path / "cohort")
    Path("vae.toml").write_text(SPEC)
    with hooks.temporary(nidl_neuro.hooks):
        if run("explain", "vae.toml"):
            pytest.skip("the VAE and its networks are not installed")
        assert run(*FIT) == 0
        yield tmp_path


def test_a_folder_of_scans_becomes_a_table_of_latents(here, capsys):
    transform = ("transform", "run/model.nidl", "--data", "cohort", "--out", "latents.tsv")
    assert run(*transform) == 0
    assert capsys.readouterr().out.endswith("written: latents.tsv and latents.json, 5 scans\n")
    table = pd.read_csv("latents.tsv", sep="\t")
    assert list(table.columns) == ["id", "participant_id", "z0", "z1", "z0_sd", "z1_sd"]
    model = nidl.load("run/model.nidl").set_params(stochastic_transform=False)
    np.testing.assert_array_equal(
        table[["z0", "z1"]].to_numpy("float32"), model.transform("cohort")
    )
    assert run(*transform) == 1
    assert "latents.tsv" in capsys.readouterr().err
    assert run(*transform, "--overwrite") == 0


def test_scans_come_back_as_images_on_their_own_grids(here, capsys):
    glob = "cohort/sub-*/anat/*.nii.gz"
    assert run("reconstruct", "run/model.nidl", "--data", glob, "--out", "back") == 0
    assert capsys.readouterr().out.endswith("written: 5 images in back\n")
    images = sorted(Path("back").rglob("*.nii.gz"))
    assert len(images) == 5
    for image, source in zip(images, sorted(Path().glob(glob)), strict=True):
        one, other = nibabel.load(image), nibabel.load(source)
        assert one.shape == other.shape
        np.testing.assert_array_equal(one.affine, other.affine)


def test_samples_are_one_image_on_the_prepared_grid(here, capsys):
    assert run("sample", "run/model.nidl", "-n", "3", "--seed", "0", "--out", "new.nii.gz") == 0
    image = nibabel.load("new.nii.gz")
    assert image.shape == (20, 20, 20, 3)
    expected = nidl.load("run/model.nidl").sample(3, seed=0).numpy()
    np.testing.assert_array_equal(image.get_fdata(dtype="float32")[..., 1], expected[1, 0])


def test_a_bad_scan_stops_the_fit_or_is_left_out_and_listed(here, capsys):
    bad = here / "cohort/sub-0003/anat/sub-0003_T1w.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-2000])
    fit = ("fit", "vae.toml", "--data", "cohort", "--out", "again")
    assert run(*fit) == 1
    err = capsys.readouterr().err
    assert str(bad.relative_to(here)) in err and err.count("\n") == 1
    assert not Path("again").exists()
    assert run(*fit, "--skip-bad") == 0
    assert "nidl: left out: cohort/sub-0003/anat/sub-0003_T1w.nii.gz" in capsys.readouterr().err
    assert len(nidl.load("again/model.nidl").transform("cohort/sub-0001")) == 1


def test_maps_of_each_kind_are_written(here, capsys):
    maps = ("maps", "run/model.nidl", "--data", "cohort", "--out", "maps")
    assert run(*maps, "--kinds", "zmap", "residual") == 0
    assert capsys.readouterr().out.endswith("written: 10 images of 5 scans in maps\n")
    assert len(list(Path("maps").rglob("*desc-zmap*.nii.gz"))) == 5
    assert run(*maps) == 1
    assert run(*maps, "--overwrite") == 0


def test_scans_are_scored_by_controls(here, capsys):
    synthetic_cohort(8, size=16, seed=1).write(here / "controls")
    score = ("deviation", "run/model.nidl", "--data", "cohort", "--controls", "controls")
    assert run(*score, "--out", "scores.tsv") == 0
    table = pd.read_csv("scores.tsv", sep="\t")
    assert len(table) == 5
    assert table["mahalanobis_p"].between(1 / 5, 1).all()


def test_a_calibration_is_kept_for_other_scans(here, capsys):
    synthetic_cohort(8, size=16, seed=1).write(here / "controls")
    score = ("deviation", "run/model.nidl", "--data", "cohort")
    assert run(*score, "--controls", "controls", "--save", "c.npz", "--out", "a.tsv") == 0
    assert run(*score, "--calibration", "c.npz", "--out", "b.tsv") == 0
    assert Path("a.tsv").read_text() == Path("b.tsv").read_text()
    assert run(*score, "--calibration", "c.npz", "--per-voxel", "--out", "c.tsv") == 1
    assert "--calibration has its own" in capsys.readouterr().err


def test_files_that_the_shell_listed_are_scans_one_by_one(here, capsys):
    files = sorted(map(str, Path().glob("cohort/sub-*/anat/*.nii.gz")))[:2]
    maps = ("maps", "run/model.nidl", "--out", "maps", "--kinds", "zmap", "--data", *files)
    assert run(*maps) == 0
    assert capsys.readouterr().out.endswith("written: 2 images of 2 scans in maps\n")
    assert run("fit", "vae.toml", "--data", *files, "--val", *files, "--out", "other") == 0
    transform = ("transform", "other/model.nidl", "--out", "two.tsv", "--data", *files)
    assert run(*transform) == 0
    assert len(pd.read_csv("two.tsv", sep="\t")) == 2


def test_a_covariate_is_walked_along_and_drawn(here, capsys):
    pytest.importorskip("matplotlib", reason="drawing needs nidl-neuro[figures]")
    walk = ("traverse", "run/model.nidl", "--along", "age", "--steps", "3", "--out", "age.nii.gz")
    assert run(*walk) == 1
    assert "say --data with a table" in capsys.readouterr().err
    assert run(*walk, "--data", "cohort", "--png", "age.png") == 0
    assert "age explains, of each latent's variance: z0 " in capsys.readouterr().out
    assert nibabel.load("age.nii.gz").shape == (20, 20, 20, 3)
    assert Path("age.png").stat().st_size > 5000
    assert run(*walk, "--data", "cohort") == 1


def test_a_report_is_one_page_and_replaces_no_other_unasked(here, capsys):
    synthetic_cohort(3, size=16, seed=1).write(here / "held_out")
    report = ("report", "run/model.nidl", "--data", "cohort", "--out", "report.html")
    assert run(*report, "--val", "held_out", "--title", "Five <people>") == 0
    assert capsys.readouterr().out.endswith("written: report.html\n")
    page = Path("report.html").read_text()
    assert "Five &lt;people&gt;" in page
    assert run(*report) == 1
    assert "report.html is there already" in capsys.readouterr().err
    assert Path("report.html").read_text() == page
    assert run(*report, "--overwrite") == 0


def test_a_latent_dimension_is_walked_along(here, capsys):
    walk = ("traverse", "run/model.nidl", "--dimension", "1", "--steps", "3", "--out", "z1.nii.gz")
    assert run(*walk) == 0
    assert nibabel.load("z1.nii.gz").shape == (20, 20, 20, 3)
    assert run(*walk) == 1


def test_the_cache_is_told_and_cleared(here, capsys):
    assert run("cache") == 0
    out = capsys.readouterr().out
    assert "5 scans" in out and "MiB in all" in out
    assert run("cache", "--clear") == 0
    assert "freed 0." in capsys.readouterr().out
    assert run("cache") == 0
    assert "scans" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["maps", "deviation", "traverse"])
def test_a_model_that_is_not_there_is_told(here, command, capsys):
    more = {
        "maps": ("--data", "cohort", "--out", "a"),
        "deviation": ("--data", "cohort", "--controls", "cohort", "--out", "a.tsv"),
        "traverse": ("--out", "a.nii.gz"),
    }[command]
    assert run(command, "gone.nidl", *more) == 1
    assert "there is no model file gone.nidl" in capsys.readouterr().err
