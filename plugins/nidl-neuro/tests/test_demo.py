"""`nidl demo brains`: what it prints is what it did, and what it makes is there."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import sys

import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import nidl_core as nidl
from nidl_core.errors import DataError, InvalidParameter, NidlError
from nidl_neuro import scans
from nidl_neuro.demo import brains
from nidl_neuro.demonstration import people as writing
from nidl_neuro.demonstration.finding import _best_dice
from nidl_neuro.demonstration.linear import FactorAnalysis, ProbabilisticPCA, read_off
from nidl_neuro.demonstration.people import People, write_people
from nidl_neuro.outputs import read_table

pytest.importorskip("matplotlib", reason="the demo draws with matplotlib: nidl-neuro[figures]")

SMALL = {"scans": 16, "epochs": 4, "size": 16}


def run(out, **settings):
    """What the demo prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            brains(out, **{**SMALL, **settings})
        except nidl.errors.UnknownComponent as err:
            pytest.skip(f"other plugins are not installed: {err}")
    return printed.getvalue()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NIDL_CACHE", str(folder / "nothing-goes-here"))
        yield folder / "made", run(folder / "made")


@pytest.fixture(scope="module")
def held_out(demo):
    """The model, and the scans held out."""
    out, _ = demo
    vae = nidl.load(out / "brains.nidl")
    return vae, scans(out / "scans" / "held-out", vae.data_spec_, cache=out / "cache")


def figures(printed, row):
    """The numbers in a row of a table."""
    (line,) = [line for line in printed.splitlines() if line.startswith(row)]
    return [float(figure) for figure in re.findall(r"-?\d+\.?\d*", line.removeprefix(row))]


def test_demo_says_that_its_scans_are_synthetic_and_writes_each_person_once(demo):
    out, printed = demo
    assert "28 synthetic T1-weighted scans, 14 x 16 x 14 voxels" in printed
    assert "nobody was scanned" in printed
    seen = []
    for folder, count in {"train": 16, "held-out": 8, "lesioned": 4}.items():
        table = pd.read_csv(out / "scans" / folder / "participants.tsv", sep="\t")
        found = sorted((out / "scans" / folder).glob("sub-*/anat/*_T1w.nii.gz"))
        assert len(table) == len(found) == count
        assert set(table["lesion"]) == {folder == "lesioned"}
        seen += table["participant_id"].tolist()
    assert len(set(seen)) == len(seen)


def test_demo_prints_the_bound_of_the_model_that_it_saved(demo, held_out):
    printed = demo[1]
    vae, data = held_out
    nats, *others = figures(printed, "log-likelihood, nats per scan")
    assert nats == pytest.approx(vae.score(data), abs=0.5)
    bits = figures(printed, "the same, bits per voxel")
    voxels = int(vae.data_mask.sum())
    expected = [-value / voxels / np.log(2) for value in (nats, *others)]
    assert bits == pytest.approx(expected, abs=2e-3)
    best = ("the VAE", "PCA", "FA")[np.argmax([nats, *others])]
    assert f"likeliest under\n{best}." in printed


def test_demo_keeps_the_curves_of_all_epochs_though_the_last_are_a_warm_start(demo, held_out):
    assert "Trained for 4 epochs" in demo[1]
    assert "the last 1 of them at a fifth of the learning rate" in demo[1]
    assert [row["epoch"] for row in held_out[0].history_] == [0, 1, 2, 3]


def test_demo_prints_the_error_of_the_models_reconstructions(demo, held_out):
    vae, data = held_out
    inside = vae.data_mask.numpy()
    missed = np.asarray(vae.reconstruct(data))[:, 0, inside] - data.x[:][:, 0, inside]
    error, of_pca = figures(demo[1], "reconstruction error (RMS)")
    assert error == pytest.approx(np.sqrt(np.square(missed).mean()), abs=1e-3)
    rows = scans(demo[0] / "scans" / "train", vae.data_spec_, cache=demo[0] / "cache")
    pca = PCA(vae.latent_dim, svd_solver="full").fit(rows.x[:][:, 0, inside])
    x = data.x[:][:, 0, inside]
    back = pca.inverse_transform(pca.transform(x))
    assert of_pca == pytest.approx(np.sqrt(np.square(back - x).mean()), abs=1e-3)


