"""Prepared arrays in one file that is mapped into memory, found by content and preparation.

A row is made once for each content of a file and each `spec`, whatever the file's name, and however
many cohorts share it. See `nidl_neuro.building` for why nothing torn or stale is ever read.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nidl_core.errors import DataError
from nidl_neuro import journal
from nidl_neuro.contents import Known, hashed, state_of
from nidl_neuro.errors import ScanError
from nidl_neuro.index import JOURNAL, Layout, build_of

Progress = Callable[[str, int, int, int], None]


@dataclass(frozen=True)
class Item:
    """What a row is made from.

    `path` is the file whose bytes are its content, or None; `content` is what there is beside it (a
    volume's number) or instead of it (a hash). `source` is for `make`; it crosses process borders.
    """

    id: str
    source: Any
    path: Path | None = None
    content: str = ""


class Row(NamedTuple):
    """What `make` gives: a float32 array, a record that JSON can hold, a bool array of any shape or None."""

    array: NDArray[np.float32]
    record: Mapping[str, Any]
    mask: NDArray[np.bool_] | None = None


class NoneLeft(DataError):
    """All items were refused. Field: `refused`, id -> reason."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        super().__init__(f"no item is left: {'; '.join(refused.values())}")
        self.refused = dict(refused)

    def __reduce__(self) -> tuple[Any, ...]:
        return NoneLeft, (self.refused,)


@dataclass(eq=False)
class Store:
    """Rows on disk in the order of some items. Pickles as a path, without its rows.

    Attributes
    ----------
    folder : Path
        Where the store is.
    ids : list of str
        The items' ids, in their order, without those refused.
    layout : Layout
        `layout.shape` is the shape of every array, `layout.mask` of every mask, or None.
    refused : dict
        id -> reason, of items that were left out (`skip_bad=True`).
    made : int
        How many rows this build made; the others were there.
    """

    folder: Path
    spec: Any
    ids: list[str]
    layout: Layout
    build_id: str = field(repr=False)  # of the store in the folder
    keys: list[str] = field(repr=False)
    slots: NDArray[np.int64] = field(repr=False)
    lines: NDArray[np.int64] = field(repr=False)
    checksums: NDArray[np.int64] = field(repr=False)
    files: dict[Path, Known] = field(repr=False)
    refused: dict[str, str] = field(default_factory=dict)
    made: int = 0

    @classmethod
    def build(
        cls,
        root: Path,
        items: Sequence[Item],
        make: Callable[[Item], Row],
        spec: Any,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
        skip_bad: bool = False,
    ) -> Store:
        """The store of these items, in which the missing rows have been made.

        Parameters
        ----------
        root : folder
            Where stores are kept: see `nidl_neuro.cache.default_root`. Created if need be.
        items : sequence of Item
        make : callable
            Item -> Row. It runs in other processes: a function of a module, or a picklable object.
        spec : plain data
            Everything that a row depends on beside its content, versions included.
        workers : int, optional
            Processes. By default the cores there are, if there is work for 10 s; 1 is this process.
        progress : callable, optional
            Called with ("reading" or "preparing", done, total, bytes), where bytes is what the items'
            rows take on disk, as soon as the first is made.
        skip_bad : bool
            Leave out items that `make` refuses by a `NidlError`, instead of raising it.

        Raises
        ------
        NidlError
            What `make` raises for an item; all rows made until then stay.
        NoneLeft
            If all were left out.
        DataError
            If the disk is full or cannot be written.
        """
        from nidl_neuro.building import build

        return build(Path(root), items, make, spec, workers, progress, skip_bad)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take on disk; equal ones count once."""
        return len(set(self.slots.tolist())) * self.layout.stride

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> NDArray[np.float32]:
        """One array, a copy."""
        array: NDArray[np.float32] = self.rows([row])[0]
        return array

    def rows(self, rows: Iterable[int]) -> NDArray[np.float32]:
        """Arrays (n, *shape), copies of these rows; the file itself stays on the disk."""
        layout = self.layout
        strides = np.empty(layout.shape, dtype=np.float32).strides
        mapped = np.ndarray(
            (self._held, *layout.shape), np.float32, self._map, 0, (layout.stride, *strides)
        )
        copied: NDArray[np.float32] = mapped[self.slots[list(rows)]]
        self._release()
        return copied

    def take(self, rows: NDArray[np.int64]) -> Store:
        """A store of these rows (n,) alone, in this order; nothing is copied on the disk."""
        kept = {name: getattr(self, name)[rows] for name in ("slots", "lines", "checksums")}
        ids, keys = ([names[row] for row in rows] for names in (self.ids, self.keys))
        return replace(self, ids=ids, keys=keys, **kept)

    def mask(self, row: int) -> NDArray[np.bool_] | None:
        """One mask, a copy; None if the rows have none."""
        if self.layout.mask is None:
            return None
        start = int(self.slots[row]) * self.layout.stride + self.layout.array_bytes
        packed = np.frombuffer(self._map, np.uint8, self.layout.mask_bytes, start)
        count = int(np.prod(self.layout.mask))
        mask = np.unpackbits(packed, count=count).astype(bool)
        return mask.reshape(self.layout.mask)

    def record(self, row: int) -> dict[str, Any]:
        """What `make` said of one row. It is read from the journal."""
        line = journal.read_at(self.folder / JOURNAL, int(self.lines[row]))
        if line is None or line.get("row") != self.keys[row]:
            self._check_build()
            raise ScanError(
                self.ids[row], "its line in the store's journal is damaged", self._remedy
            )
        record: dict[str, Any] = line["record"]
        return record

    def verify(self) -> None:
        """Raise `ScanError` if a file changed since its row was made; one that is gone did not.

        Only files that look changed are read.
        """
        for path, known in self.files.items():
            if not os.path.exists(path) or known.holds(state_of(path)):
                continue
            again = hashed(path)
            if again.digest != known.digest:
                raise ScanError(
                    path,
                    "the file changed after it was prepared",
                    "Call scans(...) again: it is prepared anew.",
                )
            self.files[path] = again

    def damaged(self) -> list[str]:
        """The ids whose rows on the disk are not what was written. All rows are read."""
        stride, size = self.layout.stride, self.layout.array_bytes + self.layout.mask_bytes
        bad = []
        for name, slot, checksum in zip(self.ids, self.slots, self.checksums, strict=True):
            if zlib.crc32(self._map[slot * stride : slot * stride + size]) != checksum:
                bad.append(name)
            self._release()
        return bad

    @property
    def _held(self) -> int:
        return int(self.slots.max()) + 1

    @property
    def _map(self) -> mmap.mmap:
        if (mapped := self.__dict__.get("_mapped")) is None:
            try:
                file = (self.folder / self.layout.file).open("rb")
            except FileNotFoundError as err:
                raise self._gone() from err
            with file:
                self._check_build()  # once it is open: the folder may be made anew at any time
                length = self._held * self.layout.stride
                mapped = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)
            self.__dict__["_mapped"] = mapped
        kept: mmap.mmap = mapped
        return kept

    def _release(self) -> None:
        """Give back the memory of pages that were read; the system may keep them as its cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _check_build(self) -> None:
        if build_of(self.folder) != self.build_id:
            raise self._gone()

    def _gone(self) -> DataError:
        return DataError(
            f"the store {self.folder} was removed or made anew since these scans were found in it. Call "
            "scans(...) again."
        )

    @property
    def _remedy(self) -> str:
        return f"Remove the store {self.folder}: it is built again."

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_mapped"}
