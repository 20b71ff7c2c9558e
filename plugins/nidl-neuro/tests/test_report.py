"""The report: one page that stands alone, says what is so, and puts in words what is missing."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from html.parser import HTMLParser
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.exceptions import NotFittedError

import nidl_core as nidl
from nidl_core.errors import DataError, DataTypeError, InvalidParameter, ShapeError
from nidl_neuro import scans
from nidl_neuro.cohort import Cohort, Scan
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.report import write_report
from nidl_neuro.report.about import _given
from nidl_neuro.report.brains import STEPS, collect, worst
from nidl_neuro.report.charts import boxes, compared, lines, scatter, ticks
from nidl_neuro.report.facts import gather
from nidl_neuro.report.latents import Posterior, posterior
from nidl_neuro.report.markup import TIMES, Html, el, number
from nidl_neuro.report.parts import count_told
from nidl_neuro.report.slices import coloured, grey, png, signed, window
from nidl_neuro.report.verdicts import on_baseline, on_collapse, on_prior

N, SIZE = 14, 16
HOSTILE = '<script>alert("x")</script>&'
VOID = {"meta", "link", "img", "input", "br"}


def vae(network="cnn3d", **params):
    small = {"name": network, "params": {"widths": [4, 8]}}
    given = {
        "latent_dim": 3,
        "max_epochs": 2,
        "random_state": 0,
        "batch_size": 4,
        "enable_progress_bar": False,
        "logger": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        **params,
    }
    try:
        return nidl.build("vae", encoder=small, decoder=small, likelihood="normal", **given)
    except nidl.NidlError as err:
        pytest.skip(f"other plugins are not installed: {err}")


def awake(model, data):
    """The model with latents of mean 0 and variance 1 over the data, as after a long training."""
    mean = torch.from_numpy(posterior(model, data).mean).float()
    with torch.no_grad():
        model.fc_mu.weight /= mean.std(0, correction=0)[:, None]
        model.fc_mu.bias.copy_((model.fc_mu.bias - mean.mean(0)) / mean.std(0, correction=0))
    return model


def cohort_of(rows, *, names=str, covariates=True, refused=None, seed=0):
    """Synthetic people as images in memory."""
    people = synthetic_cohort(rows, size=SIZE, seed=seed)
    found = tuple(Scan(names(one.id), one.image()) for one in people)
    table = people.participants().drop(columns="participant_id")
    index = pd.Index([scan.id for scan in found], name="id")
    table = table.set_index(index) if covariates else pd.DataFrame(index=index)
    return Cohort(found, table, refused or {})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(cache):
    return scans(cohort_of(N), {"mask": "computed"}, cache=cache)


@pytest.fixture(scope="module")
def val(cache):
    return scans(
        cohort_of(6, names=lambda i: f"new-{i}", seed=1), {"mask": "computed"}, cache=cache
    )


@pytest.fixture(scope="module")
def model(data, val):
    return awake(vae().fit(data, val=val), data)


@pytest.fixture(scope="module")
def facts(model, data, val):
    return gather(model, data, val)


class Page(HTMLParser):
    """Elements of a page, their texts, and whether all are closed in order."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.elements, self.texts, self.errors = [], [], [], []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(model, data, val, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(model, data, out, val=val, title="A title") == out
    return Page(out)


# The page ---------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_every_link_leads_somewhere(page):
    assert page.errors == []
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs in page.all("a")]
    assert len(links) == 12
    assert {link[1:] for link in links} <= set(ids)
    assert "$" not in page.source.replace("${", "")


def test_the_page_refers_to_nothing_outside_itself(page):
    source = re.sub(r"base64,[\w+/=]*", "", page.source)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", source, re.I)
    for attrs in (attrs for _, attrs in page.elements):
        assert attrs.get("src", "data:").startswith("data:image/png;base64,") or "src" not in attrs
        assert attrs.get("href", "#")[:1] == "#" or attrs["href"] == "data:,"
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")


def test_the_page_is_small(page):
    assert len(page.source) < 3e6


