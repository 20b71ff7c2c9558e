"""Deviation: distances as scipy gives them, p-values that are ranks, lesions found, files that come back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.spatial.distance import mahalanobis as distance

from nidl_core.errors import DataError, InvalidParameter, NidlError
from nidl_neuro import deviation as module
from nidl_neuro import scans
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.decoding import counted, decoded, posterior
from nidl_neuro.deviation import SCORES, Deviation, conformal_p, mahalanobis
from nidl_neuro.maps import maps
from nidl_neuro.outputs import read_table, write_table

sys.path.insert(0, str(Path(__file__).parent))
from little import PREPARATION, fitted, vae, with_blob

TRAINED, CONTROLS = 30, 24


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("deviation")


@pytest.fixture(scope="module")
def people():
    return [scan.image() for scan in synthetic_cohort(TRAINED + CONTROLS + 8, size=16)]


@pytest.fixture(scope="module")
def little(home, people):
    model, data = fitted(people[:TRAINED], home / "cache")
    controls = scans(
        named(people[TRAINED : TRAINED + CONTROLS], home), PREPARATION, cache=home / "cache"
    )
    return model, data, controls


@pytest.fixture(scope="module")
def new(home, people):
    """8 scans that neither model nor calibration has seen."""
    return scans(people[TRAINED + CONTROLS :], PREPARATION, cache=home / "cache")


def named(images, folder):
    """The images as files of participants sub-000, sub-001, ..."""
    paths = []
    for i, image in enumerate(images):
        paths.append(folder / f"sub-{i:03}_T1w.nii.gz")
        image.to_filename(paths[-1])
    return paths


def ledoit_wolf(z):
    """Shrunk covariance, written out from Ledoit & Wolf (2004), section 3.2."""
    n, p = z.shape
    z = z - z.mean(axis=0)
    sample = z.T @ z / n
    mu = np.trace(sample) / p
    d2 = ((sample - mu * np.eye(p)) ** 2).sum() / p
    b2 = sum(((np.outer(row, row) - sample) ** 2).sum() for row in z) / p / n**2
    share = min(b2, d2) / d2
    return share * mu * np.eye(p) + (1 - share) * sample


def test_mahalanobis_is_scipys():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, 5))
    z, mean = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=5)
    covariance = mixing @ mixing.T
    expected = [distance(row, mean, np.linalg.inv(covariance)) for row in z]
    np.testing.assert_allclose(mahalanobis(z, mean, covariance), expected, rtol=1e-6)


def test_conformal_p_counts_controls_at_or_above():
    controls = [3.0, 1.0, 2.0, 2.0]
    got = conformal_p([0.0, 1.0, 2.0, 2.5, 3.0, 9.0], controls)
    np.testing.assert_allclose(got, np.array([5, 5, 4, 2, 2, 1]) / 5)


def test_conformal_p_is_exact_for_exchangeable_scores():
    scores = np.random.default_rng(0).standard_cauchy(20)
    # Each of 20 in turn is the new one: then p takes each of 1/20, ..., 20/20 once.
    p = [conformal_p([scores[i]], np.delete(scores, i))[0] for i in range(20)]
    np.testing.assert_allclose(np.sort(p), np.arange(1, 21) / 20)
    tied = np.round(scores)
    p = np.array([conformal_p([tied[i]], np.delete(tied, i))[0] for i in range(20)])
    for level in np.arange(1, 21) / 20:
        assert (p <= level + 1e-12).mean() <= level + 1e-12


def test_the_latent_distance_is_from_the_references_mean_by_its_shrunk_covariance(little, new):
    model, data, controls = little
    scored = Deviation(model).fit(controls, reference=data).score(new)
    z = posterior(model, data)[0].astype(np.float64)
    covariance = ledoit_wolf(z)
    expected = [
        distance(row, z.mean(axis=0), np.linalg.inv(covariance))
        for row in posterior(model, new)[0].astype(np.float64)
    ]
    np.testing.assert_allclose(scored["mahalanobis"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        scored["mahalanobis_p_chi2"], 1 - stats.chi2(3).cdf(np.square(expected)), atol=1e-4
    )


def test_voxel_scores_are_those_of_the_z_maps(little, new):
    model, data, controls = little
    measure = Deviation(model, quantile=0.95).fit(controls, reference=data)
    mask = counted(model)
    of_reference = [
        np.quantile(np.abs(row), 0.95) for part in decoded(model, data) for row in part.z
    ]
    assert measure.threshold_ == pytest.approx(np.median(of_reference), rel=1e-6)
    scored = measure.score(new)
    for row, images in maps(model, new, kinds=("zmap",)):
        z = np.abs(images["zmap"].get_fdata())
        got = scored.iloc[row]
        assert got["z_mean_square"] == pytest.approx((z[mask] ** 2).mean(), rel=1e-4)
        assert got["z_quantile"] == pytest.approx(np.quantile(z[mask], 0.95), rel=1e-4)
        beyond = z > measure.threshold_
        assert got["z_extent"] == pytest.approx(beyond[mask].mean(), abs=2 / mask.sum())
        labels, count = ndimage.label(beyond)
        sizes = ndimage.sum(beyond, labels, range(1, count + 1))
        voxel_ml = float(np.prod(images["zmap"].header.get_zooms())) / 1000
        assert got["z_cluster_ml"] == pytest.approx(max(sizes) * voxel_ml, abs=2 * voxel_ml)


def test_p_values_are_ranks_among_the_controls(little, new):
    model, data, controls = little
    measure = Deviation(model).fit(controls, reference=data)
    assert len(measure.calibration_) == CONTROLS
    scored = measure.score(new)
    for name in SCORES:
        usual, own = measure.calibration_[name].to_numpy(), scored[name].to_numpy()
        rank = (usual[None] >= own[:, None]).sum(axis=1)
        np.testing.assert_allclose(scored[f"{name}_p"], (1 + rank) / (CONTROLS + 1))


def test_scans_that_the_calibration_has_seen_have_no_p_values(little, new, people, home, tmp_path):
    model, data, controls = little
    measure = Deviation(model).fit(controls, reference=data)
    text = r"24 of 24 scans are the reference's or the controls' own \(sub-000, sub-001, sub-002, \.\.\.\)\. They"
    with pytest.warns(UserWarning, match=text):
        scored = measure.score(controls)
    np.testing.assert_allclose(scored[list(SCORES)], measure.calibration_, rtol=1e-5)
    columns = [*(f"{name}_p" for name in SCORES), "mahalanobis_p_chi2"]
    assert scored[columns].isna().all(axis=None)
    images = [*people[TRAINED + CONTROLS :], people[3], nibabel.load(home / "sub-005_T1w.nii.gz")]
    mixed = scans(images, PREPARATION, cache=tmp_path / "cache")  # other names, another store
    loaded = Deviation.load(measure.save(tmp_path / "deviation.npz"), model)
    for one in (measure, loaded):
        with pytest.warns(
            UserWarning, match=r"2 of 10 scans .* own \(image-8, image-9\)\. They have no"
        ):
            scored = one.score(mixed)
        assert scored[columns].isna().all(axis=1).tolist() == [False] * 8 + [True] * 2
        np.testing.assert_allclose(scored[columns][:8], measure.score(new)[columns], rtol=1e-5)
    written = (tmp_path / "deviation.npz").read_bytes()
    assert b"sub-0" not in written and b"image-" not in written


def test_a_control_of_another_store_that_is_in_the_reference_is_refused(little, people, tmp_path):
    model, data, _ = little
    again = scans(people[TRAINED - 1 : TRAINED + 2], PREPARATION, cache=tmp_path)
    with pytest.raises(DataError, match="1 of 3 controls are also in the reference: image-0"):
        Deviation(model).fit(again, reference=data)


@pytest.mark.parametrize("per_voxel", [False, True])
def test_a_lesion_is_told_from_controls(little, people, tmp_path, per_voxel):
    model, data, controls = little
    new = people[TRAINED + CONTROLS :]
    patients = [with_blob(image, centre=(10, 9, 8), more=4.0)[0] for image in new]
    measure = Deviation(model, per_voxel=per_voxel).fit(controls, reference=data)
    ill = measure.score(scans(patients, PREPARATION, cache=tmp_path))
    well = measure.score(scans(new, PREPARATION, cache=tmp_path))
    for name in ("z_mean_square", "z_quantile", "z_extent", "z_cluster_ml"):
        assert (ill[name] > well[name]).mean() >= 0.75, name  # scans are z-scored with their lesion
    assert (ill["z_cluster_ml_p"] <= 3 / (CONTROLS + 1)).mean() >= 0.75
    assert well["z_cluster_ml_p"].median() > 0.2


def test_norms_of_each_voxel_are_those_of_the_reference(little, new):
    model, data, controls = little
    measure = Deviation(model, per_voxel=True).fit(controls, reference=data)
    z = np.concatenate([part.z for part in decoded(model, data)]).astype(np.float64)
    spread = z.std(axis=0, ddof=1)
    normed = []
    for i in range(len(z)):  # each as if it were new
        others = np.delete(z, i, axis=0)
        sd = np.maximum(others.std(axis=0, ddof=1), 0.1 * spread)
        normed.append(np.quantile(np.abs(z[i] - others.mean(axis=0)) / sd, 0.99))
    assert measure.threshold_ == pytest.approx(np.median(normed), rel=2e-2)
    other = np.concatenate([part.z for part in decoded(model, new)])
    expected = (((other - z.mean(axis=0)) / np.maximum(spread, 0.1 * np.median(spread))) ** 2).mean(
        1
    )
    np.testing.assert_allclose(measure.score(new)["z_mean_square"], expected, rtol=1e-3)


def test_without_a_reference_the_controls_participants_are_halved(home, people, little):
    model = little[0]
    folder = home / "sessions"
    folder.mkdir()
    paths = [folder / f"sub-{i // 2:02}_ses-{i % 2}_T1w.nii.gz" for i in range(12)]
    for path, image in zip(paths, people[TRAINED:], strict=False):
        image.to_filename(path)
    data = scans(paths, PREPARATION, cache=home / "cache")
    halves = [module._halves(data, seed) for seed in range(4)]
    for first, second in halves:
        subjects = [{data.cohort[row].entities["sub"] for row in half} for half in (first, second)]
        assert len(subjects[0]) == len(subjects[1]) == 3
        assert not subjects[0] & subjects[1]
        assert sorted([*first, *second]) == list(range(12))
    assert len({tuple(first) for first, _ in halves}) > 1
    measure = Deviation(model, random_state=1).fit(data)
    first, second = halves[1]
    with pytest.warns(UserWarning, match="12 of 12 scans are the reference's or the controls' own"):
        scored = measure.score(data)
    np.testing.assert_allclose(
        measure.calibration_["mahalanobis"], scored["mahalanobis"][second], rtol=1e-5
    )
    z = posterior(model, data)[0][first].astype(np.float64)
    np.testing.assert_allclose(measure.mean_, z.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert scored["session_id"].tolist() == ["ses-0", "ses-1"] * 6


@pytest.mark.parametrize("per_voxel", [False, True])
def test_a_calibration_comes_back_from_its_file(little, new, tmp_path, per_voxel):
    model, data, controls = little
    measure = Deviation(model, quantile=0.9, per_voxel=per_voxel).fit(controls, reference=data)
    path = measure.save(tmp_path / "deviation.npz")
    again = Deviation.load(path, model)
    assert again.score(new).equals(measure.score(new))
    assert again.described() == measure.described()
    with np.load(path, allow_pickle=False) as file:  # nothing in it needs pickle
        assert all(array.dtype != object for array in file.values())
    with pytest.raises(DataError, match=r"deviation.npz is there already"):
        measure.save(path)
    measure.save(path, overwrite=True)


def test_a_calibration_of_another_model_is_refused(little, tmp_path):
    model, data, controls = little
    path = Deviation(model).fit(controls, reference=data).save(tmp_path / "deviation.npz")
    other = vae(max_epochs=1).fit(data)
    with pytest.raises(DataError, match="was calibrated for another model, or for this one before"):
        Deviation.load(path, other)


def rewritten(path, change):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    change(header, arrays)
    arrays["header"] = np.array(json.dumps(header))
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-300]), "is not a calibration"),
        (lambda path: path.write_bytes(b""), "is not a calibration"),
        (lambda path: np.savez(path, x=np.ones(2)), "is not a calibration"),
        (lambda path: np.savez(path, header=np.array([{"format": 1}])), "is not a calibration"),
        (
            lambda path: rewritten(path, lambda header, _: header.update(format=9)),
            "was written by a later nidl-neuro",
        ),
        (
            lambda path: rewritten(path, lambda _, arrays: arrays.pop("covariance")),
            "is not a calibration",
        ),
        (
            lambda path: rewritten(path, lambda header, _: header.pop("norms")),
            "is not a calibration",
        ),
    ],
)
def test_a_file_of_no_use_is_told(little, tmp_path, damage, text):
    model, data, controls = little
    path = Deviation(model).fit(controls, reference=data).save(tmp_path / "deviation.npz")
    damage(path)
    with pytest.raises(DataError, match=text):
        Deviation.load(path, model)


def test_scores_are_written_with_what_they_mean(little, new, tmp_path):
    model, data, controls = little
    measure = Deviation(model).fit(controls, reference=data)
    scored = measure.score(new)
    back = read_table(write_table(tmp_path / "scores.tsv", scored, measure.described()))
    np.testing.assert_array_equal(back[list(SCORES)], scored[list(SCORES)])
    meant = json.loads((tmp_path / "scores.json").read_text())
    assert list(meant) == list(scored.columns)
    assert meant["z_extent_p"]["Description"] == "Conformal p-value among 24 controls of z_extent"


def test_what_cannot_be_calibrated_is_refused(little, people, home, tmp_path):
    model, data, controls = little
    with pytest.raises(NidlError, match="not calibrated. Call fit"):
        Deviation(model).score(controls)
    few = scans(named(people[:3], tmp_path), PREPARATION, cache=home / "cache")
    with pytest.raises(DataError, match="of 3 participants: too few to be halved"):
        Deviation(model).fit(few)
    again = scans(people[TRAINED - 1 : TRAINED + 2], PREPARATION, cache=home / "cache")
    with pytest.raises(DataError, match=r"1 of 3 controls are also in the reference: image-0"):
        Deviation(model).fit(again, reference=data)
    one = scans(people[:1], PREPARATION, cache=home / "cache")
    with pytest.raises(DataError, match="the reference is one scan"):
        Deviation(model).fit(controls, reference=one)
    with pytest.raises(InvalidParameter, match="quantile must be"):
        Deviation(model, quantile=1.0)
    with pytest.raises(InvalidParameter, match="per_voxel must be True or False"):
        Deviation(model, per_voxel="yes")


def test_latents_that_do_not_vary_are_told_and_voxels_still_count(
    little, new, tmp_path, monkeypatch
):
    model, data, controls = little

    def collapsed(*arguments, **options):
        for part in decoded(*arguments, **options):
            yield part._replace(latents=0 * part.latents)

    monkeypatch.setattr(module, "decoded", collapsed)
    with pytest.warns(
        UserWarning, match="30 reference scans hardly vary: the posterior has collapsed"
    ):
        measure = Deviation(model).fit(controls, reference=data)
    scored = measure.score(new)
    path = measure.save(tmp_path / "deviation.npz")
    assert Deviation.load(path, model).score(new).equals(scored)
    for column in ("mahalanobis", "mahalanobis_p", "mahalanobis_p_chi2"):
        assert scored[column].isna().all()
    assert (scored["z_extent_p"] > 0).all()


def test_a_reference_too_small_for_its_latents_is_refused(little, new):
    model, _, controls = little
    told = "the latents of the 2 reference scans do not vary in all of their"
    with pytest.raises(DataError, match=told):
        Deviation(model).fit(controls, new.take([0, 1]))
