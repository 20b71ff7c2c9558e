"""Every kind of bad scan and table, through `scans`, `fit` and `nidl fit`, with the exact message.

What is bad is refused by name before any training, or left out by `skip_bad` and listed.
"""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

import nidl_core
from nidl_core.cli import main
from nidl_core.errors import DataError
from nidl_neuro import Preparation, ScanError, find, scans

SHAPE = (5, 6, 7)
AGAIN = "Copy or download the file again."
SPEC = """
name = "vae"
[params]
encoder = { name = "mlp", params = { widths = [4] } }
decoder = { name = "mlp", params = { widths = [4] } }
latent_dim = 2
max_epochs = 1
random_state = 0
"""


def voxels(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype("f4")


def save(path: Path, data: np.ndarray, affine: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def content(data: np.ndarray | None = None) -> bytes:
    image = nibabel.Nifti1Image(voxels() if data is None else data, np.diag([2.0, 3.0, 4.0, 1.0]))
    return bytes(image.to_bytes())


def patched(at: int, form: str, *values: float) -> bytes:
    """An image with other values in its header, as no library would write it."""
    changed = bytearray(content())
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def packed(whole: bytes) -> bytes:
    return gzip.compress(whole, mtime=0)


def spoilt(data: np.ndarray, *values: float) -> np.ndarray:
    data.flat[: len(values)] = values
    return data


@dataclass(frozen=True)
class Bad:
    """A file that is no use: its content (or what makes it), and what is said of it."""

    made: bytes | np.ndarray | Callable[[Path], object]
    problem: str
    remedy: str
    preparation: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        if isinstance(self.made, bytes):
            path.write_bytes(self.made)
        elif isinstance(self.made, np.ndarray):
            save(path, self.made)
        else:
            self.made(path)
        return path

    @property
    def reason(self) -> str:
        return f"{self.problem}. {self.remedy}"


NOT_NIFTI = "Leave it out, or convert it to .nii.gz."
REPAIR = "Write the true voxel size into its header."
BACKGROUND = "Set them to the background: numpy.nan_to_num(data, posinf=0, neginf=0)."
SCALE = "Leave the scan out, or choose intensity='none'."
ELSEWHERE = "Look at where the scan lies, choose another mask, or leave the scan out."
SHEARED = np.array([[2.0, 0.5, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0]])
CHECKSUM = packed(content())[:-8] + bytes([1, 2, 3, 4]) + packed(content())[-4:]
IS = int.from_bytes(packed(content())[-8:-4], "little")
BAD = {
    "truncated_gzip": Bad(
        packed(content())[:400], "the file ends early: its gzip stream is truncated", AGAIN
    ),
    "truncated_in_its_header": Bad(
        packed(content())[:40], "the file ends early: its gzip stream is truncated", AGAIN
    ),
    "without_its_checksum": Bad(
        packed(content())[:-8], "the file ends early: its gzip stream is truncated", AGAIN
    ),
    "of_another_checksum": Bad(
        CHECKSUM, f"its gzip stream is damaged (CRC check failed 0x4030201 != {IS:#x})", AGAIN
    ),
    "packed_after_it_was_cut": Bad(
        packed(content()[:1000]),
        "the file ends early: 1000 bytes of the 1192 that its header announces",
        AGAIN,
    ),
    "empty": Bad(b"", "the file is empty", AGAIN),
    "text": Bad(
        b"subject,age\n1,20\n",
        "it is not a NIfTI image: it begins with b'subject,age\\n'",
        NOT_NIFTI,
    ),
    "zeros": Bad(bytes(2000), "it is not a NIfTI image: it begins with 540 zeros", NOT_NIFTI),
    "dicom": Bad(
        bytes(128) + b"DICM" + bytes(900),
        "it is a DICOM file, not a NIfTI image",
        "Convert it, by dcm2niix for example.",
    ),
    "two_axes": Bad(
        voxels()[..., 0],
        "the image is 2-D: shape (5, 6), where 3 axes are wanted",
        "Leave it out, or save it as a 3-D image.",
    ),
    "four_axes": Bad(
        voxels(0, (*SHAPE, 2)),
        "the image is 4-D: shape (5, 6, 7, 2), where 3 axes are wanted",
        "Hand in the path of this file alone to take each volume as a scan, or average the volumes "
        "first.",
    ),
    "five_axes": Bad(
        voxels(0, (*SHAPE, 1, 2)),
        "the image is 5-D: shape (5, 6, 7, 1, 2), where 3 axes are wanted",
        "Leave it out, or save it as a 3-D image.",
    ),
    "no_slices": Bad(
        patched(44, "<h", 0), "an axis has no voxels: shape (5, 0, 7)", AGAIN
    ),
    "another_shape": Bad(
        voxels(0, (5, 6, 8)),
        "its prepared shape is (1, 5, 6, 8), that of 3 others (1, 5, 6, 7)",
        "Prepare all scans to one shape: give the preparation a target shape, such as shape=[5, 6, "
        "8].",
    ),
    "nan": Bad(
        spoilt(voxels(), np.nan, np.nan, np.inf),
        "2 voxels are NaN and 1 infinite, of 210",
        BACKGROUND,
    ),
    "infinite": Bad(
        spoilt(voxels(), -np.inf), "0 voxels are NaN and 1 infinite, of 210", BACKGROUND
    ),
    "constant": Bad(
        np.full(SHAPE, 3, "f4"),
        "the image is constant, all its voxels have the value 3, which leaves no scale to normalise "
        "by",
        SCALE,
    ),
    "all_zero": Bad(
        np.zeros(SHAPE, "f4"),
        "the image is constant, all its voxels have the value 0, which leaves no scale to normalise "
        "by",
        SCALE,
    ),
    "empty_mask": Bad(
        np.zeros(SHAPE, "f4"),
        "the mask 'nonzero' is empty: no voxel of this scan is in it",
        ELSEWHERE,
        {"intensity": "none"},
    ),
    "far_from_mni": Bad(
        lambda path: save(path, voxels(), np.eye(4) + 900 * np.eye(4, k=3)),
        "the mask 'computed' is empty: no voxel of this scan is in it",
        ELSEWHERE,
        {"mask": "computed"},
    ),
    "sheared": Bad(
        patched(280, "<12f", *SHEARED.flat),
        "the axes of its affine are not at right angles (it is sheared)",
        "Give a voxel_size, to have it resampled onto axes that are.",
    ),
    "voxels_of_no_size": Bad(
        patched(84, "<f", 0), "its header gives a voxel size of 2 x 0 x 4 mm", REPAIR
    ),
    "voxels_of_size_nan": Bad(
        patched(84, "<f", np.nan), "its header gives a voxel size of 2 x nan x 4 mm", REPAIR
    ),
    "colours": Bad(
        patched(70, "<h", 128),
        "its voxels are RGB, not real numbers",
        "Save one real value a voxel.",
    ),
    "folder": Bad(
        Path.mkdir, "it is a folder, not a file", "Name the image file in it."
    ),
    "link_to_nowhere": Bad(
        lambda path: path.symlink_to("../.git/annex/objects/MD5E-s9--1"),
        "it is a link to ../.git/annex/objects/MD5E-s9--1, where there is no file",
        "Of a DataLad data set, get it first: datalad get.",
    ),
}  # fmt: skip
by_default = [name for name, bad in BAD.items() if not bad.preparation]
every_bad = pytest.mark.parametrize("name", BAD)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stores in a folder of their own, and paths that are told from here."""
    monkeypatch.setenv("NIDL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("vae.toml").write_text(SPEC)
    return tmp_path / "cache"


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    """Three good scans."""
    return [save(tmp_path / f"scans/good_{i}.nii.gz", voxels(i)) for i in range(3)]


def vae(**params: Any) -> Any:
    """A small model, not yet fitted."""
    small = {"name": "mlp", "params": {"widths": [4]}}
    given = {"latent_dim": 2, "max_epochs": 1, "random_state": 0, **params}
    try:
        return nidl_core.build("vae", encoder=small, decoder=small, **given)
    except nidl_core.NidlError as err:
        pytest.skip(f"other plugins are not installed: {err}")


def fit(*words: object) -> int:
    """`nidl fit` on these data, with these options."""
    vae()  # or skip
    return main(["fit", "vae.toml", "--out", "run", "--data", *map(str, words)])


# A bad file among good ones -----------------------------------------------------------------------


@every_bad
def test_a_bad_file_is_refused_by_name(good: list[Path], name: str) -> None:
    bad = BAD[name]
    path = bad.write(good[0].with_name(f"{name}.nii.gz"))
    with pytest.raises(ScanError) as caught:
        scans([*good, path], bad.preparation)
    assert str(caught.value) == f"{path}: {bad.reason}"
    told = caught.value.name, caught.value.problem, caught.value.remedy
    assert told == (str(path), bad.problem, bad.remedy)


@every_bad
def test_a_bad_file_is_left_out_and_listed(good: list[Path], name: str) -> None:
    bad = BAD[name]
    path = bad.write(good[0].with_name(f"{name}.nii.gz"))
    data = scans([good[0], path, *good[1:]], bad.preparation, skip_bad=True)
    assert data.ids == ["good_0", "good_1", "good_2"] and len(data.report()) == 3
    assert data.cohort.refused == {str(path): bad.reason}
    assert data.notes[-1] == f"left out: {path}: {bad.reason}"
    np.testing.assert_array_equal(data.x[:], scans(good, bad.preparation).x[:])


@pytest.mark.parametrize("name", by_default)
def test_fit_refuses_paths_with_a_bad_file_before_it_trains(good: list[Path], name: str) -> None:
    bad, model = BAD[name], vae()
    path = bad.write(good[0].with_name(f"{name}.nii.gz"))
    with pytest.raises(ScanError) as caught:
        model.fit([*map(str, good), str(path)])
    assert str(caught.value) == f"{path}: {bad.reason}"
    assert not hasattr(model, "input_shape_")


@every_bad
def test_the_command_line_says_it_in_a_line_and_writes_nothing(
    good: list[Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = BAD[name]
    path = bad.write(good[0].with_name(f"{name}.nii.gz"))
    settings = "".join(f"{key} = {value!r}\n" for key, value in bad.preparation.items())
    Path("vae.toml").write_text(f"{SPEC}[data]\n{settings}")
    assert fit(*good, path) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"nidl: ScanError: {path}: {bad.reason}\n")
    assert not Path("run").exists()


def test_the_command_line_leaves_out_what_is_bad_and_lists_it(
    good: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [BAD[name].write(good[0].with_name(f"{name}.nii.gz")) for name in by_default]
    assert fit(*paths, *good, "--skip-bad") == 0
    err = capsys.readouterr().err.splitlines()
    told = [f"nidl: left out: {path}: {BAD[path.name[:-7]].reason}" for path in paths]
    assert sorted(line for line in err if "left out" in line) == sorted(told)
    assert len(told) > 20 and Path("run/model.nidl").exists()


# Files that are not there -------------------------------------------------------------------------


def test_a_missing_file_is_told_with_the_nearest_folder(good: list[Path]) -> None:
    folder = good[0].parent
    near = f"Look into its folder, which is there: {folder}."
    for path, remedy in {
        folder / "gone.nii.gz": near,
        folder / "x/gone.nii.gz": f"The nearest folder that there is: {folder}.",
    }.items():
        for source in (path, [*good, path]):
            with pytest.raises(ScanError) as caught:
                scans(source)
            assert str(caught.value) == f"{path}: there is no such file. {remedy}"
    assert scans([*good, folder / "gone.nii.gz"], skip_bad=True).notes == (
        f"left out: {folder}/gone.nii.gz: there is no such file. {near}",
    )


def test_a_file_that_goes_between_listing_and_reading_is_told(good: list[Path]) -> None:
    cohort = find(good)
    good[1].unlink()
    reason = "the file cannot be read: No such file or directory. Put it back, or leave it out."
    with pytest.raises(ScanError) as caught:
        scans(cohort)
    assert str(caught.value) == f"{good[1]}: {reason}"
    data = scans(cohort, skip_bad=True)
    assert data.ids == ["good_0", "good_2"] and data.cohort.refused == {str(good[1]): reason}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file"
)
def test_a_file_that_may_not_be_read_is_told(good: list[Path]) -> None:
    good[1].chmod(0)
    reason = "the file cannot be read: Permission denied. Check its rights and its disk."
    with pytest.raises(ScanError) as caught:
        scans(good)
    assert str(caught.value) == f"{good[1]}: {reason}"
    assert scans(good, skip_bad=True).cohort.refused == {str(good[1]): reason}
    assert fit(*good) == 1
    good[0].parent.chmod(0)
    with pytest.raises(ScanError) as caught:
        scans(good[0].parent)
    good[0].parent.chmod(0o755)
    assert str(caught.value) == (
        f"{good[0].parent}: the folder cannot be read: permission denied. Ask its owner for the right "
        "to read it."
    )


def test_a_folder_that_may_not_be_read_is_told(
    good: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if str(path) == str(good[0].parent):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)  # root may read every folder
    with pytest.raises(ScanError) as caught:
        scans(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/scans: the folder cannot be read: Permission denied. Ask its owner for the right "
        "to read it, or hand in a glob without it."
    )


def test_a_file_on_a_broken_disk_is_told(good: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.open

    def fails(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == good[1]:
            raise OSError(5, "Input/output error")
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(ScanError) as caught:
        scans(good)
    assert str(caught.value) == (
        f"{good[1]}: the file cannot be read: Input/output error. Check its rights and its disk."
    )


def test_paths_may_have_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    path = save(tmp_path / "Schädel und Hirn/Zoë 头 1.nii.gz", voxels())
    assert scans(f"{tmp_path}/Schädel und Hirn/*.nii.gz").ids == ["Zoë 头 1"]
    path.write_bytes(b"no scan at all")
    with pytest.raises(ScanError) as caught:
        scans(path.parent)
    assert str(caught.value) == (
        f"{path}: it is not a NIfTI image: it begins with b'no scan at a'. {NOT_NIFTI}"
    )


@pytest.mark.parametrize("skip", [(), ("--skip-bad",)])
def test_a_glob_or_folder_without_scans_is_an_error(
    tmp_path: Path, skip: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    glob = f"{tmp_path}/empty/*.nii.gz"
    for source, text in {
        glob: f"no .nii or .nii.gz file matches '{glob}'. The nearest folder that there is, "
        f"{tmp_path}/empty, holds nothing.",
        f"{tmp_path}/empty": f"no .nii or .nii.gz file in the folder {tmp_path}/empty, nor below it. "
        "It holds nothing.",
    }.items():
        with pytest.raises(DataError) as caught:
            scans(source, skip_bad=bool(skip))
        assert str(caught.value) == text
    assert fit(f"{tmp_path}/empty", *skip) == 1
    assert capsys.readouterr().err == f"nidl: DataError: {text}\n"


@pytest.mark.parametrize("found", [False, True])
def test_a_cohort_of_which_no_scan_is_good_is_an_error_that_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], found: bool
) -> None:
    (tmp_path / "a.nii").touch()
    text = (
        "no scan is left, both were refused. a.nii: the file is empty. Copy or download the file "
        f"again. b.nii: there is no such file. Look into its folder, which is there: {tmp_path}."
    )
    if found:  # and refused when it is read
        BAD["text"].write(tmp_path / "b.nii")
        text = f"{text.partition(' b.nii')[0]} b.nii: {BAD['text'].reason}"
    with pytest.raises(DataError) as caught:
        scans(["a.nii", "b.nii"], skip_bad=True)
    assert str(caught.value) == text
    assert fit("a.nii", "b.nii", "--skip-bad") == 1
    assert capsys.readouterr().err == f"nidl: DataError: {text}\n"
    assert not Path("run").exists()


# Tables and participants --------------------------------------------------------------------------


def bids(folder: Path, people: str, rows: str) -> Path:
    for number, person in enumerate(people.split()):
        save(folder / f"sub-{person}/anat/sub-{person}_T1w.nii.gz", voxels(number))
    lines = [f"sub-{row}\t{20 + n}" for n, row in enumerate(rows.split())]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tage", *lines, ""]))
    return folder


def test_two_files_for_one_participant_are_refused(tmp_path: Path) -> None:
    one, two, other = (
        save(tmp_path / f"sub-{name}_T1w.nii.gz", voxels(seed))
        for seed, name in enumerate(("1_run-1", "1_run-2", "2"))
    )
    remedy = "Keep one of them, or choose with a glob or pattern such as '*_run-1_*'."
    reasons = {
        str(one): f"sub-1 has 2 files: this one and {two}. {remedy}",
        str(two): f"sub-1 has 2 files: this one and {one}. {remedy}",
    }
    with pytest.raises(ScanError) as caught:
        scans(tmp_path)
    assert str(caught.value) == f"{one}: {reasons[str(one)]}"
    data = scans(tmp_path, skip_bad=True)
    assert data.ids == ["sub-2"] and data.cohort.refused == reasons
    assert scans(tmp_path, pattern="*_run-1_*").ids == ["sub-1"]  # the remedy works
    del other


def test_sessions_of_one_participant_are_scans_of_their_own(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"sub-1_ses-{s}_T1w.nii.gz", voxels(s)) for s in (1, 2)]
    assert scans(tmp_path).ids == ["sub-1_ses-1", "sub-1_ses-2"]
    table = pd.DataFrame({"participant_id": ["sub-1", "sub-1"], "path": paths})
    assert scans(table).ids == ["sub-1_ses-1", "sub-1_ses-2"]
    for path, name in zip(paths, "ab", strict=True):
        path.rename(tmp_path / f"{name}.nii.gz")
    with pytest.raises(ScanError) as caught:
        scans(table.assign(path=["a.nii.gz", "b.nii.gz"]))
    assert str(caught.value) == (
        "a.nii.gz: sub-1 has 2 files: this one and b.nii.gz. Keep one row, or give each its session "
        "in a column session_id."
    )


def test_rows_without_a_file_are_refused(good: list[Path], tmp_path: Path) -> None:
    table = pd.DataFrame({"path": [*map(str, good), np.nan, "gone.nii.gz"], "age": range(5)})
    csv = tmp_path / "scans/table.csv"
    table.assign(path=[*(path.name for path in good), "", "gone.nii.gz"]).to_csv(csv, index=False)
    fill, none = "Fill it in, or remove the row", "no file in the column 'path'"
    for source, name, first, second, gone, root in (
        (table, "the table", "row 3", "row 3", "gone.nii.gz", tmp_path),
        (csv, csv, "line 5", "line 5", csv.with_name("gone.nii.gz"), csv.parent),
    ):
        with pytest.raises(ScanError) as caught:
            scans(source)
        assert str(caught.value) == f"{name}: 1 of 5 rows have {none}: {first}. {fill}s."
        data = scans(source, skip_bad=True)
        assert data.ids == ["good_0", "good_1", "good_2"]
        assert list(data.covariates["age"]) == [0, 1, 2]
        assert data.cohort.refused == {
            f"{name}, {second}": f"it has {none}. {fill}.",
            str(gone): f"there is no such file. Look into its folder, which is there: {root}. "
            f"Relative paths in a table start at {root}, or at root=... .",
        }


def test_relative_paths_of_a_table_start_at_its_folder_or_at_root(
    good: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "lists").mkdir()
    csv = tmp_path / "lists/table.csv"
    csv.write_text("path\ngood_0.nii.gz\ngood_1.nii.gz\n")
    with pytest.raises(ScanError) as caught:
        scans(csv)
    assert str(caught.value) == (
        f"{tmp_path}/lists/good_0.nii.gz: there is no such file. Look into its folder, which is there: "
        f"{tmp_path}/lists. Relative paths in a table start at {tmp_path}/lists, or at root=... ."
    )
    assert scans(csv, root=good[0].parent).ids == ["good_0", "good_1"]


def test_rows_of_participants_without_an_image_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bids(tmp_path / "study", "01 03", "01 02 03")
    table = folder / "participants.tsv"
    text = f"{table}: 1 of 3 rows have no image: sub-02. Remove the rows, or add the images."
    with pytest.raises(ScanError) as caught:
        scans(folder)
    assert str(caught.value) == text
    assert fit(folder) == 1
    assert capsys.readouterr().err == f"nidl: ScanError: {text}\n"
    data = scans(folder, skip_bad=True)
    assert data.ids == ["sub-01", "sub-03"] and list(data.covariates["age"]) == [20, 22]
    left = f"{table}, sub-02: the row has no image. Remove the row, or add the image."
    assert data.notes == (f"left out: {left}",)
    assert fit(folder, "--skip-bad") == 0
    assert capsys.readouterr().err.startswith(f"nidl: left out: {left}\n")


def test_images_without_a_row_have_no_covariates_or_are_refused(tmp_path: Path) -> None:
    folder = bids(tmp_path / "study", "01 02", "01")
    table, file = folder / "participants.tsv", folder / "sub-02/anat/sub-02_T1w.nii.gz"
    data = scans(folder)
    assert data.covariates["age"].isna().tolist() == [False, True]
    assert data.notes == (
        f"1 of 2 images have no row in {table}: {file.name}. Their covariates are missing.",
    )
    text = f"it has no row in {table}. Add the row, or remove the file."
    with pytest.raises(ScanError) as caught:
        scans(folder, strict=True)
    assert str(caught.value) == f"{file}: {text}"
    data = scans(folder, strict=True, skip_bad=True)
    assert data.ids == ["sub-01"] and data.cohort.refused == {str(file): text}


def test_a_table_of_other_people_is_told_with_those_of_the_images(tmp_path: Path) -> None:
    folder = bids(tmp_path / "study", "01 02", "11 12")
    table = folder / "participants.tsv"
    with pytest.raises(ScanError) as caught:
        scans(folder)
    assert str(caught.value) == (
        f"{table}: 2 of 2 rows have no image: sub-11, sub-12; there are images of sub-01, sub-02. "
        "Remove the rows, or add the images."
    )


# What looks odd, and is good ----------------------------------------------------------------------

TRUE = {
    "int16 with scale factors": ("<", np.int16),
    "big-endian float": (">", np.float32),
    "big-endian int16 with scale factors": (">", np.int16),
    "bytes with scale factors": ("<", np.uint8),
}


@pytest.mark.parametrize("name", TRUE)
def test_stored_numbers_are_read_as_what_they_stand_for(tmp_path: Path, name: str) -> None:
    order, dtype = TRUE[name]
    image = nibabel.Nifti1Image(voxels(), np.eye(4), nibabel.Nifti1Header(endianness=order))
    image.set_data_dtype(dtype)
    nibabel.save(image, tmp_path / "a.nii.gz")
    stored = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    slope = struct.unpack_from(f"{order}f", stored, 112)[0]  # scl_slope
    step = slope if np.dtype(dtype).kind in "iu" else 0.0
    assert step < 1 and (step > 0) == (dtype != np.float32)
    data = scans([tmp_path / "a.nii.gz"], {"intensity": "none"})
    assert data.x[0].dtype == np.float32
    np.testing.assert_allclose(data.x[0][0], voxels(), rtol=1e-6, atol=0.51 * step)


def test_oblique_scans_are_taken_and_sheared_ones_only_to_be_resampled(tmp_path: Path) -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    oblique = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) * [2, 2, 2, 1]
    data = scans([save(tmp_path / "oblique.nii.gz", voxels(), oblique)])
    np.testing.assert_allclose(data.record(0).affine, oblique, atol=1e-6)
    assert data.record(0).resampled_shape is None  # its voxels are its own
    path = BAD["sheared"].write(tmp_path / "sheared.nii.gz")
    data = scans([path], Preparation(voxel_size=2))
    axes = data.record(0).affine[:3, :3] / 2
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert "sheared axes straightened" in data.report()[0]


# Files that change --------------------------------------------------------------------------------

CHANGED = "the file changed after it was prepared. Call scans(...) again: it is prepared anew."


class Rewrites(Callback):  # type: ignore[misc]
    """Another scan takes the place of a file after the first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 0:
            save(self.path, voxels(9))


def test_a_file_that_changes_between_epochs_changes_no_fit_and_stops_the_next(
    good: list[Path],
) -> None:
    expected = vae(max_epochs=3).fit(scans(good)).transform(scans(good))
    data = scans(good)
    model = vae(max_epochs=3, callbacks=[Rewrites(good[1])]).fit(data)
    kept = model.transform(torch.from_numpy(data.x[:])).numpy()
    np.testing.assert_array_equal(kept, expected)  # all epochs saw what was prepared
    uses = (model.transform, model.score, lambda x: model.transform(DataLoader(x)), model.fit)
    for use in uses:
        with pytest.raises(ScanError) as caught:
            use(data)
        assert str(caught.value) == f"{good[1]}: {CHANGED}"
    again = scans(good)
    assert again.store.made == 1  # the others are kept
    np.testing.assert_array_equal(again.x[1], Preparation().prepare(nibabel.load(good[1])).array)
    assert model.fit(again).transform(again).shape == (3, 2)


def test_a_changed_file_is_prepared_anew_by_the_next_process(tmp_path: Path) -> None:
    good = [tmp_path / f"{i}.nii" for i in range(3)]

    def written(number: int, seed: int) -> None:
        """Always of the same size, and as old, as after `rsync --times` or from a backup."""
        os.utime(save(good[number], voxels(seed)), (10**9, 10**9))

    for number in range(3):
        written(number, number)
    script = (
        "import sys; from nidl_neuro import scans; data = scans(sys.argv[1:], progress=False); "
        "print(data.store.made, *(repr(float(x)) for x in data.x[:][:, 0, 0, 0, 0]))"
    )

    def told() -> list[float]:
        words = [sys.executable, "-c", script, *map(str, good)]
        answer = subprocess.run(words, capture_output=True, text=True, check=True)
        return [float(word) for word in answer.stdout.split()]

    first = told()
    before = good[1].stat()
    written(1, 9)
    after = good[1].stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    second = told()
    assert (first[0], second[0]) == (3, 1)
    assert second[1] == first[1] and second[3] == first[3]
    true = Preparation().prepare(nibabel.load(good[1])).array[0, 0, 0, 0]
    assert second[2] == pytest.approx(float(true)) and second[2] != first[2]


def test_a_file_that_changes_while_it_is_prepared_is_refused(
    good: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Preparation.prepare

    def slow(self: Preparation, image: Any, name: str = "") -> Any:
        made = prepare(self, image, name)
        if name == str(good[1]):
            save(good[1], voxels(np.random.default_rng().integers(10, 10**6)))
        return made

    monkeypatch.setattr(Preparation, "prepare", slow)
    reason = (
        "the file changed while it was prepared. Wait until what writes it has finished, and run "
        "again."
    )
    with pytest.raises(ScanError) as caught:
        scans(good)
    assert str(caught.value) == f"{good[1]}: {reason}"
    data = scans(good, skip_bad=True)
    assert data.ids == ["good_0", "good_2"] and data.cohort.refused == {str(good[1]): reason}
    monkeypatch.setattr(Preparation, "prepare", prepare)
    true = prepare(Preparation(), nibabel.load(good[1])).array
    np.testing.assert_array_equal(scans(good).x[1], true)
