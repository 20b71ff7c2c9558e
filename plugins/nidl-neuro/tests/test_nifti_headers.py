"""Headers with one damaged field: refused with the file's name, and left out where that is asked for."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nidl_neuro import nifti, scans
from nidl_neuro.errors import ScanError
from nidl_neuro.preparation import Preparation, restore

AGAIN = "Copy or download the file again."
UNIT = "Convert it, or correct the unit: image.header.set_xyzt_units('mm')."
VOX_OFFSET, XYZT_UNITS, QUATERN_B, PIXDIM_1, SFORM_CODE = 108, 123, 256, 80, 254


def save(path: Path, at: int | None = None, form: str = "", *values: float) -> Path:
    """An image whose orientation is a quaternion's, with other values in its header."""
    voxels = np.random.default_rng(0).normal(100, 10, (6, 7, 8)).astype(np.float32)
    image = nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(image.affine, 1)
    image.set_sform(None, 0)
    content = bytearray(image.to_bytes())
    if at is not None:
        struct.pack_into(form, content, at, *values)
    path.write_bytes(content)
    return path


DAMAGED: list[tuple[int, str, tuple[float, ...], str]] = [
    (QUATERN_B, "<3f", (0.9, 0.9, 0.9), f"its quaternion is longer than 1. {AGAIN}"),
    (QUATERN_B, "<f", (np.inf,), f"its quaternion is longer than 1. {AGAIN}"),
    (QUATERN_B, "<f", (-1e30,), f"its quaternion is longer than 1. {AGAIN}"),
    (VOX_OFFSET, "<f", (np.nan,), f"vox_offset is nan. {AGAIN}"),
    (VOX_OFFSET, "<f", (np.inf,), f"vox_offset is inf. {AGAIN}"),
    (XYZT_UNITS, "<B", (4,), f"no unit of length has the code 4. {UNIT}"),
    (XYZT_UNITS, "<B", (255,), f"no unit of length has the code 7. {UNIT}"),
]


@pytest.mark.parametrize(("at", "form", "values", "text"), DAMAGED)
def test_a_damaged_header_is_refused_with_its_name_or_left_out(
    tmp_path: Path, at: int, form: str, values: tuple[float, ...], text: str
) -> None:
    bad, good = save(tmp_path / "bad.nii", at, form, *values), save(tmp_path / "good.nii")
    given = {"voxel_size": 3, "mask": "none"}
    with pytest.raises(ScanError) as caught:
        scans([bad, good], given, cache=tmp_path / "c")
    assert str(caught.value) == f"{bad}: its header is damaged: {text}"
    data = scans([bad, good], given, cache=tmp_path / "c", skip_bad=True)
    assert data.ids == ["good"]
    assert data.cohort.refused == {str(bad): f"its header is damaged: {text}"}
    if at != XYZT_UNITS:
        with pytest.raises(ScanError):
            nifti.shape_of(bad)
        with pytest.raises(ScanError):
            nifti.load(bad, 0)


@pytest.mark.parametrize("code", [0, 2, 2 + 8, 2 + 64, 2 + 248])
def test_units_of_time_do_not_matter(tmp_path: Path, code: int) -> None:
    path = save(tmp_path / "a.nii", XYZT_UNITS, "<B", code)
    prepared = Preparation(voxel_size=3, mask="none").prepare(nifti.load(path), str(path))
    back = restore(prepared.array, prepared.record)
    assert back.header["xyzt_units"] == code


@pytest.mark.parametrize(("code", "unit"), [(1, "meter"), (3, "micron")])
def test_other_units_are_told_where_lengths_matter(tmp_path: Path, code: int, unit: str) -> None:
    path = save(tmp_path / "a.nii", XYZT_UNITS, "<B", code)
    for given in ({"voxel_size": 3}, {"mask": "computed"}):
        with pytest.raises(
            ScanError, match=f"its header gives lengths in {unit}, and a voxel size"
        ):
            Preparation(**given).prepare(nifti.load(path), str(path))
    Preparation(mask="none").prepare(nifti.load(path), str(path))


def test_a_scan_of_many_metres_is_not_resampled(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", PIXDIM_1, "<f", 3e4)
    with pytest.raises(ScanError) as caught:
        Preparation(voxel_size=3, mask="none").prepare(nifti.load(path), str(path))
    assert str(caught.value) == (
        f"{path}: its header gives it a size of 1.8e+05x14x16 mm, more than 10 m. Write the true voxel "
        "size into its header."
    )


def test_a_damaged_quaternion_does_not_matter_where_an_sform_says_where_the_voxels_lie(
    tmp_path: Path,
) -> None:
    path = save(tmp_path / "a.nii", QUATERN_B, "<3f", 0.9, 0.9, 0.9)
    content = bytearray(path.read_bytes())
    struct.pack_into("<h", content, SFORM_CODE, 1)
    struct.pack_into("<12f", content, 280, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0)
    path.write_bytes(content)
    image = nifti.load(path)
    prepared = Preparation(mask="none", intensity="none").prepare(image, str(path))
    np.testing.assert_array_equal(
        restore(prepared.array, prepared.record).get_fdata(), image.get_fdata()
    )
