"""A file of lines that grows at its end: a line counts only if it is whole.

Each line is a checksum and a JSON object. A process that is killed while it appends leaves at most
a torn last line; readers pass over it, and the next line is written below it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines at the end, and return when they are on the disk. One process at a time may call it."""
    text = b"".join(_packed(line) for line in lines)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read() == b"\n" else b"\n" + text
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines, each with the offset that it starts at. No file is no lines."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        offset = 0
        for line in file:
            if (entry := _unpacked(line)) is not None:
                yield offset, entry
            offset += len(line)


def read_at(path: Path, offset: int) -> dict[str, Any] | None:
    """The line at an offset that `read` gave; None if it is not whole."""
    with path.open("rb") as file:
        file.seek(offset)
        return _unpacked(file.readline())


def _packed(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _unpacked(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    entry: dict[str, Any] = json.loads(text)
    return entry