def test_demo_measures_darkness_as_the_files_themselves_have_it(demo, held_out):
    # a rank does not change with the units: the scan as it lies on the disk must give the same AUC
    out, printed = demo
    vae, _ = held_out
    lesioned = scans(out / "scans" / "lesioned", vae.data_spec_, cache=out / "cache")
    areas = []
    for row, name in enumerate(lesioned.ids):
        image = nibabel.load(lesioned.cohort[row].path)
        path = out / "scans/lesioned/derivatives/lesions" / name / "anat"
        truth = nibabel.load(path / f"{name}_label-lesion_mask.nii.gz").get_fdata() > 0
        inside = lesioned.image(row, vae.data_mask.numpy()).get_fdata() > 0
        if truth[inside].any():
            areas.append(roc_auc_score(truth[inside], -image.get_fdata()[inside]))
    area, *_ = figures(printed, "darkness of the prepared scan")
    assert area == pytest.approx(np.mean(areas), abs=1e-3)


def test_demo_makes_figures_maps_latents_and_a_report(demo):
    out, printed = demo
    for name in ("reconstructions.png", "ageing.png", "lesion.png"):
        assert (out / name).stat().st_size > 10_000, name
        assert str(out / name) in printed
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "synthetic" in page and "lesion.png" not in page
    assert "script" in page or "<svg" in page
    assert str((out / "report.html").resolve()) in printed
    ageing = nibabel.load(out / "ageing.nii.gz")
    assert ageing.shape[3] == 7
    maps = sorted((out / "maps").rglob("*_desc-zmap_T1w.nii.gz"))
    assert len(maps) == 4
    for path in maps:
        own = nibabel.load(
            out / "scans/lesioned" / path.parts[-3] / "anat" / f"{path.parts[-3]}_T1w.nii.gz"
        )
        made = nibabel.load(path)
        assert made.shape == own.shape
        np.testing.assert_allclose(made.affine, own.affine)


def test_demo_writes_the_latents_with_the_identifiers_of_those_held_out(demo, held_out):
    table = read_table(demo[0] / "latents.tsv")
    vae, data = held_out
    assert table["participant_id"].tolist() == data.ids
    latents = table[[f"z{i}" for i in range(vae.latent_dim)]].to_numpy()
    np.testing.assert_allclose(latents, np.asarray(vae.transform(data)), rtol=1e-5, atol=1e-6)


def test_demo_saves_a_model_that_agrees_in_a_fresh_process(demo):
    assert "the latents of the held-out scans agree bit for bit" in demo[1]


def test_demo_writes_nothing_outside_its_folder(demo):
    assert [path.name for path in demo[0].parent.iterdir()] == ["made"]


def test_people_of_an_earlier_run_are_used_again_and_others_replaced(tmp_path):
    people = People(3, 1, 1, (14, 16, 14), seed=0)
    assert write_people(people, tmp_path)
    scan = tmp_path / "train/sub-0001/anat/sub-0001_T1w.nii.gz"
    before = scan.stat().st_mtime_ns, scan.read_bytes()
    assert not write_people(people, tmp_path)
    assert (scan.stat().st_mtime_ns, scan.read_bytes()) == before
    assert write_people(People(2, 1, 1, (14, 16, 14), seed=1), tmp_path)
    assert scan.read_bytes() != before[1]
    assert not (tmp_path / "train/sub-0003").exists()
    assert write_people(people, tmp_path)
    assert nibabel.load(scan).get_fdata().tobytes() == _voxels(before[1])


def test_people_of_a_run_that_was_interrupted_are_written_again(tmp_path, monkeypatch):
    people = People(3, 1, 1, (14, 16, 14), seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_people(people, tmp_path)
    (tmp_path / "train/sub-0001").mkdir(parents=True)
    assert write_people(people, tmp_path)
    assert len(list(tmp_path.glob("train/sub-*/anat/*.nii.gz"))) == 3
    assert not write_people(people, tmp_path)


def test_files_that_no_run_wrote_are_not_replaced(tmp_path):
    mine = tmp_path / "train" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DataError, match=r"holds files that no run of the demo wrote.*--out"):
        write_people(People(2, 1, 1, (14, 16, 14), seed=0), tmp_path)
    assert mine.read_text() == "mine"