def test_every_picture_says_in_words_what_it_shows(page):
    assert len(page.all("img")) > 30
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert len(page.all("svg")) > 10
    assert all(attrs.get("aria-label") and attrs["role"] == "img" for attrs in page.all("svg"))


def test_the_page_says_what_was_trained_on_what(page, model, data):
    assert "<title>A title</title>" in page.source
    for text in (
        "nidl-vae:vae",
        "nidl-backbones:cnn3d",
        "nidl-likelihoods:normal",
        "14 + 6 held out",
        f"{SIZE} {TIMES} {SIZE} {TIMES} {SIZE} voxels of 12 {TIMES} 12 {TIMES} 12 mm",
        f"{count_told(int(data.mask.sum()))} voxels in the mask".replace("\u202f", " "),
        "latent_dim 3",
        f"widths=4 {TIMES} 8",
        "intensity zscore",
        f"torch {torch.__version__}",
    ):
        assert text in page.text, text


def test_text_from_the_data_cannot_act(model, cache, tmp_path):
    cohort = cohort_of(N, names=lambda i: f"{HOSTILE}{i}", refused={HOSTILE: f"bad {HOSTILE}"})
    table = cohort.covariates[["age"]].assign(**{HOSTILE: [HOSTILE, "b"] * (N // 2)})
    cohort = Cohort(cohort.scans, table, cohort.refused, (f"note {HOSTILE}",))
    hostile = scans(cohort, {"mask": "computed"}, cache=cache)
    out = write_report(model, hostile, tmp_path / "a.html", title=f"</title>{HOSTILE}")
    page = Page(out)
    assert page.errors == []
    assert len(page.all("script")) == 1
    assert "<script>alert" not in page.source
    assert page.text.count(HOSTILE) > 5
    assert all(not name.startswith("on") for _, attrs in page.elements for name in attrs)


# Its numbers ------------------------------------------------------------------------------------


def test_the_bound_is_the_model_s_score_and_its_parts_add_up(facts, model, data, val):
    for group, given in zip(facts.groups, (data, val), strict=True):
        assert group.bound == model.score(given)
        with torch.no_grad():
            q = model.eval().encode(torch.from_numpy(given.x[:]))
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
        assert group.kl == pytest.approx(float(kl.sum(1).mean()), rel=1e-5)
        assert group.fit - group.kl == pytest.approx(group.bound)


def test_errors_are_those_of_reconstructions_in_the_mask(facts, model, data):
    x, mask = data.x[:], data.mask.numpy()
    missed = (model.reconstruct(x) - x)[:, 0][:, mask]
    np.testing.assert_allclose(facts.data.errors, np.sqrt((missed**2).mean(1)), rtol=1e-5)
    assert facts.data.error == pytest.approx(np.sqrt((missed**2).mean()), rel=1e-5)


def test_the_error_of_pca_is_scikit_learn_s(facts, data, val):
    from sklearn.decomposition import PCA

    mask = data.mask.numpy()
    pca = PCA(3, svd_solver="full").fit(data.x[:][:, 0, mask])
    for group, given in zip(facts.groups, (data, val), strict=True):
        flat = given.x[:][:, 0, mask]
        back = pca.inverse_transform(pca.transform(flat))
        assert group.baseline == pytest.approx(np.sqrt(((flat - back) ** 2).mean()), rel=1e-4)


def test_the_printed_numbers_are_the_computed_ones(page, facts):
    last = facts.groups[-1]
    bits = -last.bound / (facts.about.voxels * np.log(2))
    for text in (number(last.bound, 5), number(bits, 4), number(last.error), number(last.kl)):
        assert text.replace("\u202f", " ") in page.text, text
    order = np.argsort(-np.concatenate([group.errors for group in facts.groups]))
    ids = [*facts.data.data.ids, *last.data.ids]
    assert f"{ids[order[0]]} (" in page.text


def test_the_worst_scans_come_first(facts):
    errors = [np.sort(group.errors)[rank] for group, rank in worst(facts, 5)]
    every = np.concatenate([group.errors for group in facts.groups])
    np.testing.assert_array_equal(errors, np.sort(every)[::-1][:5])


def test_examples_are_of_held_out_scans_and_show_what_they_say(facts, model, val):
    brains = collect(model, facts)
    assert [example.rank for example in brains.examples] == [1, 3, 5]
    for example in brains.examples:
        row = val.ids.index(example.id)
        np.testing.assert_array_equal(example.scan, val.x[row][0])
        np.testing.assert_allclose(
            example.reconstruction, model.reconstruct(val.x[row : row + 1])[0, 0]
        )
        assert example.error == facts.val.errors[row]


def test_a_traversal_changes_one_dimension_around_the_mean_scan(facts, model):
    brains = collect(model, facts)
    mean, sd = facts.data.latents.mean.mean(0), facts.data.latents.mean.std(0, ddof=1)
    for one in brains.traversals:
        for step, volume in zip(STEPS, one.volumes, strict=True):
            z = mean.copy()
            z[one.dimension] += step * sd[one.dimension]
            expected = model.inverse_transform(z[None].astype(np.float32))[0, 0]
            np.testing.assert_allclose(volume, expected, atol=1e-5)


def test_links_are_correlations_of_each_dimension(facts, data):
    names = [covariate.name for covariate in facts.covariates]
    assert names[:3] == ["age", "sex", "site"]
    for k in range(3):
        r = np.corrcoef(facts.data.latents.mean[:, k], data.covariates["age"])[0, 1]
        assert facts.links[k, 0] == pytest.approx(abs(r))


def test_of_many_scans_some_are_probed_and_the_page_says_how_many(
    model, data, tmp_path, monkeypatch
):
    monkeypatch.setattr("nidl_neuro.report.facts._MOST_PROBED", 11)
    facts = gather(model, data, seed=1)
    assert facts.probing.scans == 11
    assert {probe.scans for probe in facts.probing.probes} == {11}
    assert len(facts.data.latents.mean) == N
    text = Page(write_report(model, data, tmp_path / "some.html")).text
    assert "was fitted on 11 of the 14 scans of this report" in text
    assert "5-fold cross-validation on 11 of the 14 scans of this report" in text


def test_a_report_is_repeatable_and_leaves_the_model_as_it_was(data, tmp_path):
    model = vae(random_state=None, max_epochs=1).fit(data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pages = [write_report(model, data, tmp_path / f"{i}.html", seed=3).read_text() for i in (0, 1)]
    assert pages[0] == pages[1]
    assert model.random_state is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# What may be missing ----------------------------------------------------------------------------


def test_a_report_without_anything_optional(cache, tmp_path):
    bare = scans(cohort_of(4, covariates=False), {"mask": "none"}, cache=cache)
    model = vae(latent_dim=1, max_epochs=1).fit(bare)
    model.history_ = []
    text = Page(write_report(model, bare, tmp_path / "bare.html")).text
    for words in (
        f"all {SIZE**3:,} voxels: there is no mask".replace(",", " "),
        "no history of a training",
        "Only 4 scans",
        "came without covariates",
        "There is no covariate to probe",
        "No scan was left out",
        "The model has no mask",
        "Epochs not recorded",
    ):
        assert words in text, words


def test_one_epoch_and_one_scan_are_told_in_words(model, cache, tmp_path):
    one = scans(cohort_of(1), {"mask": "computed"}, cache=cache)
    short = vae(max_epochs=1).fit(one)
    text = Page(write_report(short, one, tmp_path / "one.html")).text
    assert "had one epoch" in text
    assert "Only 1 scan " in text
    assert "One scan tells nothing about the latents" in text
    assert "no validation during training" in text


def test_a_collapsed_model_is_called_so(data, tmp_path):
    model = vae(max_epochs=1).fit(data)
    with torch.no_grad():
        for head in (model.fc_mu, model.fc_logvar):
            head.weight.zero_()
            head.bias.zero_()
    facts = gather(model, data)
    assert facts.data.latents.active.sum() == 0
    assert facts.data.kl == 0
    text = Page(write_report(model, data, tmp_path / "collapsed.html")).text
    assert "Posterior collapse: the model ignores its latents" in text
    assert "0 of 3" in text
    assert "nothing to traverse" in text


def test_other_preparations_than_the_model_s_are_refused(model, data, cache, tmp_path):
    other = scans(cohort_of(N), {"intensity": "percentiles", "mask": "computed"}, cache=cache)
    for given in ({"data": other}, {"data": data, "val": other}):
        with pytest.raises(DataError, match="intensity 'percentiles' instead of 'zscore'"):
            write_report(model, out=tmp_path / "other.html", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_is_told_without_its_folder_and_may_lie_elsewhere(cache, tmp_path):
    pages = []
    for folder in ("of_jane", "of_john"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "brain.nii.gz"
        mask = np.zeros((SIZE,) * 3, dtype=np.uint8)
        mask[3:-3, 2:-2, 4:-4] = 1
        nibabel.Nifti1Image(mask, cohort_of(1)[0].load().affine).to_filename(path)
        data = scans(cohort_of(N), {"mask": path}, cache=cache)
        model = pages[0][0] if pages else vae(max_epochs=1).fit(data)
        pages.append((model, Page(write_report(model, data, tmp_path / f"{folder}.html"))))
    for _, page in pages:
        assert "given: brain.nii.gz" in page.text
        assert "of_jane" not in page.source and "of_john" not in page.source
    assert _given({"name": "/home/jane/a.nii.gz"}) == _given({"name": r"C:\jane\a.nii.gz"})


def test_an_epoch_without_a_finite_bound_is_told(data, tmp_path):
    model = vae(max_epochs=4).fit(data)
    model.history_[1] = {key: float("nan") for key in model.history_[1]} | {"epoch": 1}
    text = Page(write_report(model, data, tmp_path / "nan.html")).text
    assert "In 1 epoch, the first being 2, the bound was not finite" in text
    assert "Second part: KL" in text and "parts of its own" not in text
    model.history_ = [{key: float("nan") for key in row} | {"epoch": 0} for row in model.history_]
    text = Page(write_report(model, data, tmp_path / "nan.html")).text
    assert "No epoch of 4 had a finite bound" in text


def test_a_saved_model_and_paths_give_the_same_page(model, tmp_path, monkeypatch):
    monkeypatch.setenv("NIDL_CACHE", str(tmp_path / "cache"))
    folder = synthetic_cohort(N, size=SIZE).write(tmp_path / "bids")
    bad = folder / "sub-0099" / "anat" / "sub-0099_T1w.nii.gz"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no image")
    model.save(tmp_path / "model.nidl")
    loaded = nidl.load(tmp_path / "model.nidl")
    page = Page(write_report(loaded, folder, tmp_path / "report.html"))
    assert "sub-0099" in page.text
    assert "it is not a NIfTI image" in page.text
    prepared = scans(folder, {"mask": "computed"}, skip_bad=True)
    given = Page(write_report(model, prepared, tmp_path / "given.html"))
    assert given.source == page.source


def test_scans_without_finite_latents_are_refused_by_name(model, data, tmp_path):
    with torch.no_grad():
        model.fc_logvar.bias += 2000
    try:
        with pytest.raises(
            DataError, match="no finite latents for 14 of 14 scans, the first being sub-0001"
        ):
            write_report(model, data, tmp_path / "report.html")
    finally:
        with torch.no_grad():
            model.fc_logvar.bias -= 2000


def test_held_out_scans_without_the_covariates_are_told(model, data, cache):
    bare = scans(cohort_of(6, covariates=False, seed=1), {"mask": "computed"}, cache=cache)
    probing = gather(model, data, bare).probing
    assert probing.probes == ()
    assert set(probing.left_out.values()) == {"the held-out scans' table does not have it"}


def test_another_beta_and_a_loss_of_other_parts_are_told(data, tmp_path):
    model = vae(beta=4.0).fit(data)
    assert (
        "trained with beta = 4, so the objective was not the bound"
        in Page(write_report(model, data, tmp_path / "beta.html")).text
    )
    for row in model.history_:
        row["train/kl_loss"] *= 2
    text = Page(write_report(model, data, tmp_path / "parts.html")).text
    assert "parts of its own that do not add up to the bound" in text
    assert "Second part: KL" not in text


# Verdicts ---------------------------------------------------------------------------------------


def latents(*spreads, sd=1.0, offset=0.0, rows=10):
    signs = np.array([1.0, -1.0] * (rows // 2))[:, None]
    mean = signs * np.sqrt(spreads) + offset
    return Posterior(mean, np.full_like(mean, sd))


@pytest.mark.parametrize(
    ("spreads", "mood", "head"),
    [
        ((1.0, 1.0), "good", "All latent dimensions are used"),
        ((1.0,), "good", "The one latent dimension is used"),
        ((1.0, 1.0, 0.0), "good", "2 of 3 latent dimensions are used"),
        ((1.0, 0.0, 0.0), "warn", "1 of 3 latent dimensions are used"),
        ((0.0, 0.0), "bad", "Posterior collapse: the model ignores its latents"),
    ],
)
def test_collapse_is_told_by_the_active_units(spreads, mood, head):
    verdict = on_collapse(latents(*spreads))
    assert (verdict.mood, verdict.head) == (mood, head)


def test_idle_dimensions_are_named():
    assert "The other 2 (z1, z2)" in on_collapse(latents(1.0, 0.0, 0.0)).text


@pytest.mark.parametrize(("error", "told"), [(1.4, False), (1.6, True)])
def test_a_model_that_a_linear_one_beats_is_told(error, told):
    group = SimpleNamespace(name="held-out scans", error=error, baseline=1.0)
    verdict = on_baseline(group)
    assert (verdict is not None) == told
    if told:
        assert verdict.mood == "bad"
        assert "Their error is 1 on the held-out scans, that of the model 1.6" in verdict.text


def test_latents_away_from_the_prior_are_told():
    assert on_prior(latents(0.75, 0.75, sd=0.5)) is None
    assert "1 of 2 do not come near" in on_prior(latents(0.75, 0.0, sd=0.5)).text
    assert "means up to 3 from 0" in on_prior(latents(0.75, 0.75, sd=0.5, offset=3.0)).text


# Errors -----------------------------------------------------------------------------------------


def test_what_cannot_be_reported_is_refused_before_anything_is_written(
    model, data, cache, tmp_path
):
    out = tmp_path / "report.html"
    with pytest.raises(NotFittedError):
        write_report(vae(), data, out)
    with pytest.raises(
        DataTypeError, match="ndarray has no encode, inverse_transform, reconstruct"
    ):
        write_report(np.zeros(3), data, out)
    flat = vae("mlp", max_epochs=1).fit(
        np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)
    )
    with pytest.raises(DataError, match=r"fitted on \(N, 1, 4, 4\). Fit it on scans"):
        write_report(flat, data, out)
    small = scans(cohort_of(2), {"shape": 12, "mask": "computed"}, cache=cache)
    with pytest.raises(ShapeError, match="this model takes data of shape"):
        write_report(model, small, out)
    with pytest.raises(InvalidParameter, match="title must be a str or None, got title=3"):
        write_report(model, data, out, title=3)
    with pytest.raises(InvalidParameter, match="seed must be"):
        write_report(model, data, out, seed=-1)
    with pytest.raises(DataError, match="it is a folder"):
        write_report(model, data, tmp_path)
    assert list(tmp_path.iterdir()) == []


# Pictures ---------------------------------------------------------------------------------------


def decoded(uri):
    """Pixels (H, W, C) of a PNG with rows filtered by `up`."""
    file = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    chunks, place = {}, 8
    while place < len(file):
        (length,) = struct.unpack(">I", file[place : place + 4])
        kind, content = file[place + 4 : place + 8], file[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", file[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + content)
        chunks[kind], place = content, place + 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    channels = {0: 1, 2: 3}[colour]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert depth == 8
    assert (rows[:, 0] == 2).all()
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    pixels = np.broadcast_to(pixels, (5, 7, 3)) if channels == 1 else pixels
    np.testing.assert_array_equal(decoded(png(pixels)), pixels[..., :channels])


def test_left_is_left_front_is_right_and_up_is_up():
    volume = np.zeros((8, 10, 6))
    volume[0, :, :] = 1  # the left side
    where = window(None, (1, 1, 1), volume.shape, 10)
    strip = grey(volume, where, (0, 1))[..., 0] > 127
    sagittal, coronal, axial = strip[:, 2:12], strip[:, 16:24], strip[:, 28:36]
    assert not sagittal.any()
    assert coronal[2:8, 0].all() and not coronal[:, 1:].any()
    assert axial[:, 0].all() and not axial[:, 1:].any()
    volume[:] = 0
    volume[:, -1, :] = 1  # the front
    strip = grey(volume, where, (0, 1))[..., 0] > 127
    assert strip[2:8, 11].all() and not strip[:, 2:11].any()
    assert strip[0, 28:36].all() and not strip[1:, 28:36].any()
    volume[:] = 0
    volume[:, :, -1] = 1  # the top
    strip = grey(volume, where, (0, 1))[..., 0] > 127
    assert strip[2, 2:12].all() and strip[2, 16:24].all() and not strip[3:, :26].any()


def test_slices_are_in_millimetres():
    volume = np.zeros((8, 10, 6))
    where = window(None, (1, 1, 2), volume.shape, 24)  # 8 x 10 x 12 mm
    assert grey(volume, where, (0, 1)).shape == (24, (20 + 4) + (16 + 4) + (16 + 4), 3)


def test_slices_run_through_the_middle_of_the_mask():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1:4, 2:5, 5:8] = True
    assert window(mask, (1, 1, 1), mask.shape, 9).centre == (2, 3, 6)


def test_the_outline_is_the_edge_of_the_mask_alone():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[3:9, 3:9, 3:9] = True
    picture = grey(np.zeros(mask.shape), window(mask, (1, 1, 1), mask.shape, 12), (0, 1), mask)
    lit = (picture > 0).any(-1)[:, 2:14]
    assert lit.sum() == 6 * 6 - 4 * 4
    assert lit[3, 3] and not lit[5, 5]


def test_residuals_are_warm_above_zero_and_cold_below():
    more, less, none = coloured(np.array([0.4, -0.4, 0.0])).astype(int)
    assert more[0] > more[2]
    assert less[2] > less[0]
    assert none.tolist() == [0, 0, 0]
    volume = np.full((4, 4, 4), 2.0)
    full = signed(volume, window(None, (1, 1, 1), volume.shape, 4), 2.0)
    np.testing.assert_array_equal(full[0, 2], coloured(np.array(1.0)))


# Markup and charts ------------------------------------------------------------------------------


def test_markup_escapes_all_but_markup():
    made = el("p", "<b>", Html("<i>"), [1, None, "&"], title='"', class_="x", hidden=None)
    assert made == '<p title="&quot;" class="x">&lt;b&gt;<i>1&amp;</p>'


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.4, "0.400"),
        (-1.25678, "\u22121.26"),
        (12345.6, "12\u202f346"),
        (595.0, "595"),
        (0.00012345, "1.23e\u221204"),
        (0.0, "0"),
        (float("nan"), "\u2013"),
        (595.4, "595"),
    ],
)
def test_numbers_are_told_to_three_digits(value, told):
    assert number(value) == told


@pytest.mark.parametrize("ends", [(0, 1), (-9500, -5400), (0.00012, 0.00019), (3, 3), (1, 40)])
def test_ticks_are_round_and_within(ends):
    found = ticks(*ends)
    assert 1 <= len(found) <= 6
    assert all(ends[0] - 1e-9 <= tick <= ends[1] + 1e-9 for tick in found)


def test_a_line_goes_through_its_points():
    chart = lines({"a": ([1, 2, 3], [0.0, 10.0, 5.0])}, across="x", up="y", label="l")
    points = re.search(r'points="([^"]*)"', chart).group(1).split()
    x, y = np.array([point.split(",") for point in points], dtype=float).T
    np.testing.assert_allclose(np.diff(x), [(x[2] - x[0]) / 2] * 2, atol=0.11)
    assert (y[0] - y[2]) / (y[0] - y[1]) == pytest.approx(0.5, abs=0.01)
    assert y[1] < y[2] < y[0]


def test_a_line_begins_where_it_comes_into_the_frame_for_good():
    ys = [-900.0, -20.0, -400.0, -20.0, -15.0, -10.0]
    chart = lines({"a": (range(1, 7), ys)}, across="x", up="y", label="l", within=(-25.0, -10.0))
    points = re.search(r'points="([^"]*)"', chart).group(1).split()
    x, y = np.array([point.split(",") for point in points], dtype=float).T
    assert len(x) == 4  # the edge, and epochs 4, 5, 6
    step = x[3] - x[2]
    assert x[1] - x[0] == pytest.approx(step * 5 / 380, abs=0.2)
    assert (y[0] - y[1]) / (y[1] - y[2]) == pytest.approx(1, abs=0.02)
    assert 0 < y.min() < y.max() < 220 - 38
    assert y.max() - y.min() > 0.8 * (220 - 12 - 38)


def test_first_epochs_do_not_squash_the_later_ones_and_the_page_says_where_they_are(data, tmp_path):
    model = vae().fit(data)
    bounds = [-90_000.0, -20_000.0, *np.linspace(-5_000.0, -4_000.0, 10)]
    model.history_ = [
        {"epoch": i, "train/elbo": v, "train/rec_loss": -v - 3.0, "train/kl_loss": 3.0}
        for i, v in enumerate(bounds)
    ]
    page = Page(write_report(model, data, tmp_path / "flat.html"))
    told = "Values up to epoch 2 lie outside the frame, the first of them"
    assert page.text.count(told) == 3  # bound, bound per voxel, fit
    assert f"{told} {number(-90_000.0, 4)}".replace("\u202f", " ") in page.text


def places(chart, tag, kind):
    """The attributes of the elements of a class, as numbers where they are."""
    found = re.findall(rf'<{tag} ([^>]*class="{kind}"[^>]*)>', chart)
    pairs = [dict(re.findall(r'([\w-]+)="([^"]*)"', text)) for text in found]
    return [{k: float(v) for k, v in one.items() if re.fullmatch(r"-?[\d.]+", v)} for one in pairs]


def test_a_box_has_the_quartiles_and_the_median():
    values = np.random.default_rng(0).normal(size=21)
    chart = boxes({"a": values}, up="z0", label="l", ids={"a": [f"s{i}" for i in range(21)]})
    dots = np.array([dot["cy"] for dot in places(chart, "circle", "dot c0 soft")])
    slope, start = np.polyfit(values, dots, 1)  # from values to places
    low, median, high = np.percentile(values, [25, 50, 75]) * slope + start
    (box,), (line,) = places(chart, "rect", "box"), places(chart, "line", "median")
    assert box["y"] == pytest.approx(high, abs=0.11)
    assert box["y"] + box["height"] == pytest.approx(low, abs=0.21)
    assert line["y1"] == line["y2"] == pytest.approx(median, abs=0.11)


def test_the_line_among_dots_is_the_regression():
    x = np.arange(12.0)
    y = x * 2 + np.random.default_rng(0).normal(size=12) * 5
    chart = scatter(x, y, across="x", up="y", label="l", ids=[str(i) for i in range(12)])
    dots = places(chart, "circle", "dot c0 soft")
    fitted = stats.linregress([dot["cx"] for dot in dots], [dot["cy"] for dot in dots])
    points = re.search(r'points="([^"]*)"', chart).group(1).split()
    for point in points:
        left, top = map(float, point.split(","))
        assert top == pytest.approx(fitted.intercept + fitted.slope * left, abs=0.3)


def test_scores_are_drawn_on_one_scale_and_those_below_0_at_0():
    chart = compared([("a", 0.5, 0.25, 0.0), ("b", -3.0, 1.0, 0.5)], label="l")
    models = [dot["cx"] for dot in places(chart, "circle", "dot c0")]
    others = [dot["cx"] for dot in places(chart, "circle", "dot c2 hollow")]
    zero, one = models[1], others[1]
    assert (models[0] - zero) / (one - zero) == pytest.approx(0.5, abs=0.01)
    assert (others[0] - zero) / (one - zero) == pytest.approx(0.25, abs=0.01)
    chance = [line["x1"] for line in places(chart, "line", "chance")]
    np.testing.assert_allclose(chance, [zero, (zero + one) / 2], atol=0.11)
