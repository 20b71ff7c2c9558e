"""Rows on their way to the disk: written, flushed, and only then told in the journal."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from nidl_core.errors import DataError
from nidl_neuro import journal
from nidl_neuro.index import JOURNAL, Index, Layout
from nidl_neuro.rights import make_file
from nidl_neuro.store import Item, Row

COMMIT = 1.0  # seconds of work that a kill may cost
_SPARE = 64 * 2**20  # bytes of the disk to leave free


class StoreError(DataError):
    """A store that cannot be written."""


class Packed(NamedTuple):
    """A row as it is written: bytes, and what the journal says of them."""

    layout: Layout
    content: bytes
    record: dict[str, Any]


class Packing:
    """`make`, and its row packed; it runs in the worker."""

    def __init__(self, make: Callable[[Item], Row]) -> None:
        self.make = make

    def __call__(self, item: Item) -> Packed:
        row = Row(*self.make(item))
        array = np.ascontiguousarray(row.array, dtype="<f4")
        mask = None if row.mask is None else np.asarray(row.mask, dtype=bool)
        layout = Layout(array.shape, None if mask is None else mask.shape)
        bits = b"" if mask is None else np.packbits(mask).tobytes()
        return Packed(layout, array.tobytes() + bits, json.loads(json.dumps(dict(row.record))))


class Rows:
    """Rows on their way to the disk, and then into the journal."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.ends = index.ends
        self.last: Layout | None = None
        self.open: dict[Layout, IO[bytes]] = {}
        self.waiting: list[dict[str, Any]] = []
        self.committed = time.monotonic()

    def __enter__(self) -> Rows:
        return self

    def add(self, key: str, row: Packed, left: int) -> None:
        """Write a row into the next free slot; `left` more are to come."""
        layout = row.layout
        if layout not in self.open:
            self._check_space(layout, left + 1)
        slot = self.ends.get(layout, 0)
        with writing(self.folder):
            if layout not in self.open:
                path = self.folder / layout.file
                make_file(path)
                self.open[layout] = path.open("r+b", buffering=0)
            file = self.open[layout]
            file.seek(slot * layout.stride)
            try:
                journal.write(file, row.content.ljust(layout.stride, b"\0"))
            except OSError:
                self._cut(layout, slot)  # there is room again for the journal
                raise
        self.ends[layout] = slot + 1
        self.last = layout
        self.waiting.append(
            {
                "row": key,
                "shape": layout.shape,
                "mask": layout.mask,
                "slot": slot,
                "checksum": zlib.crc32(row.content),
                "record": row.record,
            }
        )
        if time.monotonic() - self.committed >= COMMIT:
            self.commit()

    def commit(self) -> None:
        """Flush the rows to the disk, and then tell the journal."""
        with writing(self.folder):
            try:
                for file in self.open.values():
                    os.fsync(file.fileno())
            except OSError:
                self.waiting = []  # nobody knows which of them are on the disk
                raise
            self._tell()
        self.committed = time.monotonic()

    def size_after(self, left: int) -> int:
        """Bytes of the store's rows when `left` more are made like the last; 0 if none was made yet."""
        if self.last is None:
            return 0
        return sum(n * layout.stride for layout, n in self.ends.items()) + left * self.last.stride

    def _tell(self) -> None:
        """Name the rows in the journal. On a full disk the last ones are given up for it."""
        path = self.folder / JOURNAL
        try:
            journal.append(path, self.waiting)
        except OSError:
            while self.waiting:
                last = self.waiting.pop()
                self._cut(Layout(last["shape"], last["mask"]), last["slot"])
                with contextlib.suppress(OSError):
                    journal.append(path, self.waiting)
                    break
            self.waiting = []
            raise
        self.waiting = []

    def _cut(self, layout: Layout, slot: int) -> None:
        """Give back the disk's space from this slot on."""
        self.ends[layout] = slot
        with contextlib.suppress(OSError):
            self.open[layout].truncate(slot * layout.stride)

    def _check_space(self, layout: Layout, rows: int) -> None:
        free = shutil.disk_usage(self.folder).free
        need = rows * layout.stride
        if need + _SPARE > free:
            raise StoreError(
                f"the prepared scans take {size(need)}, and {size(free)} are free at {self.folder}. "
                f"Free some space, or {_ELSEWHERE}"
            )

    def __exit__(self, *error: object) -> None:
        try:
            self.commit()
        finally:
            for file in self.open.values():
                file.close()


def size(count: int) -> str:
    """Bytes for a person: 1.5 GB."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tell in words why a store cannot be written."""
    try:
        yield
    except OSError as err:
        full = err.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else err.strerror or str(err)
        raise StoreError(
            f"the store {folder} cannot be written: {reason}. What was prepared until now is kept. "
            f"Repair that, or {_ELSEWHERE}"
        ) from err


_ELSEWHERE = "name another folder by the environment variable NIDL_CACHE."
