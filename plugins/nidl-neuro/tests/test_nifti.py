"""One file: read to its end, or refused with its name and the reason."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nidl_neuro import nifti
from nidl_neuro.errors import ScanError

SHAPE = (5, 6, 7)
VOXELS = np.random.default_rng(0).standard_normal(SHAPE).astype("f4")
WHOLE = nib.Nifti1Image(VOXELS, np.diag([2.0, 3.0, 4.0, 1.0])).to_bytes()  # 352 + 840 bytes
AGAIN = "Copy or download the file again."


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def patched(at: int, form: str, value: float) -> bytes:
    """The image with another value in its header."""
    content = bytearray(WHOLE)
    struct.pack_into(form, content, at, value)
    return bytes(content)


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


BAD: list[tuple[str, bytes, str]] = [
    ("empty.nii.gz", b"", f"the file is empty. {AGAIN}"),
    (
        "half.nii.gz",
        packed(WHOLE)[:500],
        f"the file ends early: its gzip stream is truncated. {AGAIN}",
    ),
    (
        "no_checksum.nii.gz",
        packed(WHOLE)[:-8],
        f"the file ends early: its gzip stream is truncated. {AGAIN}",
    ),
    (
        "text.nii.gz",
        b"subject,age\n1,20\n",
        "it is not a NIfTI image: it begins with b'subject,age\\n'. Leave it out, or convert it to .nii.gz.",
    ),
    (
        "text_packed.nii.gz",
        packed(b"subject,age\n1,20\n"),
        "it is not a NIfTI image: it begins with b'subject,age\\n'. Leave it out, or convert it to .nii.gz.",
    ),
    (
        "short.nii",
        WHOLE[:1000],
        f"the file ends early: 1000 bytes of the 1192 that its header announces. {AGAIN}",
    ),
    (
        "short.nii.gz",
        packed(WHOLE[:1000]),
        f"the file ends early: 1000 bytes of the 1192 that its header announces. {AGAIN}",
    ),
    (
        "dim.nii",
        patched(42, "<h", -5),
        f"its header is damaged: dim is [3, -5, 6, 7, 1, 1, 1, 1]. {AGAIN}",
    ),
    ("datatype.nii", patched(70, "<h", 999), f"its header is damaged: datatype is 999. {AGAIN}"),
    (
        "complex.nii",
        patched(70, "<h", 32),
        "its voxels are complex64, not real numbers. Save one real value a voxel.",
    ),
    (
        "zooms.nii.gz",
        packed(patched(84, "<f", 0.0)),
        "its header gives a voxel size of 2 x 0 x 4 mm. Write the true voxel size into its header.",
    ),
    ("none.nii", patched(44, "<h", 0), f"an axis has no voxels: shape (5, 0, 7). {AGAIN}"),
    (
        "pair.nii",
        WHOLE[:344] + b"ni1\0" + WHOLE[348:],
        "it is the header of a two-file image (.hdr and .img). Save the image as one .nii.gz file.",
    ),
]


@pytest.mark.parametrize(("name", "content", "text"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_file_is_refused_with_its_name(
    tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ScanError) as caught:
        nifti.load(path)
    assert str(caught.value) == f"{path}: {text}"
    assert caught.value.name == str(path)


@pytest.mark.parametrize("at", [-6, 600], ids=["checksum", "voxels"])
def test_a_changed_gzip_stream_is_refused_where_nibabel_reads_it(tmp_path: Path, at: int) -> None:
    path = tmp_path / "changed.nii.gz"
    path.write_bytes(changed(gzip.compress(WHOLE, 0, mtime=0), at))
    assert nib.load(path).get_fdata().shape == SHAPE
    with pytest.raises(ScanError, match=r"its gzip stream is damaged \(CRC check failed"):
        nifti.load(path)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((5, 6), "the image is 2-D: shape (5, 6), where 3 axes are wanted"),
        ((5, 6, 7, 2), "the image is 4-D: shape (5, 6, 7, 2), where 3 axes are wanted"),
        ((5, 6, 7, 1, 2), "the image is 5-D: shape (5, 6, 7, 1, 2), where 3 axes are wanted"),
    ],
)
def test_wrong_axes_are_refused(tmp_path: Path, shape: tuple[int, ...], problem: str) -> None:
    path = tmp_path / "axes.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(shape, "f4"), np.eye(4)), path)
    with pytest.raises(ScanError) as caught:
        nifti.load(path)
    assert caught.value.problem == problem
    assert ("each volume as a scan" in caught.value.remedy) == (len(shape) == 4)


def test_trailing_axes_of_length_one_are_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "axes.nii.gz"
    nib.save(nib.Nifti1Image(VOXELS[..., None, None], np.eye(4)), path)
    assert np.array_equal(nifti.load(path).get_fdata(), VOXELS)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, text in {
        tmp_path
        / "a.nii": f"there is no such file. Look into its folder, which is there: {tmp_path}.",
        tmp_path
        / "x/y/a.nii": f"there is no such file. The nearest folder that there is: {tmp_path}.",
        tmp_path: "it is a folder, not a file. Name the image file in it.",
    }.items():
        with pytest.raises(ScanError) as caught:
            nifti.load(path)
        assert str(caught.value) == f"{path}: {text}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            PermissionError(13, "Permission denied"),
            "the file cannot be read: permission denied. Ask its owner for the right to read it.",
        ),
        (
            OSError(5, "Input/output error"),
            "the file cannot be read: Input/output error. Check the disk that it lies on.",
        ),
    ],
)
def test_an_unreadable_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, text: str
) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(packed(WHOLE))

    def fails(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", fails)  # root may read everything
    with pytest.raises(ScanError) as caught:
        nifti.load(path)
    assert str(caught.value) == f"{path}: {text}"


GOOD: dict[str, Callable[[], bytes]] = {
    "plain.nii": lambda: WHOLE,
    "packed.nii.gz": lambda: packed(WHOLE),
    "packed.nii": lambda: packed(WHOLE),  # named wrongly, and not worth a refusal
    "two_members.nii.gz": lambda: packed(WHOLE[:400]) + packed(WHOLE[400:]),
    "nifti2.nii.gz": lambda: packed(nib.Nifti2Image(VOXELS, np.eye(4)).to_bytes()),
    "big_endian.nii": lambda: nib.Nifti1Image(
        VOXELS, np.eye(4), nib.Nifti1Header(endianness=">")
    ).to_bytes(),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_gives_its_voxels(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD[name]())
    image = nifti.load(path)
    assert np.array_equal(image.get_fdata(), VOXELS)
    path.unlink()
    assert pickle.loads(pickle.dumps(image)).shape == SHAPE  # all of it is in memory


def test_scale_factors_are_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    read = nifti.load(tmp_path / "a.nii.gz")
    assert read.get_data_dtype() == np.int16
    assert np.abs(read.get_fdata() - VOXELS).max() < 1e-3


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_volumes_of_a_4d_file_come_in_any_order(tmp_path: Path, name: str) -> None:
    voxels = np.random.default_rng(0).standard_normal((5, 6, 7, 4)).astype("f4")
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
    for volume in (0, 1, 3, 2):
        assert np.array_equal(nifti.load(tmp_path / name, volume).get_fdata(), voxels[..., volume])


def test_a_truncated_4d_file_is_refused_at_its_first_volume(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((5, 6, 7, 4), "f4"), np.eye(4)), path)
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(ScanError, match="its gzip stream is truncated"):
        nifti.load(path, 0)
