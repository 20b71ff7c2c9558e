"""What lies where in a store: its journal, read.

A store is a folder with a journal `index.jsonl`, files of rows of one shape each, and a lock. The
journal begins with the spec; then come rows (content -> place) and files (path -> content).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nidl_neuro import journal
from nidl_neuro.contents import Known

FORMAT = 1
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
    rows: dict[str, Place] = field(default_factory=dict)
    files: dict[str, Known] = field(default_factory=dict)
    ends: dict[Layout, int] = field(default_factory=dict)  # the first free slot

    @classmethod
    def read(cls, folder: Path) -> Index:
        """What is committed. Rows that their file is too short for (someone cut it) do not count."""
        index = cls()
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
                    index.rows[line["row"]] = place
                    index.ends[layout] = max(index.ends.get(layout, 0), place.slot + 1)
            elif "file" in line:
                index.files[line["file"]] = Known.from_line(line)
            else:
                index.spec = line["spec"]
        return index


def header(spec: Any) -> dict[str, Any]:
    """The journal's first line."""
    return {"format": FORMAT, "spec": spec}


def folder_of(root: Path, spec: Any) -> Path:
    """The folder of the store of a preparation: another spec or format is another folder."""
    text = json.dumps(header(spec), sort_keys=True)
    return root / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
