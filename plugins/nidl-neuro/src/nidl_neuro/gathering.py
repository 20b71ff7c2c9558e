"""Scans on their way into a cohort: each is there, each once, one a participant and session."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nidl_core.errors import DataError
from nidl_neuro import nifti
from nidl_neuro.cohort import Cohort, Scan
from nidl_neuro.errors import ScanError
from nidl_neuro.paths import common_folder, entities, label, stem, unique

_TOLD = 5  # of all that were refused


class Gathered:
    """Scans on their way into a cohort: what is bad is raised, or kept with its reason."""

    def __init__(self, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self.refused: dict[str, str] = {}
        self.notes: list[str] = []

    def refuse(self, error: ScanError, each: Sequence[ScanError] = ()) -> None:
        """Raise it; with `skip_bad` keep it, or instead of it `each` of what it sums up."""
        if not self.skip_bad:
            raise error
        for one in each or [error]:
            self.refused[one.name] = f"{one.problem}. {one.remedy}"

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
        root: Path | None = None,
        searched: Path | None = None,
    ) -> Cohort:
        """Files, each once and one a participant and session; `table`, `keys` and `names` row by row.

        `root` is where the relative paths of a table start. Names of folders say whose a file is, too:
        below the folder that was `searched`, or `root`, or the one that all files have in common.
        """
        below = searched or root or common_folder(files)
        own = [entities(file, below) for file in files]
        listed = keys is not None
        keys = [{**one, **key} for one, key in zip(own, keys or own, strict=True)]
        kept = self._one_each(files, keys, self._present(files, root), listed)
        labels = [
            _label(names[row] if names else "", keys[row]) or stem(files[row]) for row in kept
        ]
        ids = unique(labels, [files[row] for row in kept]) if kept else []
        scans = [
            Scan(name, files[row], None, keys[row]) for name, row in zip(ids, kept, strict=True)
        ]
        table = pd.DataFrame(index=range(len(files))) if table is None else table
        return self._cohort(scans, table.iloc[kept])

    def _present(self, files: Sequence[Path], root: Path | None) -> list[int]:
        """The files that are there and not empty, each once."""
        seen: set[str] = set()
        kept = []
        for row, file in enumerate(files):
            try:
                nifti.check_present(file)
            except ScanError as err:
                if root is not None and isinstance(err.__cause__, FileNotFoundError):
                    start = (
                        f"Relative paths in a table start at {root.absolute()}, or at root=... ."
                    )
                    err = ScanError(err.name, err.problem, f"{err.remedy} {start}")
                self.refuse(err)
                continue
            real = os.path.realpath(file)
            if real in seen:
                told = "the file is listed twice", "Remove one of the two."
                self.refuse(ScanError(file, *told), [ScanError(f"{file} (again)", *told)])
            else:
                seen.add(real)
                kept.append(row)
        return kept

    def _one_each(
        self,
        files: Sequence[Path],
        keys: Sequence[dict[str, str]],
        rows: list[int],
        listed: bool,
    ) -> list[int]:
        """These rows without those of which a participant has two in a session; `listed` in a table."""
        groups: dict[tuple[str, str | None], list[int]] = defaultdict(list)
        for row in rows:
            if "sub" in keys[row]:
                groups[keys[row]["sub"], keys[row].get("ses")].append(row)
        out: set[int] = set()
        for group in groups.values():
            if len(group) > 1:
                remedy = _BY_SESSION if listed else _choice([files[row] for row in group])
                each = []
                for row in group:
                    same = ", ".join(str(files[other]) for other in group if other != row)
                    told = f"{label(keys[row])} has {len(group)} files: this one and {same}"
                    each.append(ScanError(files[row], told, remedy))
                self.refuse(each[0], each)
                out.update(group)
        return [row for row in rows if row not in out]

    def _cohort(self, scans: Sequence[Scan], table: pd.DataFrame) -> Cohort:
        if not scans:
            raise none_left(self.refused)
        index = pd.Index([scan.id for scan in scans], name="id", dtype=object)
        return Cohort(tuple(scans), table.set_axis(index), self.refused, tuple(self.notes))


def none_left(refused: Mapping[str, str]) -> DataError:
    """What to raise when all scans were refused: name -> reason."""
    told = [f"{name}: {reason}" for name, reason in refused.items()]
    more = f" And {len(told) - _TOLD} more." if len(told) > _TOLD else ""
    how = {1: "it was", 2: "both were"}.get(len(told), f"all {len(told)} were")
    return DataError(f"no scan is left, {how} refused. {' '.join(told[:_TOLD])}{more}")


_BY_SESSION = "Keep one row, or give each its session in a column session_id."


def _choice(files: Sequence[Path]) -> str:
    """How to choose between files of one participant: by what tells the first from the others."""
    own = [entities(file) for file in files]
    patterns = [
        f"*_{key}-{value}_*"
        for key, value in own[0].items()
        if key not in ("sub", "ses") and all(other.get(key) != value for other in own[1:])
    ]
    ends = ["".join(file.name.rpartition("_")[1:]) for file in files]
    if ends[0] not in ends[1:]:
        patterns.append(f"*{ends[0]}")
    chosen = f", or choose with a glob or pattern such as {patterns[0]!r}" if patterns else ""
    return f"Keep one of them{chosen}."


def _label(participant: str, key: dict[str, str]) -> str:
    """The participant as the table writes it, or sub-01, with the session."""
    session = {"ses": key["ses"]} if "ses" in key else {}
    return "_".join(filter(None, [participant, label(session)])) if participant else label(key)
