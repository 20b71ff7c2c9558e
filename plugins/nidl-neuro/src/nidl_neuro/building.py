"""How a store grows: what is missing is made, written, flushed, and only then told in the journal.

- One process builds at a time, under a lock that the system takes back from a process that is
  killed; the others wait, and find the rows made. Readers need no lock.
- A row counts when the journal names it, and the journal names it after its bytes are on the disk.
  So a build that is killed leaves rows that count, and bytes that do not and are written over.
- Rows are named by a hash of the file's bytes. The hash is taken before the row is made, and the
  file must not have changed after it; later it is trusted while size, times and inode are the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from nidl_core.errors import DataError, NidlError
from nidl_neuro import journal
from nidl_neuro.contents import Known, hashed, key_of, state_of
from nidl_neuro.errors import ScanError
from nidl_neuro.index import JOURNAL, LOCK, Index, folder_of, header
from nidl_neuro.rights import file_mode, make_folder
from nidl_neuro.store import Item, NoneLeft, Progress, Row, Store
from nidl_neuro.workers import cores, mapped
from nidl_neuro.writing import Packing, Rows, StoreError, writing

_log = logging.getLogger(__name__)


def build(
    root: Path,
    items: Sequence[Item],
    make: Callable[[Item], Row],
    spec: Any,
    workers: int | None,
    progress: Progress | None,
    skip_bad: bool,
) -> Store:
    """See `Store.build`."""
    names = Counter(item.id for item in items)
    if not items or len(names) < len(items):
        twice = next((name for name, count in names.items() if count > 1), None)
        raise DataError(f"two items have the id {twice!r}." if items else "there are no items.")
    work = _Build(folder_of(root, spec), spec, make, progress, skip_bad)
    keys = work.identify(items, workers or cores())
    index = Index.read(work.folder)
    made = 0
    if any(key not in index.rows for key in keys.values()):
        with _locked(work.folder):
            index = Index.read(work.folder)
            if not index.build:
                work.append([header(spec)])
            wanted = {keys[item.id]: item for item in reversed(items) if item.id in keys}
            missing = [(key, wanted[key]) for key in dict.fromkeys(keys.values())]
            missing = [(key, item) for key, item in missing if key not in index.rows]
            work.append(work.known())
            made = work.fill(missing, index, workers) if missing else 0
            index = Index.read(work.folder)
    elif work.rehashed:
        quiet = contextlib.suppress(Timeout, OSError, StoreError)  # hashed again next time
        with quiet, FileLock(work.folder / LOCK, timeout=0, mode=file_mode(work.folder)):
            work.append(work.known())
    return work.store(items, keys, index, made)


class _Build:
    """One call of `build`: which content the items have, what is made of them, what is refused."""

    def __init__(
        self,
        folder: Path,
        spec: Any,
        make: Callable[[Item], Row],
        progress: Progress | None,
        skip_bad: bool,
    ) -> None:
        self.folder, self.spec, self.make = folder, spec, make
        self.tell = progress or (lambda stage, done, total, size: None)
        self.skip_bad = skip_bad
        self.refused: dict[str, str] = {}
        self.failed: dict[str, NidlError] = {}  # by key, where no row could be made
        self.files: dict[str, Known] = {}  # of all items
        self.rehashed: list[str] = []  # of those, what the journal does not know

    def identify(self, items: Sequence[Item], threads: int) -> dict[str, str]:
        """id -> key of the row, of all items that can be read."""
        paths = {key_of(item.path): item.path for item in items if item.path is not None}
        before = Index.read(self.folder).files
        failed: dict[str, NidlError] = {}

        def take(name: str) -> tuple[str, Known | NidlError]:
            try:
                if name in before and before[name].holds(state_of(paths[name])):
                    return name, before[name]
                return name, hashed(paths[name])
            except NidlError as err:
                return name, err

        with ThreadPoolExecutor(threads) as pool:
            for done, (name, known) in enumerate(pool.map(take, paths), 1):
                if isinstance(known, NidlError):
                    failed[name] = known
                    continue
                self.files[name] = known
                if known is not before.get(name):
                    self.rehashed.append(name)
                    self.tell("reading", done, len(paths), 0)
        keys = {}
        for item in items:
            name = "" if item.path is None else key_of(item.path)
            if name in failed:
                self._refuse(item, failed[name])
            else:
                digest = self.files[name].digest if name else ""
                keys[item.id] = f"{digest} {item.content}".strip()
        return keys

    def fill(self, missing: Sequence[tuple[str, Item]], index: Index, workers: int | None) -> int:
        """Make the missing rows, by key; how many could be made."""
        made = 0
        items = [item for _, item in missing]
        results = mapped(Packing(self.make), items, workers)
        with contextlib.closing(results), Rows(self.folder, index) as rows:
            self.tell("preparing", 0, len(items), 0)
            for done, (number, result) in enumerate(results, 1):
                key, item = missing[number]
                try:
                    if isinstance(result, BaseException):
                        raise result
                    self._check_unchanged(item)
                except NidlError as err:
                    if not self.skip_bad:
                        raise
                    self.failed[key] = err
                else:
                    rows.add(key, result, len(items) - done)
                    made += 1
                self.tell("preparing", done, len(items), rows.size_after(len(items) - done))
        return made

    def known(self) -> list[dict[str, Any]]:
        """Which content the files have, as far as the journal does not know it."""
        return [self.files[name].to_line(name) for name in self.rehashed]

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Tell the journal."""
        with writing(self.folder):
            journal.append(self.folder / JOURNAL, lines)

    def store(self, items: Sequence[Item], keys: dict[str, str], index: Index, made: int) -> Store:
        """The rows in the order of the items. Rows of another shape than most are refused."""
        for item in items:  # several items may have the content that failed
            if keys.get(item.id) in self.failed:
                self._refuse(item, self.failed[keys[item.id]])
        kept = [item for item in items if item.id not in self.refused]
        layouts = Counter(index.rows[keys[item.id]].layout for item in kept)
        if not layouts:
            raise NoneLeft(self.refused)
        layout, most = layouts.most_common(1)[0]
        for item in kept:
            other = index.rows[keys[item.id]].layout
            if other != layout:
                others = f"{most} others" if most > 1 else "another"
                told = f"its prepared shape is {other.shape}, that of {others} {layout.shape}"
                largest = [max(pair) for pair in zip(other.shape, layout.shape, strict=False)]
                remedy = (
                    "Prepare all scans to one shape: give the preparation a target shape, such as "
                    f"shape={largest[1:]}."
                )
                self._refuse(item, ScanError(item.path or item.id, told, remedy))
        kept = [item for item in kept if index.rows[keys[item.id]].layout == layout]
        places = [index.rows[keys[item.id]] for item in kept]
        return Store(
            folder=self.folder,
            spec=self.spec,
            ids=[item.id for item in kept],
            layout=layout,
            build_id=index.build,
            keys=[keys[item.id] for item in kept],
            slots=np.array([place.slot for place in places]),
            lines=np.array([place.line for place in places]),
            checksums=np.array([place.checksum for place in places]),
            files={i.path: self.files[key_of(i.path)] for i in kept if i.path is not None},
            refused=self.refused,
            made=made,
        )

    def _check_unchanged(self, item: Item) -> None:
        if item.path is None:
            return
        known = self.files[key_of(item.path)]
        if state_of(item.path) != known.state and hashed(item.path).digest != known.digest:
            raise ScanError(
                item.path,
                "the file changed while it was prepared",
                "Wait until what writes it has finished, and run again.",
            )

    def _refuse(self, item: Item, err: NidlError) -> None:
        if not self.skip_bad:
            raise err
        self.refused[item.id] = str(err)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The store's lock; waits while another process builds."""
    with writing(folder):
        make_folder(folder)
        lock = FileLock(folder / LOCK, mode=file_mode(folder))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("another process prepares scans in %s; waiting until it has finished", folder)
            lock.acquire(poll_interval=0.1)
    try:
        yield
    finally:
        lock.release()
