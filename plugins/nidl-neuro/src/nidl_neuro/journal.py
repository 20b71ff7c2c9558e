"""A file of lines that grows at its end: a line counts only if it is whole.

Each line is a checksum and a JSON object. A process that is killed while it appends leaves at most
a torn last line; readers pass over it, and the next line is written below it.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from nidl_neuro.rights import make_file


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines at the end, and return when they are on the disk; all, or after an error none.

    One process at a time may call it.
    """
    text = b"".join(_packed(line) for line in lines)
    make_file(path)
    with path.open("ab+", buffering=0) as file:
        if end := file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read() == b"\n" else b"\n" + text
        try:
            write(file, text)
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise


def write(file: IO[bytes], content: bytes) -> None:
    """Write all of it to an unbuffered file, which may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


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
    """The line at an offset that `read` gave; None if there is no whole line, or no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
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
