"""Given masks as data, and the template's mask, against nilearn."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from nilearn.masking import compute_brain_mask

from nidl_core.errors import InvalidParameter, UnknownParameter
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


def test_the_mask_of_the_template_matches_nilearn() -> None:
    template = load_mni152_template(resolution=4)
    rows = tuple(map(tuple, template.affine.tolist()))
    mask = template_mask(template.shape, rows)
    np.testing.assert_array_equal(mask, compute_brain_mask(template).get_fdata() != 0)
    assert 0.1 < mask.mean() < 0.6
    assert template_mask(template.shape, rows) is mask  # computed once for a grid


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
