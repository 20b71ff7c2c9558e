"""Given masks as data, and the template's mask, against its own T1 and synthetic brains."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from scipy import ndimage

from nidl_core.errors import InvalidParameter, UnknownParameter
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.errors import ScanError
from nidl_neuro.masks import GivenMask, template_mask

MASK = np.random.default_rng(0).random((5, 6, 7)) > 0.6
AFFINE = np.diag([-2.0, 2, 3, 1])


@pytest.fixture(params=["image", "array", "nii.gz", "npy"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    image = nibabel.Nifti1Image(MASK.astype(np.uint8) * 255, AFFINE)
    if request.param == "nii.gz":
        nibabel.save(image, tmp_path / "mask.nii.gz")
        return tmp_path / "mask.nii.gz"
    if request.param == "npy":
        np.save(tmp_path / "mask.npy", MASK)
        return str(tmp_path / "mask.npy")
    return image if request.param == "image" else MASK


def test_a_mask_is_read_once_and_survives_json(source: object) -> None:
    mask = GivenMask.read(source)
    if isinstance(source, Path):
        source.unlink()
    again = GivenMask.from_dict(json.loads(json.dumps(mask.to_dict())))
    assert again == mask and hash(again) == hash(mask)
    np.testing.assert_array_equal(again.array, MASK)
    grid, canonical = again.canonical()
    if grid is None:
        np.testing.assert_array_equal(canonical, MASK)
    else:
        assert grid.orientation == "RAS"
        np.testing.assert_array_equal(canonical, MASK[::-1])


def mask_on(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    return template_mask(shape, tuple(map(tuple, affine.tolist())))


@pytest.mark.parametrize("size", [2, 3, 6, 11])
def test_the_mask_holds_the_whole_brain_of_the_template_at_any_voxel_size(size: int) -> None:
    template = load_mni152_template(resolution=size)
    mask, t1 = mask_on(template.shape, template.affine), template.get_fdata()
    assert (mask & (t1 > 0.6)).sum() > 0.995 * (t1 > 0.6).sum()  # grey and white matter
    brain = ndimage.binary_fill_holes(t1 > 0.25)  # with the fluid
    assert not (brain & ~ndimage.binary_dilation(mask)).any()
    assert not (mask & ~ndimage.binary_dilation(brain)).any()
    np.testing.assert_array_equal(ndimage.binary_fill_holes(mask), mask)  # the ventricles
    volume = mask.sum() * size**3 / 1000
    assert volume == pytest.approx(1887, rel=0.03)  # ml, as at 1 mm
    assert mask_on(template.shape, template.affine) is mask  # computed once for a grid


@pytest.mark.parametrize("size", [64, 32, 16])
def test_the_mask_loses_next_to_nothing_of_synthetic_brains_of_many_shapes(size: int) -> None:
    lost = []
    for one in map(synthetic_cohort(3, size=size, seed=3).ideal, range(3)):
        brain = sum(one.tissues[name] for name in ("grey", "white", "csf")) >= 0.5
        mask = mask_on(brain.shape, one.affine)
        lost.append((brain & ~mask).sum() / brain.sum())
        ventricles = one.tissues["ventricles"] >= 0.5
        assert not (ventricles & ~mask).any()
        assert (mask & ~brain).sum() < 0.4 * mask.sum()  # smaller heads than that of MNI152
    assert np.mean(lost) < 0.01


def test_the_mask_is_of_places_whatever_the_grid() -> None:
    turn = np.linalg.qr([[9.0, 1, 0], [-1, 9, 1], [0, -1, 9]])[0] * 3  # oblique, and flipped
    oblique, wide = np.eye(4), np.diag([4.0, 4, 5, 1])
    oblique[:3, :3] = turn
    oblique[:3, 3] = -turn @ [40, 40, 40]
    wide[:3, 3] = [-120, -160, -200]  # 128 mm below the lowest slice of the template
    for affine, shape in ((oblique, (81, 81, 81)), (wide, (60, 80, 90))):
        mask = mask_on(shape, affine)
        volume = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
        assert volume == pytest.approx(1887, rel=0.01)
        lowest = (affine @ np.c_[np.argwhere(mask), np.ones(mask.sum())].T)[2].min()
        assert -75 < lowest < -68


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 4)), "<array>: the mask is empty. Give one with voxels that are not 0."),
        (
            np.ones((2, 3)),
            "<array>: a mask of shape (2, 3) and type float64. Give one with three axes, of 0 and 1.",
        ),
        (
            np.linspace(0, 1, 24).reshape(2, 3, 4),
            "<array>: a mask holds 0 and one other value, this one holds more. "
            "Threshold it: mask = probability > 0.5.",
        ),
        (
            np.full((2, 3, 4), np.nan),
            "<array>: a mask holds 0 and one other value, this one holds more. "
            "Threshold it: mask = probability > 0.5.",
        ),
        (
            "brain.nii.gz",
            "brain.nii.gz: the mask cannot be read (FileNotFoundError: No such file or no access: "
            "'brain.nii.gz'). Give the path of an image or a .npy file, 'nonzero', 'computed' or "
            "'none'.",
        ),
    ],
)
def test_what_is_no_mask_is_refused(source: object, message: str) -> None:
    with pytest.raises(ScanError) as error:
        GivenMask.read(source)
    assert str(error.value) == message


def test_a_file_that_is_no_image_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    path.write_text("no image")
    with pytest.raises(ScanError) as error:
        GivenMask.read(path)
    assert str(error.value).startswith(f"{path}: the mask cannot be read (")


def test_damaged_plain_data_are_refused() -> None:
    data = GivenMask.read(MASK).to_dict()
    with pytest.raises(
        UnknownParameter, match="a mask has no parameter 'voxel'. Did you mean 'voxels'?"
    ):
        GivenMask.from_dict({**data, "voxel": ""})
    for change in ({"voxels": "AAAA"}, {"shape": [50, 60, 70]}, {"affine": [1, 2]}):
        with pytest.raises(InvalidParameter, match="mask must be what GivenMask.to_dict gives"):
            GivenMask.from_dict({**data, **change})
    with pytest.raises(InvalidParameter, match="KeyError: 'shape'"):
        GivenMask.from_dict({key: data[key] for key in ("name", "affine", "voxels")})
