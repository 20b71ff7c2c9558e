"""What names of files and folders say, and which folders count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nidl_neuro.errors import ScanError
from nidl_neuro.paths import common_folder, entities
from nidl_neuro.reading import find


def touched(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def table(folder: Path, paths: list[Path]) -> str:
    frame = pd.DataFrame({"path": [str(path.relative_to(folder)) for path in paths]})
    frame.to_csv(folder / "scans.csv", index=False)
    return str(folder / "scans.csv")


SOURCES: dict[str, Callable[[Path, list[Path]], Any]] = {
    "folder": lambda folder, paths: folder,
    "glob": lambda folder, paths: f"{folder}/**/*.nii.gz",
    "list": lambda folder, paths: paths,
    "list of a glob": lambda folder, paths: [f"{folder}/**/*.nii.gz"],
    "frame": lambda folder, paths: pd.DataFrame({"path": list(map(str, paths))}),
    "table": table,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_folder_above_the_search_says_nothing_of_its_scans(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "sub-cortical" / "ses-old"
    paths = touched(folder, "in/a.nii.gz", "in/b.nii.gz")
    cohort = find(SOURCES[kind](folder, paths))
    assert [scan.entities for scan in cohort] == [{}, {}]
    assert cohort.ids == ["a", "b"]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_folder_below_the_search_says_whose_its_scans_are(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "sub-cortical"
    paths = touched(folder, "sub-01/anat/T1w.nii.gz", "sub-02/anat/T1w.nii.gz")
    cohort = find(SOURCES[kind](folder, paths))
    assert cohort.ids == ["sub-01", "sub-02"]
    assert [scan.entities for scan in cohort] == [{"sub": "01"}, {"sub": "02"}]


@pytest.mark.parametrize("kind", SOURCES)
def test_who_a_scan_is_of_does_not_depend_on_who_else_is_found(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "sub-cortical"
    paths = touched(folder, "sub-01/anat/T1w.nii.gz")
    assert find(SOURCES[kind](folder, paths)).ids == ["sub-01"]


def test_two_scans_in_the_folder_of_one_participant_are_refused(tmp_path: Path) -> None:
    touched(tmp_path, "sub-01/a/T1w.nii.gz", "sub-01/b/T1w.nii.gz")
    for source in (tmp_path, f"{tmp_path}/*/*/*.nii.gz"):
        with pytest.raises(ScanError, match="sub-01 has 2 files: this one and "):
            find(source)


def test_bids_folders_say_whose_their_images_are(tmp_path: Path) -> None:
    folder = tmp_path / "sub-cortical"
    touched(folder, "sub-01/anat/T1w.nii.gz", "sub-02/anat/T1w.nii.gz", "other/anat/T1w.nii.gz")
    text = "participant_id\tage\nsub-02\t30\nsub-01\t20\n"
    (folder / "participants.tsv").write_text(text)
    cohort = find(folder)
    assert cohort.ids == ["sub-01", "sub-02"] and list(cohort.covariates["age"]) == [20, 30]


def test_the_name_of_a_file_goes_before_those_of_its_folders() -> None:
    path = Path("d/sub-1/ses-2/sub-3_T1w.nii")
    assert entities(path, Path("d")) == {"sub": "3", "ses": "2"}
    assert entities(path, Path("d/sub-1/ses-2")) == entities(path) == {"sub": "3"}
    assert entities(path, Path("elsewhere")) == {"sub": "3"}


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["/d/x/a.nii"], "/"),
        (["/d/x/*.nii"], "/d/x"),
        (["/d/x/a.nii", "/d/y/a.nii"], "/d"),
        (["/d/sub-*/anat/*.nii"], "/d"),
        (["/d/x/**/a.nii", "/d/[xy]/a.nii"], "/d"),
        ([], None),
    ],
)
def test_the_common_folder_ends_before_the_first_wildcard(
    names: list[str], folder: str | None
) -> None:
    found = common_folder(map(Path, names))
    assert found == (None if folder is None else Path(folder).absolute())
