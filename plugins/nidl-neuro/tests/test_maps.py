"""Maps: right values, in the right places of each scan's own grid, under the right names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from scipy import ndimage

from nidl_core.errors import DataError, InvalidParameter, ShapeError
from nidl_neuro import decoding, scans
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.decoding import counted
from nidl_neuro.maps import map_names, maps, write_maps
from nidl_neuro.norms import VoxelNorms
from nidl_neuro.preparation import Preparation, restore

sys.path.insert(0, str(Path(__file__).parent))
from little import cohort, fitted, with_blob

N = 6


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


@pytest.fixture(scope="module")
def little(home):
    return fitted(cohort(home / "cohort", N), home / "cache")


def turned(image, codes):
    """The same scan with its axes along other directions."""
    start = io_orientation(image.affine)
    to = ornt_transform(start, axcodes2ornt(codes))
    voxels = apply_orientation(image.get_fdata(), to)
    affine = image.affine @ inv_ornt_aff(to, image.shape)
    return nibabel.Nifti1Image(voxels.astype(np.float32), affine)


def test_reconstruction_and_residual_add_up_to_the_scan(little):
    model, data = little
    mask = counted(model)
    whole = np.asarray(model.reconstruct(data))[:, 0]
    for row, images in maps(model, data, kinds=("reconstruction", "residual")):
        scan = nibabel.load(data.cohort[row].path)
        voxels = scan.get_fdata()
        mean, left = (images[kind].get_fdata() for kind in ("reconstruction", "residual"))
        scale = np.abs(voxels).max()
        np.testing.assert_allclose((mean + left)[mask], voxels[mask], atol=1e-6 * scale)
        brain = voxels[data.store.mask(row)].astype(np.float64)
        expected = whole[row] * brain.std() + brain.mean()
        np.testing.assert_allclose(mean[mask], expected[mask], atol=1e-5 * scale)
        outside = np.unique(mean[~mask])
        np.testing.assert_array_equal(outside, np.float32(data.record(row).background))
        assert not left[~mask].any()
        for image in images.values():
            np.testing.assert_array_equal(image.affine, scan.affine)
            assert image.header.get_xyzt_units() == scan.header.get_xyzt_units()
            assert image.get_data_dtype() == np.float32


def test_a_background_that_is_not_zero_comes_back_outside_the_mask(tmp_path):
    images = []
    for scan in synthetic_cohort(3, size=16):
        voxels = 100 * scan.array + 40
        images.append(nibabel.Nifti1Image(voxels.astype(np.float32), scan.affine))
    mask = images[0].get_fdata() > np.percentile(images[0].get_fdata(), 60)
    how = {"mask": mask, "shape": 16}
    model, data = fitted(images, tmp_path, how, max_epochs=1)
    (_, made), *_ = maps(model, data, kinds=("reconstruction",))
    background = data.record(0).background
    assert background >= 40 and not mask.all()
    np.testing.assert_array_equal(
        np.unique(made["reconstruction"].get_fdata()[~mask]), np.float32(background)
    )


def test_z_is_the_residual_by_the_likelihoods_own_scale(little):
    model, data = little
    mask = counted(model)
    (part,) = decoding.decoded(model, data)
    for row, images in maps(model, data, kinds=("zmap",)):
        image = images["zmap"]
        expected = (part.x[row].astype(np.float64) - part.mean[row]) / part.sd[row]
        np.testing.assert_allclose(image.get_fdata()[mask], expected, rtol=1e-4, atol=1e-4)
        assert not image.get_fdata()[~mask].any()
        assert image.header.get_intent()[0] == "z score"
    assert part.sd.std() > 0.01  # a scale for each voxel


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
def test_a_lesion_is_found_where_it_lies_in_the_scans_own_grid(little, tmp_path, codes):
    model, _ = little
    source = synthetic_cohort(N + 1, size=16)[N].image()
    changed, ball = with_blob(source, centre=(10, 9, 8))
    changed = turned(changed, codes)
    there = turned(nibabel.Nifti1Image(ball.astype(np.float32), source.affine), codes)
    assert nibabel.aff2axcodes(changed.affine) == tuple(codes)
    data = scans([changed], model.data_spec_, cache=tmp_path)
    ((_, images),) = maps(model, data, kinds=("zmap",))
    z = images["zmap"]
    np.testing.assert_array_equal(z.affine, changed.affine)
    inside = there.get_fdata() > 0.5
    assert inside[np.unravel_index(np.argmax(z.get_fdata()), z.shape)]
    assert z.get_fdata()[inside].mean() > 5 * np.abs(z.get_fdata()[~inside]).mean()


def test_maps_of_resampled_oblique_scans_overlay_them(tmp_path):
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turn = np.array([[cosine, -sine, 0, 5], [sine, cosine, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    images = []
    for scan in synthetic_cohort(4, size=(24, 20, 24)):
        spacing = np.diag([-9.0, 8.0, 7.5, 1.0])
        images.append(nibabel.Nifti1Image(scan.array[:, :, ::2], turn @ spacing))
        images[-1].header.set_xyzt_units("mm")
    how = {"voxel_size": 9, "shape": (22, 20, 12)}
    model, data = fitted(images, tmp_path, how, max_epochs=1)
    mask = counted(model)
    parts = decoding.decoded(model, data)
    z, left = np.zeros((2, len(data), *mask.shape))
    for part in parts:
        z[part.row[:, None], mask] = part.z
        left[part.row[:, None], mask] = part.x - part.mean
    for row, made in maps(model, data):
        record = data.record(row)
        for kind, image in made.items():
            assert image.shape == images[row].shape, kind
            np.testing.assert_allclose(image.affine, images[row].affine, atol=1e-6)
        # Each own voxel has the value of the prepared grid at the same place in mm.
        own = np.indices(images[row].shape).reshape(3, -1)
        place = (
            np.linalg.inv(record.affine)
            @ images[row].affine
            @ np.r_[own, np.ones((1, own.shape[1]))]
        )
        inside = np.ones(own.shape[1], dtype=bool)  # neither cut off nor beyond the last centres
        for size, first in ((record.shape, 0), (record.whole_grid.shape, record.start)):
            at = place[:3] + np.reshape(first, (-1, 1))
            inside &= ((at > 0) & (at < np.reshape(size, (-1, 1)) - 1)).all(axis=0)
        inside &= (np.abs(place[:3] % 1 - 0.5) > 1e-6).all(axis=0)  # one voxel is the nearest
        assert inside.sum() > 1000
        for kind, values, order in (("residual", left * record.scale, 1), ("zmap", z, 0)):
            expected = ndimage.map_coordinates(values[row], place[:3, inside], order=order)
            got = made[kind].get_fdata().reshape(-1)[inside]
            np.testing.assert_allclose(got, expected, atol=1e-2 * record.scale if order else 1e-6)


def test_z_maps_of_resampled_scans_keep_the_spread_of_z():
    finer = nibabel.Nifti1Image(np.ones((40, 40, 40), np.float32), np.diag([1, 1, 1, 1.0]))
    finer.dataobj[0] = 2
    record = Preparation(voxel_size=2, mask="none").prepare(finer).record
    z = np.random.default_rng(0).normal(size=record.shape).astype(np.float32)
    image = restore(z, record, scanner_units=False, interpolation="nearest")
    assert image.shape == (40, 40, 40)
    assert np.std(image.dataobj) == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(image.dataobj) > 1.96) == pytest.approx(0.05, abs=0.01)
    assert np.std(restore(z, record, scanner_units=False).dataobj) < 0.6  # why it is the nearest


def test_files_are_named_and_placed_as_bids_derivatives(little, tmp_path):
    model, data = little
    paths = write_maps(model, data, tmp_path)
    assert list(paths) == ["reconstruction", "residual", "zmap"]
    first = tmp_path / "sub-0001" / "anat" / "sub-0001_desc-zmap_T1w.nii.gz"
    assert paths["zmap"][0] == first
    assert len([*tmp_path.rglob("*.nii.gz")]) == 3 * N
    for row, images in maps(model, data):
        for kind, image in images.items():
            saved = nibabel.load(paths[kind][row])
            np.testing.assert_array_equal(saved.get_fdata(), image.get_fdata())
            assert saved.header.get_sform(coded=True)[1] == image.header.get_sform(coded=True)[1]
    described = json.loads((tmp_path / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    table = pd.read_csv(tmp_path / "descriptions.tsv", sep="\t")
    assert table["desc_id"].tolist() == ["reconstruction", "residual", "zmap"]
    again = scans(tmp_path, pattern="*desc-reconstruction_T1w.nii.gz", cache=tmp_path / "cache")
    assert again.ids == data.ids


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sub-01_ses-1_T1w.nii.gz", "sub-01/ses-1/sub-01_ses-1_desc-zmap_T1w.nii.gz"),
        ("anat/sub-01_desc-preproc_T1w.nii", "sub-01/anat/sub-01_desc-zmap_T1w.nii.gz"),
        ("sub-01_run-2_acq-fast_T2w.nii.gz", "sub-01/sub-01_run-2_acq-fast_desc-zmap_T2w.nii.gz"),
        ("sub-01/brain.nii.gz", "sub-01/sub-01_desc-zmap.nii.gz"),
        ("brain 7.nii.gz", "brain-7_desc-zmap.nii.gz"),
        ("..brain.nii.gz", "-brain_desc-zmap.nii.gz"),
    ],
)
def test_names_follow_those_of_the_scans(tmp_path, source, expected):
    path = tmp_path / "in" / source
    path.parent.mkdir(parents=True)
    synthetic_cohort(1, size=16)[0].image().to_filename(path)
    data = scans([path], cache=tmp_path / "cache")
    assert map_names(data, ["zmap"])["zmap"] == [Path(expected)]


def test_volumes_of_one_file_have_names_of_their_own(tmp_path):
    voxels = np.stack([one.array for one in synthetic_cohort(3, size=16)], axis=-1)
    path = tmp_path / "sub-01_bold.nii.gz"
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    data = scans(path, cache=tmp_path / "cache")
    names = map_names(data, ["zmap"])["zmap"]
    assert names[2] == Path("sub-01_bold_volume-2_desc-zmap.nii.gz")
    assert len(set(names)) == 3


def test_equal_names_are_told_before_any_work(tmp_path):
    paths = [tmp_path / name for name in ("a b.nii.gz", "a-b.nii.gz")]
    for i, path in enumerate(paths):
        synthetic_cohort(2, size=16)[i].image().to_filename(path)
    data = scans(paths, cache=tmp_path / "cache")
    with pytest.raises(DataError, match=r"several scans would be called a-b_desc-zmap.nii.gz"):
        map_names(data, ["zmap"])


def test_nothing_is_replaced_unless_asked(little, tmp_path):
    model, data = little
    (path,) = write_maps(model, data, tmp_path, kinds=["zmap"])["zmap"][3:4]
    before = path.read_bytes()
    for other in tmp_path.rglob("*zmap*"):
        if other != path:
            other.unlink()
    with pytest.raises(DataError, match=r"sub-0004_desc-zmap_T1w.nii.gz is there already. Choose"):
        write_maps(model, data, tmp_path)
    assert path.read_bytes() == before
    assert [*tmp_path.rglob("*.nii.gz")] == [path]
    write_maps(model, data, tmp_path, overwrite=True)
    assert len([*tmp_path.rglob("*.nii.gz")]) == 3 * N
    assert not [*tmp_path.rglob(".*")]


def test_maps_are_written_while_others_are_still_to_be_read(little, tmp_path, monkeypatch):
    model, data = little
    monkeypatch.setattr(decoding, "_BYTES", 2 * 4 * counted(model).size)
    written, told = [], []

    class Spy(type(data.x)):
        def __getitem__(self, index):
            written.append(len([*tmp_path.rglob("*.nii.gz")]))
            return super().__getitem__(index)

    monkeypatch.setattr(data.x, "__class__", Spy)
    write_maps(model, data, tmp_path, kinds=["zmap"], progress=lambda *what: told.append(what))
    assert written == [0, 2, 4]
    assert told == [("mapping", done, N, 0) for done in range(1, N + 1)]


def test_an_interrupted_run_leaves_whole_files_alone(little, tmp_path, monkeypatch):
    model, data = little

    def stop(self, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nibabel.Nifti1Image, "to_filename", stop)
    with pytest.raises(KeyboardInterrupt):
        write_maps(model, data, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_norms_bring_z_maps_to_those_of_the_reference(little):
    model, data = little
    (part,) = decoding.decoded(model, data)
    norms = VoxelNorms.of([part.z])
    mask = counted(model)
    for row, images in maps(model, data, kinds=("zmap",), norms=norms):
        expected = (part.z[row] - part.z.mean(axis=0)) / norms.sd
        np.testing.assert_allclose(images["zmap"].get_fdata()[mask], expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ShapeError, match="the norms are of 2 voxels"):
        next(maps(model, data, norms=VoxelNorms(np.zeros(2), np.ones(2), 9)))


@pytest.mark.parametrize("kinds", [(), ("zmaps",), "zmap"])
def test_unknown_kinds_are_refused(little, tmp_path, kinds):
    with pytest.raises(InvalidParameter, match="some of reconstruction, residual, zmap"):
        write_maps(*little, tmp_path / "out", kinds=kinds)
    assert not (tmp_path / "out").exists()
