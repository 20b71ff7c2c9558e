"""Ways through the latents: the steps asked for, decoded by the model, as images on the prepared grid."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nidl_core.errors import DataError, InvalidParameter, ShapeError
from nidl_neuro.conditional import Conditional, along, draws
from nidl_neuro.decoding import counted, posterior
from nidl_neuro.traversal import background, decode, traverse, write_traversal, write_volumes

sys.path.insert(0, str(Path(__file__).parent))
from little import cohort, fitted

N = 12


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    home = tmp_path_factory.mktemp("traversal")
    model, data = fitted(cohort(home / "cohort", N), home / "cache")
    return model, data, posterior(model, data)[0]


def test_one_dimension_goes_from_minus_to_plus_three_sd_around_the_mean(little):
    model, _, z = little
    way = traverse(model, z, 1)
    assert way.steps == (-3, -2, -1, 0, 1, 2, 3)
    expected = np.repeat(z.mean(axis=0)[None], 7, axis=0)
    expected[:, 1] += np.arange(-3, 4) * z.std(axis=0, ddof=1)[1]
    np.testing.assert_allclose(way.latents, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(way.volumes, model.inverse_transform(way.latents))
    assert way.volumes.shape == (7, 1, 16, 16, 16)


def test_it_may_start_from_a_scan(little):
    model, data, z = little
    way = traverse(model, z, 0, around=z[4], reach=1.5, steps=3)
    np.testing.assert_allclose(way.latents[1], z[4], rtol=1e-6)
    np.testing.assert_allclose(
        way.latents[2] - way.latents[0], [3 * z[:, 0].std(ddof=1), 0, 0], rtol=1e-4
    )
    same = np.asarray(model.reconstruct(data))[4]
    np.testing.assert_allclose(way.volumes[1], same, rtol=1e-4, atol=1e-4)


def test_without_a_cohort_it_is_the_priors(little):
    way = traverse(little[0], dimension=2, reach=2, steps=5)
    np.testing.assert_allclose(way.latents, np.outer([-2, -1, 0, 1, 2], [0, 0, 1]))


def test_voxels_outside_the_mask_have_the_background(little):
    model, data, z = little
    dark = background(data)
    darks = [(r.background - r.shift) / r.scale for r in map(data.record, range(N))]
    assert dark == pytest.approx(np.median(darks))
    way = traverse(model, z, 0, outside=dark)
    mask = counted(model)
    assert not mask.all()
    assert (way.volumes[:, :, ~mask] == np.float32(dark)).all()
    np.testing.assert_array_equal(
        way.volumes[:, :, mask], traverse(model, z, 0).volumes[:, :, mask]
    )


def test_a_covariate_of_the_scans_is_followed(little):
    model, data, z = little
    given, way = along(model, data, "age", steps=3)
    ages = data.covariates["age"]
    np.testing.assert_allclose(way.steps, [ages.min(), (ages.min() + ages.max()) / 2, ages.max()])
    line = np.polynomial.polynomial.polyfit(ages, z, 1)  # (2, L)
    expected = line[0] + np.outer(way.steps, line[1])
    np.testing.assert_allclose(way.latents, expected, rtol=1e-4, atol=1e-5)
    assert (way.volumes[:, :, ~counted(model)] == np.float32(background(data))).all()
    _, women_and_men = along(model, data, "sex", at=["M", "F"])
    male = (data.covariates["sex"] == "M").to_numpy()
    np.testing.assert_allclose(women_and_men.latents[0], z[male].mean(axis=0), rtol=1e-4)
    with pytest.raises(DataError, match=r"no covariate 'Age'. They have: participant_id, age, sex"):
        along(model, data, "Age")
    drawn = draws(model, data, "age", 50.0, n=4, seed=2)
    np.testing.assert_allclose(drawn.latents, given.draw(50.0, 4, seed=2), rtol=1e-5, atol=1e-6)
    assert drawn.name == "age 50.0, draw" and drawn.steps == (1, 2, 3, 4)


def test_the_mean_latents_of_an_age_are_decoded(little):
    model, data, z = little
    given = Conditional("age").fit(z, data.covariates["age"])
    ages = given.even(4)
    way = decode(model, given.mean(ages), "age", ages)
    np.testing.assert_allclose(
        way.volumes, model.inverse_transform(given.mean(ages).astype(np.float32))
    )
    assert way.steps == tuple(ages)
    assert np.abs(way.volumes[-1] - way.volumes[0]).max() > 0.01


def test_the_image_has_a_volume_a_step_on_the_prepared_grid(little, tmp_path):
    model, data, z = little
    way = traverse(model, z, 1, steps=5)
    affine = data.record(0).affine
    image = nibabel.load(write_traversal(tmp_path / "z1.nii.gz", way, affine))
    assert image.shape == (16, 16, 16, 5)
    np.testing.assert_allclose(image.affine, affine)
    for step in range(5):
        got = image.get_fdata(dtype=np.float32)[..., step]
        np.testing.assert_array_equal(got, way.volumes[step, 0])
    assert image.header.get_xyzt_units()[0] == "mm"
    told = json.loads((tmp_path / "z1.json").read_text())
    assert told["Steps"] == [-3, -1.5, 0, 1.5, 3] and told["Units"] == "sd"
    np.testing.assert_array_equal(np.float32(told["Latents"]), way.latents)
    with pytest.raises(DataError, match=r"z1.nii.gz and 1 more of 2 files are there already"):
        write_traversal(tmp_path / "z1.nii.gz", way, affine)
    write_traversal(tmp_path / "z1.nii.gz", way, affine, overwrite=True)


def test_samples_are_written_in_the_same_way(little, tmp_path):
    model, data, _ = little
    drawn = model.sample(3, seed=0)
    path = write_volumes(tmp_path / "samples.nii", drawn, data.record(0).affine)
    np.testing.assert_array_equal(nibabel.load(path).get_fdata()[..., 1], drawn[1, 0])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["samples.nii"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"dimension": 3}, InvalidParameter, "dimension must be from 0 to 2, got dimension=3"),
        ({"steps": 4}, InvalidParameter, "steps must be an odd number"),
        ({"reach": 0}, InvalidParameter, "reach must be"),
        ({"around": [0, 0]}, ShapeError, r"around must have the shape \(3,\), got \(2,\)"),
        ({"latents": np.zeros((4, 2))}, ShapeError, r"the shape \(N, 3\), got \(4, 2\)"),
    ],
)
def test_what_cannot_be_traversed_is_refused(little, arguments, error, text):
    with pytest.raises(error, match=text):
        traverse(little[0], **arguments)


def test_what_cannot_be_written_is_refused(little, tmp_path):
    model, data, z = little
    affine = data.record(0).affine
    with pytest.raises(InvalidParameter, match=r"path must be the path of a .nii.gz or .nii file"):
        write_traversal(tmp_path / "z.npy", traverse(model, z, 0), affine)
    with pytest.raises(
        ShapeError, match=r"volumes have the shape \(K, 1, X, Y, Z\), got \(16, 16\)"
    ):
        write_volumes(tmp_path / "z.nii", np.zeros((16, 16)), affine)
    with pytest.raises(ShapeError, match="2 latents and 3 steps"):
        decode(model, z[:2], "age", [1, 2, 3])
