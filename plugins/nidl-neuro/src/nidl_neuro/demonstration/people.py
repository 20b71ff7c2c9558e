"""The people of the demo as files: folders of scans to learn from, held out, and with lesions.

All are of one synthetic cohort, so that nobody is in two folders and no id is given twice.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nidl_core.errors import DataError
from nidl_neuro.datasets import SyntheticCohort, synthetic_cohort
from nidl_neuro.replacing import replacing
from nidl_neuro.synthetic.table import described
from nidl_neuro.workers import mapped

TRAIN, HELD_OUT, LESIONED = "train", "held-out", "lesioned"
_SETTINGS = "made-with.json"  # "whole" once all is written
_VERSION = 1  # of what the files hold


@dataclass(frozen=True)
class People:
    """Who is to be there. Voxels are isotropic, the grid covers 168 x 192 x 168 mm."""

    train: int
    held_out: int
    lesioned: int
    size: tuple[int, int, int]
    seed: int

    def cohort(self, lesions: float) -> SyntheticCohort:
        """All of them, those with a lesion by this probability."""
        total = self.train + self.held_out + self.lesioned
        return synthetic_cohort(total, size=self.size, seed=self.seed, lesions=lesions)

    def folders(self) -> dict[str, tuple[range, float]]:
        """Folder -> the people in it, and with what probability they have a lesion."""
        ends = np.cumsum([0, self.train, self.held_out, self.lesioned]).tolist()
        parts = [range(start, stop) for start, stop in itertools.pairwise(ends)]
        return {TRAIN: (parts[0], 0.0), HELD_OUT: (parts[1], 0.0), LESIONED: (parts[2], 1.0)}


def write_people(people: People, folder: Path) -> bool:
    """Write everyone below `folder`, as BIDS has it, by several processes where it is worth it.

    False if all were there already, from an earlier run with the same settings. Those of other
    settings, or of a run that was interrupted, are replaced. Raises `DataError` for files that no run
    wrote.
    """
    settings = folder / _SETTINGS
    wanted = {**asdict(people), "size": list(people.size), "version": _VERSION, "whole": True}
    found = _settings(settings)
    if found == wanted:
        return False
    if found is None and any((folder / name).exists() for name in people.folders()):
        raise DataError(
            f"{folder} holds files that no run of the demo wrote, and that it would replace. Choose "
            "another folder: --out."
        )
    _dump(settings, {**wanted, "whole": False})
    for name in people.folders():
        shutil.rmtree(folder / name, ignore_errors=True)
    _write_all(people, folder)
    with replacing(settings, overwrite=True) as part:
        _dump(part, wanted)
    return True


def _settings(path: Path) -> Any:
    """What an earlier run noted; None if there was none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}  # half written


def lesion_path(folder: Path, id: str) -> Path:
    """Where the true lesion of a person lies, below the folder of the lesioned."""
    return folder / "derivatives" / "lesions" / id / "anat" / f"{id}_label-lesion_mask.nii.gz"


def _write_all(people: People, folder: Path) -> None:
    jobs = [
        (name, lesions, index)
        for name, (indices, lesions) in people.folders().items()
        for index in indices
    ]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in people.folders()}
    for (name, *_), row in zip(jobs, _rendered(people, folder, jobs), strict=True):
        rows[name].append(row)
    for name, found in rows.items():
        table = folder / name / "participants.tsv"
        pd.DataFrame(found).to_csv(table, sep="\t", index=False, na_rep="n/a")
        _dump(folder / name / "participants.json", described())
        _dump(folder / name / "dataset_description.json", _description("raw"))
    beside = folder / LESIONED / "derivatives" / "lesions" / "dataset_description.json"
    _dump(beside, _description("derivative"))


def _rendered(people: People, folder: Path, jobs: list[tuple[str, float, int]]) -> list[Any]:
    """The causes of each, once the scans are written; with a bar where stderr is a terminal."""
    rows: list[Any] = [None] * len(jobs)
    bar = tqdm(desc="writing scans", total=len(jobs), unit="scan", disable=not sys.stderr.isatty())
    with bar, closing(mapped(partial(_write, people, folder), jobs, None)) as made:
        for number, row in made:
            if isinstance(row, BaseException):
                raise row
            rows[number] = row
            bar.update()
    return rows


def _write(people: People, folder: Path, job: tuple[str, float, int]) -> dict[str, Any]:
    name, lesions, index = job
    one = people.cohort(lesions)[index]
    path = folder / name / one.id / "anat" / f"{one.id}_T1w.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(one.image(), path)
    if one.lesion is not None:
        path = lesion_path(folder / name, one.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(one.lesion.astype(np.uint8), one.affine), path)
    return one.factors


def _description(kind: str) -> dict[str, Any]:
    return {
        "Name": "Synthetic scans of `nidl demo brains`: computed, no scan of any person",
        "BIDSVersion": "1.9.0",
        "DatasetType": kind,
        "GeneratedBy": [{"Name": "nidl_neuro.datasets.synthetic_cohort"}],
    }


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
