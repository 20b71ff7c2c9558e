"""What lies where in a store: its journal, read.

A store is a folder with a journal `index.jsonl`, files of rows of one shape each, and a lock. The
journal begins with the spec and an id that no other store gets; then come rows (content -> place)
and files (path -> content).
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nidl_neuro import journal
from nidl_neuro.contents import Known

FORMAT = 2
JOURNAL, LOCK = "index.jsonl", "lock"
_PAGE = 4096


@dataclass(frozen=True)
class Layout:
    """How a row lies in its file: a float32 array, then the packed bits of a mask if there is one."""

    shape: tuple[int, ...]
    mask: tuple[int, ...] | None

    @property
    def file(self) -> str:
        """The name of the file of such rows: 1x64x64x64+64x64x64.rows."""
        parts = [self.shape] if self.mask is None else [self.shape, self.mask]
        return "+".join("x".join(map(str, part)) for part in parts) + ".rows"

    @property
    def array_bytes(self) -> int:
        """Bytes of the array."""
        return 4 * math.prod(self.shape)

    @property
    def mask_bytes(self) -> int:
        """Bytes of the packed mask."""
        return 0 if self.mask is None else -(-math.prod(self.mask) // 8)

    @property
    def stride(self) -> int:
        """Bytes from row to row: whole pages."""
        return max(_PAGE, -(-(self.array_bytes + self.mask_bytes) // _PAGE) * _PAGE)


@dataclass(frozen=True)
class Place:
    """Where a row is: its slot in the file of its layout, and the journal's line about it."""

    layout: Layout
    slot: int
    checksum: int
    line: int


@dataclass
class Index:
    """The journal's content."""

    spec: Any = None
    build: str = ""
    rows: dict[str, Place] = field(default_factory=dict)
    files: dict[str, Known] = field(default_factory=dict)
    ends: dict[Layout, int] = field(default_factory=dict)  # the first free slot

    @classmethod
    def read(cls, folder: Path) -> Index:
        """What is committed. Rows that their file is too short for (someone cut it) do not count.

        Nor does a row whose slot was cut off and given to another one.
        """
        index = cls()
        owners: dict[tuple[Layout, int], str] = {}
        lengths: dict[Layout, int] = {}
        for offset, line in journal.read(folder / JOURNAL):
            if "row" in line:
                mask = None if line["mask"] is None else tuple(line["mask"])
                layout = Layout(tuple(line["shape"]), mask)
                place = Place(layout, line["slot"], line["checksum"], offset)
                if layout not in lengths:
                    path = folder / layout.file
                    lengths[layout] = path.stat().st_size if path.exists() else 0
                if (place.slot + 1) * layout.stride <= lengths[layout]:
                    owners[layout, place.slot] = line["row"]
                    index.rows[line["row"]] = place
                    index.ends[layout] = max(index.ends.get(layout, 0), place.slot + 1)
            elif "file" in line:
                index.files[line["file"]] = Known.from_line(line)
            elif not index.build:
                index.spec, index.build = line["spec"], line["build"]
        index.rows = {
            key: place
            for key, place in index.rows.items()
            if owners[place.layout, place.slot] == key
        }
        return index


def header(spec: Any) -> dict[str, Any]:
    """The journal's first line, of a new store."""
    return {"format": FORMAT, "spec": spec, "build": uuid.uuid4().hex}


def build_of(folder: Path) -> str | None:
    """The id of the store in a folder; None if there is none."""
    lines = journal.read(folder / JOURNAL)
    return next((line["build"] for _, line in lines if "build" in line), None)


def folder_of(root: Path, spec: Any) -> Path:
    """The folder of the store of a preparation: another spec or format is another folder."""
    text = json.dumps({"format": FORMAT, "spec": spec}, sort_keys=True)
    return root / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
