"""Preparation against formulas in scanner space, nibabel, nilearn and numpy.

`head` samples a smooth function of position on any grid, so what a prepared voxel must hold
follows from the affine alone.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from nilearn.datasets import load_mni152_template
from nilearn.image import resample_img
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nidl_core.errors import InvalidParameter, UnknownParameter
from nidl_neuro.errors import ScanError
from nidl_neuro.masks import template_mask
from nidl_neuro.preparation import Preparation
from nidl_neuro.record import Record

PLAIN = {"mask": "none", "intensity": "none"}
GRIDS = {  # codes, voxel size, degrees of turn, shape
    "RAS": ("RAS", (2, 2, 2), 0, (25, 30, 27)),
    "LAS": ("LAS", (2, 2, 2), 0, (25, 30, 27)),
    "PSR": ("PSR", (2, 2, 2), 0, (30, 27, 25)),
    "oblique": ("LPI", (2, 2, 2), 18, (25, 30, 27)),
    "anisotropic": ("ARS", (1.5, 2, 4), 10, (40, 25, 14)),
}


def affine_of(codes: str, size: tuple[float, ...], degrees: float, shape: Any) -> np.ndarray:
    affine = np.linalg.inv(inv_ornt_aff(axcodes2ornt(codes), (1, 1, 1))) @ np.diag([*size, 1.0])
    turn = Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True)
    affine[:3, :3] = turn.as_matrix() @ affine[:3, :3]
    affine[:3, 3] = [3, -12, 7] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def head(affine: np.ndarray, shape: Any) -> np.ndarray:
    """Two Gaussian blobs on a gentle slope, around (3, -12, 7) mm."""
    index = np.indices(shape).reshape(3, -1)
    place = (affine[:3, :3] @ index).T + affine[:3, 3] - [3, -12, 7]
    values = 800 * np.exp(-(place**2).sum(1) / 2 / 9**2)
    values += 300 * np.exp(-((place - [8, 5, -6]) ** 2).sum(1) / 2 / 6**2) + place @ [0.3, 0.2, 0.1]
    return (values + 100).reshape(shape)


def scan(name: str) -> nibabel.Nifti1Image:
    affine = affine_of(*GRIDS[name])
    return nibabel.Nifti1Image(head(affine, GRIDS[name][3]).astype(np.float32), affine)


def mni(resolution: float) -> nibabel.Nifti1Image:
    image = load_mni152_template(resolution=resolution)
    return nibabel.Nifti1Image(image.get_fdata().astype(np.float32), image.affine)


@pytest.mark.parametrize("name", GRIDS)
def test_without_resampling_voxels_move_exactly_to_where_the_affine_says(name: str) -> None:
    prepared = Preparation(shape=(24, 40, 31), **PLAIN).prepare(scan(name))
    expected = head(prepared.record.affine, (24, 40, 31)).astype(np.float32)
    assert prepared.array.shape == (1, 24, 40, 31) and prepared.array.dtype == np.float32
    np.testing.assert_allclose(prepared.array[0][prepared.mask], expected[prepared.mask], rtol=2e-6)
    assert "".join(nibabel.aff2axcodes(prepared.record.affine)) == "RAS"
    shape = np.minimum(prepared.record.whole_grid.shape, (24, 40, 31))
    assert prepared.mask.sum() == shape.prod()  # without a mask: the field of view


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("size", [1.0, 3.0, (2, 3, 2.5)])
def test_resampled_voxels_hold_what_is_at_their_place(name: str, size: Any) -> None:
    prepared = Preparation(voxel_size=size, **PLAIN).prepare(scan(name))
    expected = head(prepared.record.affine, prepared.array.shape[1:])
    inside = (slice(1, -1),) * 3
    difference = np.abs(prepared.array[0] - expected)[inside].max()
    assert difference < 0.04 * np.ptp(expected)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(prepared.record.affine), size)


def test_resampling_a_brain_to_finer_voxels_matches_nilearn() -> None:
    image = mni(4)
    prepared = Preparation(voxel_size=(3, 4, 3.5), **PLAIN).prepare(image)
    expected = resample_img(
        image,
        target_affine=prepared.record.affine,
        target_shape=prepared.array.shape[1:],
        interpolation="linear",
        copy_header=True,
        force_resample=True,
    ).get_fdata()
    inside = (slice(1, -1),) * 3  # beyond the outermost centres nilearn takes 0
    np.testing.assert_allclose(prepared.array[0][inside], expected[inside], atol=1e-5)


def test_resampling_a_brain_to_coarser_voxels_matches_a_blur_and_nilearn() -> None:
    image = mni(3)
    prepared = Preparation(voxel_size=5, **PLAIN).prepare(image)
    sigma = np.sqrt(5**2 - 3**2) / 2.354820045 / 3
    blurred = ndimage.gaussian_filter(image.get_fdata(), sigma, mode="nearest")
    expected = resample_img(
        nibabel.Nifti1Image(blurred, image.affine),
        target_affine=prepared.record.affine,
        target_shape=prepared.array.shape[1:],
        interpolation="linear",
        copy_header=True,
        force_resample=True,
    ).get_fdata()
    inside = (slice(1, -1),) * 3
    np.testing.assert_allclose(prepared.array[0][inside], expected[inside], atol=1e-5)


def test_stripes_too_fine_for_the_new_voxels_vanish_instead_of_turning_into_others() -> None:
    stripes = np.where(np.arange(27) % 2, 1.0, -1.0)[:, None, None] * np.ones((27, 9, 9))
    image = nibabel.Nifti1Image(stripes, np.eye(4))
    blurred = Preparation(voxel_size=3, **PLAIN).prepare(image).array[0][1:-1]
    sampled = Preparation(voxel_size=3, interpolation="nearest", **PLAIN).prepare(image).array[0]
    assert np.abs(blurred).max() < 0.01
    assert np.abs(sampled).min() == 1


def test_cubic_interpolation_is_nearer_to_a_smooth_image_than_linear() -> None:
    errors = {}
    for how in ("linear", "cubic"):
        prepared = Preparation(voxel_size=1.3, interpolation=how, **PLAIN).prepare(scan("LAS"))
        expected = head(prepared.record.affine, prepared.array.shape[1:])
        errors[how] = np.abs(prepared.array[0] - expected)[3:-3, 3:-3, 3:-3].max()
    assert errors["cubic"] < errors["linear"] / 5


def test_the_default_is_a_zscore_of_the_voxels_that_are_not_zero() -> None:
    image = mni(4)
    data = image.get_fdata()
    brain = data != 0
    prepared = Preparation().prepare(image)
    np.testing.assert_array_equal(prepared.mask, brain)
    expected = (data - data[brain].mean()) / data[brain].std()
    np.testing.assert_allclose(prepared.array[0], expected, atol=1e-5)


def test_percentiles_are_those_of_the_mask_and_nothing_is_clipped() -> None:
    image = mni(4)
    data = image.get_fdata()
    low, high = np.percentile(data[data != 0], [1, 99])
    prepared = Preparation(intensity="percentiles").prepare(image)
    np.testing.assert_allclose(prepared.array[0], (data - low) / (high - low), atol=1e-5)
    assert prepared.array.max() > 1


def test_padding_and_the_rest_of_the_crop_do_not_change_the_zscore() -> None:
    image = mni(4)
    shape = tuple(n + 6 for n in image.shape)
    plain, padded = (Preparation(shape=s, mask="none").prepare(image) for s in (None, shape))
    np.testing.assert_array_equal(padded.array[0][3:-3, 3:-3, 3:-3], plain.array[0])
    assert padded.mask.sum() == plain.mask.sum() == np.prod(image.shape)


def test_padding_is_the_background_even_where_that_is_not_zero() -> None:
    data = np.full((12, 13, 14), -1000.0)  # air, in Hounsfield units
    data[1:-1, 1:-1, 1:-1] = 40  # most of the volume
    prepared = Preparation(shape=16, **PLAIN).prepare(nibabel.Nifti1Image(data, np.eye(4)))
    assert prepared.record.background == -1000
    assert prepared.array[0][~prepared.mask].tolist() == [-1000] * (16**3 - data.size)


def test_crop_and_pad_keep_the_middle() -> None:
    image = nibabel.Nifti1Image(np.arange(7 * 8 * 3.0).reshape(7, 8, 3), np.eye(4))
    prepared = Preparation(shape=(4, 11, 3), **PLAIN).prepare(image)
    assert prepared.record.start == (1, -2, 0)  # crops one more behind, pads one more in front
    np.testing.assert_array_equal(prepared.array[0][:, 2:10], image.get_fdata()[1:5])
    np.testing.assert_array_equal(prepared.record.affine[:3, 3], (1, -2, 0))


def test_a_crop_can_follow_the_mask() -> None:
    data = np.zeros((20, 21, 22))
    data[2:8, 11:20, 5:9] = np.random.default_rng(0).random((6, 9, 4)) + 1
    image = nibabel.Nifti1Image(data, np.eye(4))
    followed = Preparation(shape=(6, 9, 4), centre="mask", intensity="none").prepare(image)
    np.testing.assert_array_equal(followed.array[0], data[2:8, 11:20, 5:9].astype(np.float32))
    fixed = Preparation(shape=(12, 12, 12), intensity="none").prepare(image)
    assert fixed.record.mask_cut == 216 - int((data[4:16, 4:16, 5:17] != 0).sum()) > 0
    assert str(fixed.record).endswith(
        f"cropped 20x21x22 -> 12x12x12 ({fixed.record.mask_cut} voxels of the mask cut off), "
        f"intensities kept, mask of {216 - fixed.record.mask_cut} voxels"
    )


def test_the_computed_mask_is_the_templates_on_the_prepared_voxels() -> None:
    image = mni(4)
    prepared = Preparation(mask="computed", shape=(50, 60, 50)).prepare(image)
    mask = nibabel.Nifti1Image(np.uint8(1) * prepared.mask, prepared.record.affine)
    expected = template_mask(image.shape, tuple(map(tuple, image.affine.tolist())))
    start, end = -np.array(prepared.record.start), np.array(image.shape) - prepared.record.start
    assert (start >= 0).all()
    part = tuple(slice(a, b) for a, b in zip(start, end, strict=True))
    np.testing.assert_array_equal(mask.get_fdata()[part] != 0, expected)
    assert prepared.mask.sum() == expected.sum()
    assert prepared.array[0][prepared.mask].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["LAS", "anisotropic"])
def test_a_mask_on_the_scans_grid_goes_its_way_in_any_orientation(name: str) -> None:
    image = scan(name)
    brain = nibabel.Nifti1Image((image.get_fdata() > 300).astype(np.uint8), image.affine)
    flipped = nibabel.as_closest_canonical(brain)
    options = {"voxel_size": 2.5, "shape": (26, 30, 28), "intensity": "none"}
    one, other = (Preparation(mask=m, **options).prepare(image) for m in (brain, flipped))
    np.testing.assert_array_equal(one.mask, other.mask)
    truth = head(one.record.affine, one.mask.shape) > 300
    assert 2 * (one.mask & truth).sum() / (one.mask.sum() + truth.sum()) > 0.93  # Dice
    assert one.record.mask_voxels == one.mask.sum()


def test_a_mask_on_the_prepared_grid_serves_scans_of_any_grid() -> None:
    options = {"voxel_size": 2.5, "shape": (16, 18, 16)}
    first = Preparation(**options).prepare(scan("LAS"))
    brain = first.array[0] > 0
    masks = [nibabel.Nifti1Image(brain.astype(np.uint8), first.record.affine), brain]
    for mask in masks:
        prepared = Preparation(mask=mask, **options).prepare(scan("PSR"))
        np.testing.assert_array_equal(prepared.mask, brain)
    assert prepared.array[0][brain].mean() == pytest.approx(0, abs=1e-5)


def test_a_mask_on_the_prepared_grid_does_not_count_where_it_was_padded() -> None:
    prepared = Preparation(mask=np.ones((9, 9, 9)), shape=9, intensity="none").prepare(tiny())
    assert prepared.mask.sum() == TINY.size
    np.testing.assert_array_equal(prepared.array[0][prepared.mask], TINY.astype(np.float32).ravel())


def test_a_given_mask_stays_in_the_plain_data_when_its_file_is_gone(tmp_path: Path) -> None:
    image = scan("LAS")
    path = tmp_path / "brain.nii.gz"
    nibabel.save(
        nibabel.Nifti1Image((image.get_fdata() > 300).astype(np.uint8), image.affine), path
    )
    preparation = Preparation(mask=path)
    plain = json.dumps(preparation.to_dict())
    path.unlink()
    again = Preparation.from_dict(json.loads(plain))
    np.testing.assert_array_equal(again.prepare(image).mask, preparation.prepare(image).mask)
    assert again.prepare(image).record.mask == path.name


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_dtype_is_that_asked_for(dtype: str) -> None:
    prepared = Preparation(dtype=dtype).prepare(mni(6))
    reference = Preparation(dtype="float64").prepare(mni(6))
    assert prepared.array.dtype == dtype and prepared.array.flags.c_contiguous
    np.testing.assert_allclose(
        prepared.array, reference.array, rtol=2e-3 if dtype == "float16" else 1e-5, atol=1e-5
    )


def test_values_beyond_the_dtype_are_refused() -> None:
    image = nibabel.Nifti1Image(np.linspace(0, 7e4, 60).reshape(3, 4, 5), np.eye(4))
    assert np.isfinite(Preparation(dtype="float16").prepare(image).array).all()
    with pytest.raises(ScanError) as error:
        Preparation(dtype="float16", intensity="none").prepare(image, "sub-01.nii.gz")
    assert str(error.value) == (
        "sub-01.nii.gz: values up to 70000 do not fit into float16. Choose dtype='float32', or an "
        "intensity other than 'none'."
    )


@pytest.mark.parametrize("options", [PLAIN, {}, {"voxel_size": 3, "shape": 20}])
def test_the_image_stays_as_it_is_and_the_result_is_no_view_of_it(options: Any) -> None:
    image = scan("RAS")
    before, affine = image.get_fdata().copy(), image.affine.copy()
    first, second = (Preparation(**options).prepare(image) for _ in range(2))
    assert not np.shares_memory(first.array, np.asarray(image.dataobj))
    first.array[:] = first.mask[:] = 0
    np.testing.assert_array_equal(image.get_fdata(), before)
    np.testing.assert_array_equal(image.affine, affine)
    np.testing.assert_array_equal(Preparation(**options).prepare(image).array, second.array)


def test_a_bad_grid_is_told_without_reading_voxels() -> None:
    with pytest.raises(ScanError, match="sub-01: the axes of its affine are not at right angles"):
        Preparation(shape=20).prepared_shape(sheared(), "sub-01")


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_scaled_integers_of_any_byte_order_are_read_as_nibabel_reads_them(
    endianness: str, tmp_path: Path
) -> None:
    header = nibabel.Nifti1Header(endianness=endianness)
    header.set_data_dtype(np.dtype(endianness + "i2"))
    stored = np.arange(-400, 590, dtype="i2").reshape(9, 10, 11)
    image = nibabel.Nifti1Image(stored, affine_of(*GRIDS["LAS"]), header)
    image.header.set_slope_inter(0.37, -50)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    image = nibabel.load(tmp_path / "scaled.nii.gz")
    assert image.header.endianness == endianness and image.dataobj.slope == pytest.approx(0.37)
    prepared = Preparation(**PLAIN).prepare(image)
    np.testing.assert_allclose(prepared.array[0], image.get_fdata()[::-1], rtol=1e-6)
    assert prepared.record.name == str(tmp_path / "scaled.nii.gz")
    np.testing.assert_allclose(prepared.array[0], 0.37 * stored[::-1] - 50, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"voxel_size": (3, 1, 2)}, {"shape": 12}, {"voxel_size": 2.5}]
)
@pytest.mark.parametrize("name", GRIDS)
def test_the_prepared_shape_is_known_without_reading_voxels(name: str, options: Any) -> None:
    image = scan(name)

    class Unread:
        shape, ndim, dtype = image.shape, 3, image.get_data_dtype()

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise AssertionError("read")

    preparation = Preparation(mask="none", **options)
    header_only = nibabel.Nifti1Image(Unread(), image.affine)
    assert preparation.prepared_shape(header_only) == preparation.prepare(image).array.shape[1:]


def sheared() -> nibabel.Nifti1Image:
    shear = np.eye(4)
    shear[0, 1] = 0.25
    affine = affine_of("LAS", (2, 2, 2), 10, (25, 30, 27)) @ shear
    return nibabel.Nifti1Image(head(affine, (25, 30, 27)).astype(np.float32), affine)


def test_a_sheared_scan_is_straightened_if_resampling_is_asked_for() -> None:
    prepared = Preparation(voxel_size=2, **PLAIN).prepare(sheared(), "sub-01")
    axes = prepared.record.affine[:3, :3] / 2
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    expected = head(prepared.record.affine, prepared.mask.shape)
    well_inside = ndimage.binary_erosion(prepared.mask, iterations=2)
    difference = np.abs(prepared.array[0] - expected)[well_inside]
    assert difference.size > 10000 and difference.max() < 0.04 * np.ptp(expected)
    assert 0.8 < prepared.mask.sum() / (25 * 30 * 27) < 1.2  # the field of view, not the box around
    assert "sheared axes straightened" in str(prepared.record)


TINY = np.random.default_rng(0).random((3, 4, 5))


def tiny(data: Any = TINY) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(data, np.eye(4))


def tiny_file(affine: np.ndarray) -> nibabel.Nifti1Image:
    """As from a file whose sform is `affine`; nibabel itself would not write a bad one."""
    content = bytearray(tiny().to_bytes())
    content[280:328] = affine[:3].astype("<f4").tobytes()
    return nibabel.Nifti1Image.from_bytes(bytes(content))


def _with(value: float, *more: float) -> np.ndarray:
    data = TINY.copy()
    data.flat[: 1 + len(more)] = [value, *more]
    return data


def _micron() -> nibabel.Nifti1Image:
    image = tiny()
    image.header.set_xyzt_units("micron")
    return image


FAR = np.array([[1.0, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SINGULAR = np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
MASK = nibabel.Nifti1Image(np.ones((3, 4, 6), np.uint8), np.diag([1, 1, 2, 1]))
OTHER_GRID = "Resample it onto one of them, or choose voxel_size and shape to give scans its grid."
SCALE = "Leave the scan out, or choose intensity='none'."


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (
            tiny(_with(np.nan, np.nan, -np.inf)),
            {},
            "2 voxels are NaN and 1 infinite, of 60. "
            "Set them to the background: numpy.nan_to_num(data, posinf=0, neginf=0).",
        ),
        (
            tiny(_with(1e300)),
            {},
            "0 voxels are NaN and 1 infinite, of 60. "
            "Set them to the background: numpy.nan_to_num(data, posinf=0, neginf=0).",
        ),
        (
            tiny(np.full((3, 4, 5), 7.0)),
            {},
            "the image is constant, all its voxels have the value 7, which leaves no scale to "
            f"normalise by. {SCALE}",
        ),
        (
            tiny(TINY * 0),
            {},
            "the image is constant, all its voxels have the value 0, which leaves no scale to "
            f"normalise by. {SCALE}",
        ),
        (
            tiny((TINY > 0.5) * 3.0),
            {},
            f"the {(TINY > 0.5).sum()} voxels of the mask all have the value 3, which leaves no "
            f"scale to normalise by. {SCALE}",
        ),
        (
            tiny(TINY * 0),
            {"intensity": "none"},
            "the mask 'nonzero' is empty: no voxel of this scan is in it. "
            "Look at where the scan lies, choose another mask, or leave the scan out.",
        ),
        (
            tiny(TINY * 0),
            {"intensity": "none", "shape": 2, "centre": "mask"},
            "the mask 'nonzero' is empty: no voxel of this scan is in it. "
            "Look at where the scan lies, choose another mask, or leave the scan out.",
        ),
        (
            tiny_file(FAR),
            {"mask": "computed"},
            "the mask 'computed' is empty: no voxel of this scan is in it. "
            "Look at where the scan lies, choose another mask, or leave the scan out.",
        ),
        (
            tiny(),
            {"mask": MASK},
            "the mask <image> (3x4x6 voxels of 1x1x2 mm, RAS) has another grid than the scan "
            "(3x4x5 voxels of 1x1x1 mm, RAS) and the prepared one (3x4x5 voxels of 1x1x1 mm, RAS). "
            + OTHER_GRID,
        ),
        (
            tiny(),
            {"mask": np.ones((3, 4, 6)), "shape": (3, 4, 9)},
            "the mask <array> (an array of shape 3x4x6) has another grid than the scan "
            "(3x4x5 voxels of 1x1x1 mm, RAS) and the prepared one (3x4x9 voxels of 1x1x1 mm, RAS). "
            + OTHER_GRID,
        ),
        (
            tiny(),
            {"mask": np.ones((3, 4, 9)), "shape": (3, 4, 9), "centre": "mask"},
            "the mask <array> (an array of shape 3x4x9) has another grid than the scan "
            "(3x4x5 voxels of 1x1x1 mm, RAS). " + OTHER_GRID,
        ),
        (
            tiny(np.ones((3, 4))),
            {},
            "an image of shape (3, 4), where one of three axes is expected. Leave it out.",
        ),
        (
            tiny(np.ones((3, 4, 5, 2))),
            {},
            "an image of shape (3, 4, 5, 2), where one of three axes is expected. "
            "Take one volume of it: image.slicer[..., 0].",
        ),
        (
            tiny(np.ones((3, 0, 5))),
            {},
            "an image of shape (3, 0, 5), where one of three axes is expected. Leave it out.",
        ),
        (
            tiny_file(np.diag([1.0, 0, 1, 1])),
            {},
            "voxels of 1x0x1 mm, where sizes above 0 are expected. "
            "Repair its header, or convert it anew.",
        ),
        (
            tiny_file(SINGULAR),
            {"voxel_size": 2},
            "its affine is singular: two axes of the array run the same way. "
            "Repair its header, or convert it anew.",
        ),
        (
            tiny_file(np.diag([1.0, np.nan, 1, 1])),
            {},
            "its affine is missing or not finite, so that nothing says where its voxels lie. "
            "Repair its header, or convert it anew.",
        ),
        (
            sheared(),
            {},
            "the axes of its affine are not at right angles (it is sheared). "
            "Give a voxel_size, to have it resampled onto axes that are.",
        ),
        (
            tiny(TINY * 1j),
            {},
            "its voxels are of type complex128, where real numbers are expected. "
            "Save one channel or the magnitude as numbers.",
        ),
        (
            _micron(),
            {"voxel_size": 2},
            "its header gives lengths in micron, and a voxel size in mm was asked for. "
            "Convert it, or correct the unit: image.header.set_xyzt_units('mm').",
        ),
    ],
)
def test_what_cannot_be_prepared_is_refused_with_its_name(
    image: Any, options: Any, message: str
) -> None:
    with pytest.raises(ScanError) as error:
        Preparation(**options).prepare(image, "sub-01.nii.gz")
    assert str(error.value) == f"sub-01.nii.gz: {message}"


def test_a_file_that_is_cut_off_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "sub-01.nii.gz"
    nibabel.save(scan("LAS"), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ScanError) as error:
        Preparation().prepare(nibabel.load(path))
    assert str(error.value).startswith(f"{path}: its voxels cannot be read (")
    assert str(error.value).endswith("The file is damaged or cut off: copy or convert it anew.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"voxel_size": 0},
            "voxel_size must be a finite number of mm above 0, three of them, or None, got voxel_size=0.",
        ),
        ({"voxel_size": (1, 2)}, "got voxel_size=(1, 2)."),
        ({"voxel_size": (1, -1, 1)}, "got voxel_size=(1, -1, 1)."),
        ({"voxel_size": float("nan")}, "got voxel_size=nan."),
        ({"voxel_size": "2"}, "got voxel_size='2'."),
        (
            {"shape": 64.0},
            "shape must be an int of at least 1, three of them, or None, got shape=64.0.",
        ),
        ({"shape": (64, 0, 64)}, "got shape=(64, 0, 64)."),
        ({"shape": True}, "got shape=True."),
        ({"centre": "brain"}, "centre must be 'volume' or 'mask', got centre='brain'."),
        (
            {"intensity": "minmax"},
            "intensity must be 'zscore' or 'percentiles' or 'none', got intensity='minmax'.",
        ),
        (
            {"interpolation": ["linear"]},
            "interpolation must be 'linear' or 'cubic' or 'nearest', got interpolation=['linear'].",
        ),
        (
            {"dtype": "int16"},
            "dtype must be 'float32' or 'float16' or 'float64', got dtype='int16'.",
        ),
    ],
)
def test_impossible_values_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        Preparation(**options)
    assert str(error.value).endswith(message)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(UnknownParameter) as error:
        Preparation.from_dict({"voxelsize": 2})
    assert str(error.value) == (
        "Preparation has no parameter 'voxelsize'. Did you mean 'voxel_size'? It takes: voxel_size, "
        "shape, centre, mask, intensity, interpolation, dtype."
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"voxel_size": 2.1, "shape": np.int64(20), "mask": None, "intensity": None},
        {"voxel_size": np.array([1.7, 2, 3]), "shape": [20, 24, 22], "centre": "mask"},
        {"mask": scan("anisotropic").get_fdata().transpose(1, 0, 2)[::1] > 300, "dtype": "float64"},
    ],
)
def test_json_and_pickle_give_the_same_preparation_bit_for_bit(options: Any) -> None:
    preparation = Preparation(**options)
    image = scan("anisotropic")
    first = preparation.prepare(image, "sub-01")
    for again in (
        Preparation.from_dict(json.loads(json.dumps(preparation.to_dict()))),
        pickle.loads(pickle.dumps(preparation)),
    ):
        assert again == preparation and hash(again) == hash(preparation)
        second = again.prepare(image, "sub-01")
        assert second.array.tobytes() == first.array.tobytes()
        assert second.mask.tobytes() == first.mask.tobytes()
        assert second.record == first.record
    record = Record.from_dict(json.loads(json.dumps(first.record.to_dict())))
    assert record == first.record and str(record) == str(first.record)


def test_unknown_and_missing_keys_of_a_record_are_refused() -> None:
    data = Preparation().prepare(tiny()).record.to_dict()
    with pytest.raises(UnknownParameter, match="Record has no parameter 'begin'."):
        Record.from_dict({**data, "begin": 0})
    del data["start"], data["scale"]
    with pytest.raises(InvalidParameter, match="data must be all keys, with start, scale, got"):
        Record.from_dict(data)


@pytest.mark.parametrize(
    ("image", "options", "text"),
    [
        (
            "LAS",
            {"mask": "none"},
            "sub-01: LAS -> RAS, 2x2x2 mm kept, 25x30x27 kept, z-scored over 20250 voxels "
            "(mean {shift:.1f}, sd {scale:.1f})",
        ),
        (
            "anisotropic",
            {"voxel_size": (2, 2, 2), "shape": (26, 27, 32), "mask": "nonzero"},
            "sub-01: ARS -> RAS, resampled 2x1.5x4 -> 2x2x2 mm (linear, blurred by 0x1.323x0 mm), "
            "cropped and padded 25x30x28 -> 26x27x32 (2100 voxels of the mask cut off), "
            "z-scored in a mask of 18900 voxels (mean {shift:.1f}, sd {scale:.1f})",
        ),
        (
            "RAS",
            {"voxel_size": 1, "intensity": "percentiles", "interpolation": "cubic", "shape": 60},
            "sub-01: RAS, resampled 2x2x2 -> 1x1x1 mm (cubic), padded 50x60x54 -> 60x60x60, scaled "
            "by percentiles 1 and 99 in a mask of 162000 voxels ({shift:.1f} -> 0, {high:.1f} -> 1)",
        ),
        (
            "oblique",
            PLAIN,
            "sub-01: LPI -> RAS, 2x2x2 mm kept, 25x30x27 kept, intensities kept",
        ),
    ],
)
def test_the_record_says_in_a_line_what_was_done(image: str, options: Any, text: str) -> None:
    record = Preparation(**options).prepare(scan(image), "sub-01").record
    told = text.format(shift=record.shift, scale=record.scale, high=record.shift + record.scale)
    assert str(record) == told
