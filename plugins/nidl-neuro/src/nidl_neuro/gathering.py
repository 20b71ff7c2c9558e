"""Scans on their way into a cohort: each is there, each once, one a participant and session."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nidl_core.errors import DataError
from nidl_neuro import nifti
from nidl_neuro.cohort import Cohort, Scan
from nidl_neuro.errors import ScanError
from nidl_neuro.paths import entities, label, stem, unique

_CHOOSE = "Keep one of them, or choose with a glob or pattern such as '*_T1w.nii.gz'."


class Gathered:
    """Scans on their way into a cohort: what is bad is raised, or kept with its reason."""

    def __init__(self, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self.refused: dict[str, str] = {}
        self.notes: list[str] = []

    def refuse(self, error: ScanError, names: Sequence[str] = ()) -> None:
        if not self.skip_bad:
            raise error
        for name in names or [error.name]:
            self.refused[name] = f"{error.problem}. {error.remedy}"

    def of_images(
        self,
        images: Sequence[tuple[Any, int | None]],
        name: str,
        keys: dict[str, str] | None = None,
    ) -> Cohort:
        """Images in memory, or volumes of a file: numbered, from 0."""
        digits = len(str(len(images) - 1))
        scans = [
            Scan(f"{name}-{number:0{digits}}", image, volume, dict(keys or {}))
            for number, (image, volume) in enumerate(images)
        ]
        return self._cohort(scans, pd.DataFrame(index=range(len(scans))))

    def of_files(
        self,
        files: Sequence[Path],
        table: pd.DataFrame | None = None,
        keys: Sequence[dict[str, str]] | None = None,
        names: Sequence[str] | None = None,
    ) -> Cohort:
        """Files, each once and one a participant and session; `table`, `keys` and `names` row by row."""
        own = [entities(file) for file in files]
        keys = [{**one, **key} for one, key in zip(own, keys or own, strict=True)]
        kept = self._one_each(files, keys, self._present(files))
        labels = [
            _label(names[row] if names else "", keys[row]) or stem(files[row]) for row in kept
        ]
        ids = unique(labels, [files[row] for row in kept]) if kept else []
        scans = [
            Scan(name, files[row], None, keys[row]) for name, row in zip(ids, kept, strict=True)
        ]
        table = pd.DataFrame(index=range(len(files))) if table is None else table
        return self._cohort(scans, table.iloc[kept])

    def _present(self, files: Sequence[Path]) -> list[int]:
        """The files that are there and not empty, each once."""
        seen: set[str] = set()
        kept = []
        for row, file in enumerate(files):
            try:
                nifti.check_present(file)
            except ScanError as err:
                self.refuse(err)
                continue
            real = os.path.realpath(file)
            if real in seen:
                error = ScanError(file, "the file is listed twice", "Remove one of the two.")
                self.refuse(error, [f"{file} (again)"])
            else:
                seen.add(real)
                kept.append(row)
        return kept

    def _one_each(
        self, files: Sequence[Path], keys: Sequence[dict[str, str]], rows: list[int]
    ) -> list[int]:
        """These rows without those of which a participant has two in a session."""
        groups: dict[tuple[str, str | None], list[int]] = defaultdict(list)
        for row in rows:
            if "sub" in keys[row]:
                groups[keys[row]["sub"], keys[row].get("ses")].append(row)
        out: set[int] = set()
        for group in groups.values():
            if len(group) > 1:
                same = ", ".join(str(files[row]) for row in group[1:])
                told = f"{label(keys[group[0]])} has {len(group)} files: this one and {same}"
                error = ScanError(files[group[0]], told, _CHOOSE)
                self.refuse(error, [str(files[row]) for row in group])
                out.update(group)
        return [row for row in rows if row not in out]

    def _cohort(self, scans: Sequence[Scan], table: pd.DataFrame) -> Cohort:
        if not scans:
            first, reason = next(iter(self.refused.items()), ("", ""))
            raise DataError(
                f"no scan is left: {len(self.refused)} were refused, the first was {first}: {reason}"
            )
        index = pd.Index([scan.id for scan in scans], name="id", dtype=object)
        return Cohort(tuple(scans), table.set_axis(index), self.refused, tuple(self.notes))


def _label(participant: str, key: dict[str, str]) -> str:
    """The participant as the table writes it, or sub-01, with the session."""
    session = {"ses": key["ses"]} if "ses" in key else {}
    return "_".join(filter(None, [participant, label(session)])) if participant else label(key)