def _interrupted(*job):
    raise KeyboardInterrupt


def _voxels(packed):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(packed)).get_fdata().tobytes()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"scans": 3}, "scans must be an int >= 16"),
        ({"epochs": 0}, "epochs must be an int >= 1"),
        ({"size": 20}, "size must be a multiple of 8, from 16 to 128, got"),
        ({"seed": -1}, "seed must be an int >= 0"),
    ],
)
def test_demo_refuses_impossible_settings_before_it_writes(tmp_path, wrong, told):
    with pytest.raises(InvalidParameter, match=told):
        brains(tmp_path / "made", **{**SMALL, **wrong})
    assert not (tmp_path / "made").exists()


def test_demo_says_what_to_install_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NidlError, match=r"needs matplotlib: pip install 'nidl-neuro\[figures\]'"):
        brains(tmp_path / "made", **SMALL)


@pytest.fixture
def rows():
    """30 rows to learn from and 10 others, (N, 1, 2, 3, 4), of two factors and noise of all sizes."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.3, 1.5, 24) * rng.normal(size=(40, 24))
    x = 1 + rng.normal(size=(40, 2)) @ rng.normal(size=(2, 24)) + noise
    x = x.reshape(40, 1, 2, 3, 4)
    mask = np.ones((2, 3, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 2, 3] = False
    return x[:30], x[30:], mask


def test_the_likelihood_of_probabilistic_pca_is_that_of_scikit_learn(rows):
    train, test, mask = rows
    expected = PCA(3, svd_solver="full").fit(train[:, 0, mask])
    # scikit-learn divides by N - 1: the maximum of the likelihood by N
    expected.explained_variance_ *= 29 / 30
    expected.noise_variance_ *= 29 / 30
    found = ProbabilisticPCA(train, mask, 3).log_likelihood(test)
    np.testing.assert_allclose(found, expected.score_samples(test[:, 0, mask]), rtol=1e-9)


def test_the_likelihood_of_factor_analysis_is_that_of_its_normal(rows):
    train, test, mask = rows
    model = FactorAnalysis(train, mask, 2)
    covariance = model._weights @ model._weights.T + np.diag(model._noise)
    expected = multivariate_normal(model._mean, covariance).logpdf(test[:, 0, mask])
    np.testing.assert_allclose(model.log_likelihood(test), expected, rtol=1e-9)


def test_factor_analysis_climbs_to_the_maximum_that_scikit_learn_finds(rows):
    from sklearn.decomposition import FactorAnalysis as Reference

    train, _, mask = rows
    likelihoods = [
        FactorAnalysis(train, mask, 2, steps).log_likelihood(train).mean()
        for steps in (0, 1, 5, 30, 500)
    ]
    assert np.all(np.diff(likelihoods) > 0)
    best = Reference(2, tol=1e-4, max_iter=5000, svd_method="lapack").fit(train[:, 0, mask])
    assert likelihoods[-1] == pytest.approx(best.score(train[:, 0, mask]), abs=1e-2)


def test_the_best_dice_is_the_best_over_all_thresholds():
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.2
    values = np.round(rng.normal(size=200) + truth, 1)
    every = []
    for threshold in values:
        chosen = values >= threshold
        every.append(2 * (chosen & truth).sum() / (chosen.sum() + truth.sum()))
    assert _best_dice(truth, values) == pytest.approx(max(every))
    assert _best_dice(truth, truth.astype(float)) == 1


def test_a_number_is_read_off_where_it_is_linear_and_not_where_it_is_not_there():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(150, 4))
    y = 50 + 10 * z[:, 1]
    r2, error = read_off(z[:100], z[100:], y[:100], y[100:])
    assert r2 > 0.999
    assert error < 0.5
    r2, error = read_off(z[:100, 2:], z[100:, 2:], y[:100], y[100:])
    assert r2 < 0.2
    assert error == pytest.approx(np.abs(y[100:] - y[:100].mean()).mean(), rel=0.1)
