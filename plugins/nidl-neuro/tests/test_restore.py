"""Arrays put back onto the scan's own grid: voxels, place, header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from nilearn.datasets import load_mni152_template
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nidl_core.errors import ShapeError
from nidl_neuro.preparation import Preparation, restore
from nidl_neuro.record import Record

GRIDS = {  # codes, voxel size, degrees of turn
    "RAS": ("RAS", (2, 2, 2), 0),
    "LAS": ("LAS", (2, 2, 2), 0),
    "PSR": ("PSR", (2, 2, 2), 0),
    "oblique": ("LPI", (2, 2, 2), 18),
    "anisotropic": ("ARS", (1.5, 2, 4), 10),
}


def scan(name: str, *, smooth: bool = False) -> nibabel.Nifti1Image:
    """Part of the MNI brain, or a blob, on a grid of that kind, with a full header."""
    codes, size, degrees = GRIDS[name]
    affine = np.linalg.inv(inv_ornt_aff(axcodes2ornt(codes), (1, 1, 1))) @ np.diag([*size, 1.0])
    turn = Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True)
    affine[:3, :3] = turn.as_matrix() @ affine[:3, :3]
    shape = tuple(int(70 // n) for n in size)
    affine[:3, 3] = [20, -30, 15] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    place = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    if smooth:
        values = 1000 * np.exp(-((place.T - [23, -32, 14]) ** 2).sum(1) / 2 / 9**2)
    else:
        template = load_mni152_template(resolution=2)
        index = np.linalg.inv(template.affine)[:3] @ np.r_[place, np.ones((1, place.shape[1]))]
        values = ndimage.map_coordinates(template.get_fdata() * 3000, index, order=1).round()
    image = nibabel.Nifti1Image(values.reshape(shape).astype(np.float32), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 4)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"MPRAGE, scanner 3"
    image.header["cal_max"] = 2500
    return image


def centre_of_mass(image: Any) -> np.ndarray:
    data = image.get_fdata()
    return nibabel.affines.apply_affine(image.affine, ndimage.center_of_mass(data))


@pytest.mark.parametrize("shape", [None, (60, 61, 62)])
@pytest.mark.parametrize("name", GRIDS)
def test_what_was_turned_and_padded_comes_back_bit_for_bit(name: str, shape: Any) -> None:
    image = scan(name)
    prepared = Preparation(shape=shape, intensity="none").prepare(image)
    back = restore(prepared.array, prepared.record)
    np.testing.assert_array_equal(back.get_fdata(), image.get_fdata())
    np.testing.assert_array_equal(back.affine, image.affine)


@pytest.mark.parametrize("intensity", ["zscore", "percentiles"])
@pytest.mark.parametrize("name", GRIDS)
def test_the_normalisation_is_undone_up_to_rounding(name: str, intensity: str) -> None:
    image = scan(name)
    prepared = Preparation(shape=70, intensity=intensity).prepare(image)
    back = restore(prepared.array, prepared.record)
    np.testing.assert_allclose(back.get_fdata(), image.get_fdata(), atol=1e-6 * 3000)
    assert back.get_data_dtype() == np.float32


def test_what_the_crop_cut_off_is_background_and_the_rest_exact() -> None:
    image = scan("LAS")
    prepared = Preparation(shape=20, intensity="none").prepare(image)
    start = prepared.record.start
    flipped = image.get_fdata()[::-1]
    kept = np.zeros(flipped.shape, bool)
    kept[tuple(slice(s, s + 20) for s in start)] = True
    expected = np.where(kept, flipped, prepared.record.background)[::-1]
    np.testing.assert_array_equal(restore(prepared.array, prepared.record).get_fdata(), expected)
    ones = restore(np.ones((20, 20, 20)), prepared.record, scanner_units=False)
    np.testing.assert_array_equal(ones.get_fdata(), kept[::-1])


@pytest.mark.parametrize("size", [1.0, 3.0, (2.0, 3.0, 1.5)])
@pytest.mark.parametrize("name", GRIDS)
def test_what_was_resampled_overlays_the_scan(name: str, size: Any) -> None:
    image = scan(name, smooth=True)
    prepared = Preparation(voxel_size=size, shape=(72, 80, 76), mask="none").prepare(image)
    back = restore(prepared.array, prepared.record)
    difference = np.abs(back.get_fdata() - image.get_fdata())
    assert difference.max() < 0.07 * 1000  # of a blob of 21 mm FWHM, after a blur of up to 3 mm
    assert np.linalg.norm(centre_of_mass(back) - centre_of_mass(image)) < 0.1  # mm
    np.testing.assert_array_equal(back.affine, image.affine)


@pytest.mark.parametrize("size", [None, 3.0])
@pytest.mark.parametrize("name", GRIDS)
def test_the_header_survives_in_a_file(name: str, size: Any, tmp_path: Path) -> None:
    image = scan(name)
    image.set_sform(np.diag([1.01, 1.01, 1.01, 1]) @ image.affine, 4)  # unlike the qform
    prepared = Preparation(voxel_size=size, shape=40).prepare(image)
    for number, scanner_units in enumerate((True, False)):
        path = tmp_path / f"{number}.nii.gz"
        nibabel.save(restore(prepared.array, prepared.record, scanner_units=scanner_units), path)
        back = nibabel.load(path)
        for got, expected in zip(
            (*back.get_sform(coded=True), *back.get_qform(coded=True), back.affine),
            (*image.get_sform(coded=True), *image.get_qform(coded=True), image.affine),
            strict=True,
        ):
            np.testing.assert_array_equal(got, expected)
        assert back.shape == image.shape
        assert back.header.get_xyzt_units() == ("mm", "sec")
        assert back.header["descrip"] == b"MPRAGE, scanner 3"
        np.testing.assert_array_equal(back.header["pixdim"], image.header["pixdim"])
        assert back.header["cal_max"] == (2500 if scanner_units else 0)
        assert back.get_data_dtype() == np.float32


@pytest.mark.parametrize("codes", [(0, 1), (2, 0), (0, 0)])
def test_codes_of_zero_stay_zero(codes: tuple[int, int]) -> None:
    image = scan("LAS" if codes[1] else "RAS")
    if codes == (0, 0):  # nothing but a voxel size: nibabel puts the middle at the origin
        image = nibabel.Nifti1Image(image.get_fdata(), None, image.header)
        image.header["sform_code"] = image.header["qform_code"] = 0
        image = nibabel.Nifti1Image.from_bytes(image.to_bytes())
    image.header["sform_code"], image.header["qform_code"] = codes
    prepared = Preparation().prepare(image)
    back = nibabel.Nifti1Image.from_bytes(restore(prepared.array, prepared.record).to_bytes())
    assert (int(back.header["sform_code"]), int(back.header["qform_code"])) == codes
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-5)


@pytest.mark.parametrize("kind", ["big-endian", "nifti2", "pair", "mgh", "trailing axis"])
def test_other_files_come_back_as_nifti_with_their_place(kind: str, tmp_path: Path) -> None:
    image = scan("oblique")
    if kind == "big-endian":
        header = image.header.as_byteswapped(">")
        image = nibabel.Nifti1Image(image.get_fdata(), image.affine, header)
    elif kind == "nifti2":
        image = nibabel.Nifti2Image(image.get_fdata(), image.affine, image.header)
    elif kind == "pair":
        image = nibabel.Nifti1Pair(image.get_fdata(), image.affine, image.header)
    elif kind == "mgh":
        image = nibabel.MGHImage(np.asarray(image.dataobj), image.affine)
    else:
        image = nibabel.Nifti1Image(image.get_fdata()[..., None], image.affine, image.header)
    path = tmp_path / {"pair": "scan.img", "mgh": "scan.mgz"}.get(kind, "scan.nii.gz")
    nibabel.save(image, path)
    loaded = nibabel.load(path)
    prepared = Preparation(shape=50).prepare(loaded)
    back = nibabel.Nifti1Image.from_bytes(restore(prepared.array, prepared.record).to_bytes())
    assert back.shape == loaded.shape and prepared.array.shape == (1, 50, 50, 50)
    np.testing.assert_allclose(back.get_fdata(), loaded.get_fdata(), atol=1e-3)
    np.testing.assert_allclose(back.affine, loaded.affine, atol=1e-4)
    if kind != "mgh":
        assert back.header["descrip"] == b"MPRAGE, scanner 3"
        assert (back.header["sform_code"], back.header["qform_code"]) == (4, 1)
        np.testing.assert_allclose(back.get_qform(), image.affine, atol=1e-4)
        np.testing.assert_array_equal(back.header["cal_max"], 2500)


def test_scale_factors_of_the_scan_are_not_applied_to_what_comes_back() -> None:
    image = scan("LAS")
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.37, -50)  # as nibabel leaves it in an image built in memory
    prepared = Preparation().prepare(image)
    back = nibabel.Nifti1Image.from_bytes(restore(prepared.array, prepared.record).to_bytes())
    np.testing.assert_allclose(back.get_fdata(), image.get_fdata(), atol=1e-6 * 3000)


def test_maps_keep_their_values() -> None:
    prepared = Preparation(shape=50).prepare(scan("PSR"))
    back = restore(prepared.array, prepared.record, scanner_units=False).get_fdata()
    brain = scan("PSR").get_fdata() != 0
    assert back[brain].mean() == pytest.approx(0, abs=1e-5)
    assert back[brain].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [None, 3.0])
def test_masks_come_back_as_zeros_and_ones_by_the_nearest_voxel(size: Any) -> None:
    image = scan("LAS", smooth=True)
    brain = nibabel.Nifti1Image((image.get_fdata() > 300).astype(np.uint8), image.affine)
    prepared = Preparation(voxel_size=size, shape=60, mask=brain).prepare(image)
    back = restore(prepared.mask, prepared.record)
    assert back.get_data_dtype() == np.uint8 and set(np.unique(back.dataobj)) == {0, 1}
    overlap = 2 * (np.asarray(back.dataobj) * brain.get_fdata()).sum()
    dice = overlap / (back.get_fdata().sum() + brain.get_fdata().sum())
    assert dice == 1 if size is None else dice > 0.9


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_values_come_back_as_float32_or_wider(dtype: str) -> None:
    image = scan("LAS")
    prepared = Preparation(dtype=dtype).prepare(image)
    back = restore(prepared.array, prepared.record)
    assert back.get_data_dtype() == (np.float64 if dtype == "float64" else np.float32)
    tolerance = 1e-9 if dtype == "float64" else 3
    np.testing.assert_allclose(back.get_fdata(), image.get_fdata(), atol=tolerance)


def test_a_sheared_scan_comes_back_sheared_and_overlaid() -> None:
    image = scan("oblique", smooth=True)
    shear = np.eye(4)
    shear[0, 1] = 0.25
    image = nibabel.Nifti1Image(image.get_fdata(), image.affine @ shear)
    prepared = Preparation(voxel_size=2, mask="none").prepare(image)
    back = restore(prepared.array, prepared.record)
    np.testing.assert_array_equal(back.affine, image.affine)
    assert np.abs(back.get_fdata() - image.get_fdata()).max() < 0.06 * 1000
    assert np.linalg.norm(centre_of_mass(back) - centre_of_mass(image)) < 0.1


def test_a_record_that_went_through_json_restores_the_same_bits() -> None:
    prepared = Preparation(voxel_size=2.7, shape=(30, 31, 32)).prepare(scan("anisotropic"))
    record = Record.from_dict(json.loads(json.dumps(prepared.record.to_dict())))
    one, other = (restore(prepared.array, r).to_bytes() for r in (prepared.record, record))
    assert one == other


def test_an_array_of_another_grid_is_refused() -> None:
    record = Preparation(shape=20).prepare(scan("LAS"), "sub-01").record
    with pytest.raises(ShapeError) as error:
        restore(np.zeros((2, 1, 20, 20, 20)), record)
    assert str(error.value) == (
        "restore takes an array of shape (1, 20, 20, 20) for sub-01, got (2, 1, 20, 20, 20). "
        "Give one scan at a time, on the grid that its record tells of."
    )
