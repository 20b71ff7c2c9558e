"""find: whatever a person has of scans becomes a cohort, or an error that says what to do."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from nidl_core.errors import DataError, DataTypeError
from nidl_neuro.errors import ScanError
from nidl_neuro.reading import Cohort, find, is_source

SHAPE = (3, 4, 5)


def image(value: float = 0.0, shape: tuple[int, ...] = SHAPE) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.full(shape, value, "f4"), np.eye(4))


def write(folder: Path, *names: str) -> list[Path]:
    """Images by these names; the first voxel of each is its number."""
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image(number), path)
    return paths


def values(cohort: Cohort) -> list[int]:
    return [int(scan.load().get_fdata()[0, 0, 0]) for scan in cohort]


def bids(
    folder: Path, *people: str, table: str = "participant_id\tage\nsub-01\t20\nsub-02\t30\n"
) -> Path:
    write(folder, *[f"sub-{person}/anat/sub-{person}_T1w.nii.gz" for person in people])
    (folder / "participants.tsv").write_text(table)
    return folder


def raised(kind: type[Exception], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(kind) as caught:
        find(*args, **kwargs)
    return str(caught.value)


# Paths --------------------------------------------------------------------------------------------


def test_a_list_keeps_its_order(tmp_path: Path) -> None:
    paths = write(tmp_path, "b.nii.gz", "a.nii")
    cohort = find([paths[0], str(paths[1])])
    assert cohort.ids == ["b", "a"] and values(cohort) == [0, 1]
    assert list(cohort.covariates.index) == cohort.ids and cohort.covariates.shape == (2, 0)


def test_relative_paths_are_below_the_root(tmp_path: Path) -> None:
    write(tmp_path, "a.nii", "x/b.nii")
    assert find(["a.nii", "x/*.nii"], root=tmp_path).ids == ["a", "b"]
    assert find("*.nii", root=tmp_path).ids == ["a"]


def test_a_glob_is_sorted_as_a_person_would(tmp_path: Path) -> None:
    write(tmp_path, "s10.nii.gz", "s2.nii.gz", "s1.nii", "deep/er/s3.nii.gz")
    (tmp_path / "notes.txt").write_text("x")
    assert find(str(tmp_path / "*.nii.gz")).ids == ["s2", "s10"]
    assert find(tmp_path / "**" / "*.nii.gz").ids == ["s3", "s2", "s10"]
    cohort = find(str(tmp_path / "s*")), find(f"{tmp_path}/*")
    assert [c.ids for c in cohort] == [["s1", "s2", "s10"]] * 2
    assert cohort[0].notes == ()
    assert cohort[1].notes == (f"2 of what '{tmp_path}/*' matches are no .nii or .nii.gz files",)


def test_a_file_may_be_named_like_a_glob(tmp_path: Path) -> None:
    write(tmp_path, "a[1].nii", "a1.nii")
    assert find(str(tmp_path / "a[1].nii")).ids == ["a[1]"]


def test_a_glob_without_a_match_says_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, "a.nii", "b.nii", "c.nii", "d.nii")
    assert raised(DataError, f"{tmp_path}/x/y/*.nii.gz") == (
        f"no .nii or .nii.gz file matches '{tmp_path}/x/y/*.nii.gz'. The nearest folder that there is, "
        f"{tmp_path}, holds a.nii, b.nii, c.nii and 1 more."
    )
    (tmp_path / "notes.txt").write_text("x")
    assert "'; it matches notes.txt. The" in raised(DataError, f"{tmp_path}/*.txt*")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    text = f"no .nii or .nii.gz file in the folder {tmp_path}, nor below it. It holds "
    assert raised(DataError, tmp_path) == f"{text}nothing."
    (tmp_path / "a.npy").write_text("x")
    assert raised(DataError, tmp_path) == f"{text}a.npy."


def test_a_folder_is_searched_below_without_hidden_files_and_derivatives(tmp_path: Path) -> None:
    write(tmp_path, "b/x.nii.gz", "a.nii", "derivatives/x.nii", ".git/y.nii", "b/._x.nii.gz")
    assert find(tmp_path).ids == ["a", "x"]
    assert find(str(tmp_path), pattern="*.gz").ids == ["x"]


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    write(tmp_path, "one/t1.nii", "two/t1.nii")
    assert find(tmp_path).ids == ["one/t1", "two/t1"]
    write(tmp_path, "two/t1.nii.gz")
    assert find(tmp_path).ids == ["one/t1.nii", "two/t1.nii", "two/t1.nii.gz"]


def test_entities_are_kept_as_identifiers(tmp_path: Path) -> None:
    write(tmp_path, "sub-01_ses-2_acq-x_T1w.nii", "sub-02/ses-b/anat/t1.nii")
    cohort = find(tmp_path)
    assert cohort.ids == ["sub-01_ses-2", "sub-02_ses-b"]
    assert cohort[0].entities == {"sub": "01", "ses": "2", "acq": "x"}
    assert cohort.identifiers.loc["sub-02_ses-b"].dropna().to_dict() == {"sub": "02", "ses": "b"}


# Images in memory, 4-D ----------------------------------------------------------------------------


def test_images_in_memory_are_numbered_and_come_back(tmp_path: Path) -> None:
    cohort = find([image(3), image(4), image(5, (*SHAPE, 1))])
    assert cohort.ids == ["image-0", "image-1", "image-2"] and values(cohort) == [3, 4, 5]
    assert find(image(7)).ids == ["image-0"]


@pytest.mark.parametrize("form", ["image", "a.nii", "a.nii.gz"])
def test_a_4d_image_alone_is_one_scan_a_volume(tmp_path: Path, form: str) -> None:
    four = nib.Nifti1Image(np.broadcast_to(np.arange(11, dtype="f4"), (*SHAPE, 11)), np.eye(4))
    if form != "image":
        nib.save(four, tmp_path / form)
    cohort = find(four if form == "image" else tmp_path / form)
    assert values(cohort) == list(range(11))
    name = "volume" if form == "image" else "a_volume"
    assert cohort.ids[0] == f"{name}-00" and cohort.ids[10] == f"{name}-10"
    assert len({(scan.path, scan.content()) for scan in cohort}) == 11


def test_volumes_keep_the_entities_of_their_file(tmp_path: Path) -> None:
    nib.save(image(0, (*SHAPE, 2)), tmp_path / "sub-01_T1w.nii")
    cohort = find(tmp_path / "sub-01_T1w.nii")
    assert cohort.ids == ["sub-01_T1w_volume-0", "sub-01_T1w_volume-1"]
    assert cohort[1].entities == {"sub": "01"}


def test_a_4d_file_in_a_list_is_refused_when_it_is_read(tmp_path: Path) -> None:
    nib.save(image(0, (*SHAPE, 2)), tmp_path / "a.nii")
    with pytest.raises(ScanError, match="Hand in the path of this file alone to take each volume"):
        find([tmp_path / "a.nii"])[0].load()
    with pytest.raises(ScanError, match=r"image-0 \(in memory\): the image is 4-D"):
        find([image(0, (*SHAPE, 2))])[0].load()


def test_scans_cross_process_borders_one_volume_at_a_time() -> None:
    four = nib.Nifti1Image(np.random.default_rng(0).random((20, 20, 20, 30)), np.eye(4))
    scan = find(four)[7]
    packed = pickle.dumps(scan)
    restored = pickle.loads(packed)
    assert len(packed) < 2 * 20**3 * 8
    assert np.array_equal(restored.load().get_fdata(), four.get_fdata()[..., 7])
    assert (restored.id, restored.content()) == (scan.id, scan.content())


def test_the_content_of_an_image_in_memory_tells_voxels_and_grids_apart() -> None:
    moved = nib.Nifti1Image(np.zeros(SHAPE, "f4"), np.diag([2.0, 1, 1, 1]))
    contents = [find(one)[0].content() for one in (image(0), image(1), moved, image(0))]
    assert contents[0] == contents[3] and len(set(contents)) == 3


# Tables -------------------------------------------------------------------------------------------


def test_a_table_gives_covariates_in_its_order(tmp_path: Path) -> None:
    write(tmp_path, "x/a.nii", "x/b.nii")
    (tmp_path / "x/t.csv").write_text("age,file\n30,b.nii\n20,a.nii\n")
    cohort = find(tmp_path / "x/t.csv")
    assert cohort.ids == ["b", "a"] and values(cohort) == [1, 0]
    assert cohort.covariates.to_dict("list") == {"age": [30, 20]}


def test_a_data_frame_is_read_like_its_file(tmp_path: Path) -> None:
    paths = write(tmp_path, "a.nii", "b.nii")
    table = pd.DataFrame(
        {"subject": ["007", "8"], "scan": paths, "group": ["x", "y"]}, index=[5, 9]
    )
    cohort = find(table)
    assert cohort.ids == ["007", "8"] and list(cohort.covariates["group"]) == ["x", "y"]
    assert cohort[0].entities == {"sub": "007"}
    table.assign(scan=["a.nii", "b.nii"]).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    assert find(tmp_path / "t.tsv").ids == ["007", "8"]  # not 7
    assert find(table.assign(scan=["a.nii", "b.nii"]), root=tmp_path).ids == ["007", "8"]


def test_a_participant_may_come_once_a_session(tmp_path: Path) -> None:
    write(tmp_path, "a.nii", "b.nii")
    table = pd.DataFrame(
        {"participant_id": ["sub-1"] * 2, "session": [1, 2], "path": ["a.nii", "b.nii"]}
    )
    assert find(table, root=tmp_path).ids == ["sub-1_ses-1", "sub-1_ses-2"]


def test_the_path_column_is_found_by_content_and_name(tmp_path: Path) -> None:
    write(tmp_path, "a.nii", "m.nii")
    table = pd.DataFrame({"t1": ["a.nii"], "mask": ["m.nii"], "scan": ["scanner A"]})
    assert raised(DataError, table, root=tmp_path) == (
        "2 columns of the table lead to images: t1, mask. Say which one: path_column='t1'."
    )
    assert find(table, root=tmp_path, path_column="mask").ids == ["m"]
    assert find(table.rename(columns={"t1": "Path"}), root=tmp_path).ids == ["a"]
    assert raised(DataError, table, path_column="t2") == (
        "the table has no column 't2'. Its columns: t1, mask, scan."
    )
    assert raised(DataError, table[["scan"]]) == (
        "no column of the table leads to .nii or .nii.gz files. Its columns: scan. Add one with the "
        "paths, or say path_column=... ."
    )


def test_rows_without_a_file_are_refused_or_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.nii")
    path = tmp_path / "t.csv"
    path.write_text("id,path,age\n1,a.nii,20\n2,,30\n3,gone.nii,40\n")
    assert raised(ScanError, path) == (
        f"{path}: 1 of 3 rows have no file in the column 'path': line 3. Fill it in, or remove the rows."
    )
    cohort = find(path, skip_bad=True)
    assert cohort.ids == ["a"] and list(cohort.covariates["age"]) == [20]
    assert cohort.refused == {
        f"{path}, line 3": "it has no file in the column 'path'. Fill it in, or remove the row.",
        str(tmp_path / "gone.nii"): "there is no such file. Look into its folder, which is there: "
        f"{tmp_path}. Relative paths in a table start at {tmp_path}, or at root=... .",
    }


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert raised(DataError, path) == f"there is no table {path}."
    path.write_text("")
    assert raised(DataError, path).startswith(f"the table {path} cannot be read: ")
    path.write_text("path\n")
    assert raised(DataError, path) == f"the table {path} has no rows."


# BIDS ---------------------------------------------------------------------------------------------


def test_a_bids_folder_gives_raw_anatomy_with_its_rows(tmp_path: Path) -> None:
    folder = bids(tmp_path, "02", "01")
    write(
        folder,
        "derivatives/prep/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/func/sub-01_task-x_bold.nii.gz",
    )
    for source in (folder, str(folder / "participants.tsv")):
        cohort = find(source)
        assert cohort.ids == ["sub-01", "sub-02"] and values(cohort) == [1, 0]
        assert list(cohort.covariates["age"]) == [20, 30]
        assert cohort[0].entities == {"sub": "01"} and cohort.notes == ()


def test_derivatives_come_when_asked_for(tmp_path: Path) -> None:
    folder = bids(tmp_path, "01", "02")
    write(
        folder, *[f"derivatives/prep/sub-{i}/anat/sub-{i}_desc-x_T1w.nii.gz" for i in ("01", "02")]
    )
    assert find(folder, derivatives="prep")[0].entities == {"sub": "01", "desc": "x"}
    assert (
        raised(DataError, folder, derivatives="no")
        == f"there is no folder {folder}/derivatives/no."
    )


def test_sessions_share_the_row_of_their_participant_or_have_their_own(tmp_path: Path) -> None:
    folder = tmp_path
    write(folder, *[f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii" for s in (1, 2)])
    (folder / "participants.tsv").write_text("participant_id\tage\nsub-01\t20\n")
    assert list(find(folder).covariates["age"]) == [20, 20]
    (folder / "participants.tsv").write_text(
        "participant_id\tsession_id\tage\nsub-01\tses-1\t20\nsub-01\tses-2\t21\n"
    )
    cohort = find(folder)
    assert cohort.ids == ["sub-01_ses-1", "sub-01_ses-2"]
    assert list(cohort.covariates["age"]) == [20, 21]


def test_flat_folders_with_a_participants_table_work_too(tmp_path: Path) -> None:
    write(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-02\t30\nsub-01\t20\n")
    assert list(find(tmp_path).covariates["age"]) == [20, 30]


def test_several_kinds_of_images_are_not_mixed(tmp_path: Path) -> None:
    folder = bids(tmp_path, "01", "02")
    write(folder, "sub-01/anat/sub-01_T2w.nii.gz")
    assert raised(DataError, folder) == (
        f"the BIDS folder {folder} has images of several kinds: T1w, T2w. Say which: "
        "pattern='*_T1w.nii.gz'."
    )
    assert find(folder, pattern="*_T1w.nii.gz").ids == ["sub-01", "sub-02"]


def test_bids_rows_without_an_image_are_refused_or_left_out(tmp_path: Path) -> None:
    folder = bids(tmp_path, "02")
    assert raised(ScanError, folder) == (
        f"{folder}/participants.tsv: 1 of 2 rows have no image: sub-01. Remove the rows, or add the "
        "images."
    )
    cohort = find(folder, skip_bad=True)
    text = "the row has no image. Remove the row, or add the image."
    assert cohort.ids == ["sub-02"]
    assert cohort.refused == {f"{folder}/participants.tsv, sub-01": text}
    assert list(cohort.covariates["age"]) == [30]


def test_bids_files_without_a_row_are_noted_or_strictly_refused(tmp_path: Path) -> None:
    folder = bids(tmp_path, "01", "02", "03")
    cohort = find(folder)
    assert cohort.ids == ["sub-01", "sub-02", "sub-03"]
    assert cohort.covariates["age"].isna().tolist() == [False, False, True]
    table, file = folder / "participants.tsv", folder / "sub-03/anat/sub-03_T1w.nii.gz"
    assert cohort.notes == (
        f"1 of 3 images have no row in {table}: sub-03_T1w.nii.gz. Their covariates are missing.",
    )
    text = f"it has no row in {table}. Add the row, or remove the file."
    assert raised(ScanError, folder, strict=True) == f"{file}: {text}"
    cohort = find(folder, strict=True, skip_bad=True)
    assert cohort.ids == ["sub-01", "sub-02"] and cohort.refused == {str(file): text}


def test_participants_tables_that_do_not_identify_are_refused(tmp_path: Path) -> None:
    folder = bids(tmp_path, "01", table="name\tage\nx\t1\n")
    assert raised(DataError, folder) == (
        "participants.tsv has no column participant_id. Its columns: name, age."
    )
    bids(tmp_path, "01", table="participant_id\nsub-01\n01\n")
    assert raised(DataError, folder) == "participants.tsv has two rows for sub-01. Keep one."


# What is bad about a cohort -----------------------------------------------------------------------


def test_two_files_for_one_participant_are_refused(tmp_path: Path) -> None:
    a, b, c = write(tmp_path, "sub-1_run-1_T1w.nii", "sub-1_run-2_T1w.nii", "sub-2_T1w.nii")
    text = "sub-1 has 2 files: this one and "
    remedy = "Keep one of them, or choose with a glob or pattern such as '*_run-1_*'."
    assert raised(ScanError, [a, b, c]) == f"{a}: {text}{b}. {remedy}"
    cohort = find([a, b, c], skip_bad=True)
    assert cohort.ids == ["sub-2"]
    assert cohort.refused == {str(a): f"{text}{b}. {remedy}", str(b): f"{text}{a}. {remedy}"}


@pytest.mark.parametrize(
    ("names", "choice"),
    [
        (
            ("sub-1_T1w.nii.gz", "sub-1_T2w.nii.gz"),
            ", or choose with a glob or pattern such as '*_T1w.nii.gz'",
        ),
        (
            ("sub-1_acq-a_T1w.nii", "sub-1_acq-b_T1w.nii"),
            ", or choose with a glob or pattern such as '*_acq-a_*'",
        ),
        (("sub-1/x/T1w.nii", "sub-1/y/T1w.nii", "sub-2/T1w.nii"), ""),
    ],
)
def test_what_tells_the_files_of_a_participant_apart_is_proposed(
    tmp_path: Path, names: tuple[str, ...], choice: str
) -> None:
    assert raised(ScanError, write(tmp_path, *names)).endswith(f". Keep one of them{choice}.")


def test_two_rows_for_one_participant_need_a_session(tmp_path: Path) -> None:
    paths = write(tmp_path, "a.nii", "b.nii")
    table = pd.DataFrame({"participant_id": ["sub-1", "sub-1"], "path": paths})
    assert raised(ScanError, table) == (
        f"{paths[0]}: sub-1 has 2 files: this one and {paths[1]}. Keep one row, or give each its "
        "session in a column session_id."
    )


def test_a_file_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "a.nii")
    os.symlink(path, tmp_path / "b.nii")
    for again in (path, tmp_path / "b.nii"):
        text = "the file is listed twice. Remove one of the two."
        assert raised(ScanError, [path, again]) == f"{again}: {text}"
        cohort = find([path, again], skip_bad=True)
        assert cohort.ids == ["a"] and cohort.refused == {f"{again} (again)": text}


def test_folders_in_a_list_or_behind_a_glob_are_searched(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sub-2/anat/sub-2_T1w.nii",
        "sub-2/anat/sub-2_T2w.nii",
        "sub-10/anat/sub-10_T1w.nii",
    )
    folders = [tmp_path / "sub-2", tmp_path / "sub-10"]
    for source in (folders, f"{tmp_path}/sub-*", [f"{tmp_path}/sub-2", f"{tmp_path}/sub-1*"]):
        assert is_source(source)
        assert find(source, pattern="*_T1w.nii").ids == ["sub-2", "sub-10"]
        assert "sub-2 has 2 files" in raised(DataError, source)
    assert "no .nii or .nii.gz file" in raised(DataError, f"{tmp_path}/sub-3*")


def test_missing_and_empty_files_are_refused_before_any_is_read(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "a.nii")
    (tmp_path / "empty.nii").touch()
    (tmp_path / "folder.nii").mkdir()
    bad = [tmp_path / "empty.nii", tmp_path / "gone.nii", tmp_path / "folder.nii"]
    for one in bad:
        assert raised(ScanError, [path, one]).startswith(f"{one}: ")
    cohort = find([*bad, path], skip_bad=True)
    assert cohort.ids == ["a"] and list(cohort.refused) == [str(one) for one in bad]
    assert raised(DataError, bad, skip_bad=True) == (
        f"no scan is left, all 3 were refused. {bad[0]}: the file is empty. Copy or download the file "
        f"again. {bad[1]}: there is no such file. Look into its folder, which is there: {tmp_path}. "
        f"{bad[2]}: it is a folder, not a file. Name the image file in it."
    )
    assert raised(DataError, [f"gone{i}.nii" for i in range(9)], skip_bad=True).endswith(
        " And 4 more."
    )


def test_refusals_of_later_steps_join_the_cohorts_own(tmp_path: Path) -> None:
    cohort = find([*write(tmp_path, "a.nii", "b.nii"), tmp_path / "gone.nii"], skip_bad=True)
    rest = cohort.without({"a": "it is constant"})
    assert rest.ids == ["b"] and list(rest.covariates.index) == ["b"]
    assert list(rest.refused) == [str(tmp_path / "gone.nii"), "a"]
    assert cohort.take([1, 0]).ids == ["b", "a"]


@pytest.mark.parametrize("source", [[], "", 3, [1, 2], np.zeros((2, 3)), None], ids=repr)
def test_what_is_no_source_is_refused_in_words(source: Any) -> None:
    assert "Hand in paths to .nii or .nii.gz files" in raised(DataTypeError, source)


def test_is_source_says_yes_to_scans_only(tmp_path: Path) -> None:
    paths = write(tmp_path, "a.nii.gz")
    (tmp_path / "t.csv").write_text("path\na.nii.gz\n")
    (tmp_path / "numbers.csv").write_text("x,y\n1,2\n")
    table = pd.DataFrame({"path": paths, "age": [1]})
    yes = [
        *(paths, paths[0], str(paths[0]), "gone/x.nii", ["gone.nii"], (paths[0],), "x/**/*.nii.gz"),
        *(tmp_path, str(tmp_path), f"{tmp_path}/*", f"{tmp_path}/**"),
        *(tmp_path / "t.csv", tmp_path / "numbers.csv"),  # whose columns `find` tells
        *(image(), [image()], table, find(paths)),
    ]
    no = [
        *(
            "x.npy",
            Path("x.npy"),
            "*.npy",
            ["x.npy"],
            [1.0, 2.0],
            [[1, 2]],
            [],
            "",
            "word",
            None,
            3,
        ),
        *(np.zeros((2, 3)), torch.zeros(2, 3), [np.zeros(3)], {"a": 1}, "gone.csv", "x" * 5000),
        *(table[["age"]], pd.DataFrame({"x": ["a", "b"]}), b"a.nii"),
    ]
    assert [x for x in yes if not is_source(x)] == []
    assert [x for x in no if is_source(x)] == []
