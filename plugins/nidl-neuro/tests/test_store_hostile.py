"""The store among people: cleared while it is read, on a full disk, on a shared one, with copies."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import stat
import sys
from pathlib import Path
from typing import IO

import nibabel
import numpy as np
import pytest

from nidl_core.errors import DataError
from nidl_neuro import cache, contents, journal, scans, writing
from nidl_neuro.index import JOURNAL, Index
from nidl_neuro.store import Item, Store

sys.path.insert(0, str(Path(__file__).parent))
from store_makes import Make

STRIDE = 4096


@pytest.fixture(autouse=True)
def _trusted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED", -(10**18))


def write(folder: Path, *numbers: int) -> list[Item]:
    items = []
    for number in numbers:
        path = folder / f"{number}.bin"
        path.write_bytes(b"%06d" % number)
        items.append(Item(f"s{number}", path.name, path))
    return items


def levels(store: Store) -> list[int]:
    return [int(array.flat[0]) for array in store.rows(range(len(store)))]


# Cleared while it is read -------------------------------------------------------------------------


def gone(store: Store) -> str:
    return (
        f"the store {store.folder} was removed or made anew since these scans were found in it. Call "
        "scans(...) again."
    )


def test_what_a_store_has_lost_is_told_and_nothing_else_is_read_in_its_place(
    tmp_path: Path,
) -> None:
    items = write(tmp_path, *range(1, 7))
    store = Store.build(tmp_path / "c", items, Make(), {})
    packed = pickle.dumps(store)  # as it goes to a worker, which maps the rows itself
    assert levels(store) == [1, 2, 3, 4, 5, 6]
    cache.clear(tmp_path / "c")
    for made_anew in (False, True):
        if made_anew:
            Store.build(tmp_path / "c", items[::-1], Make(), {})
        for row in range(6):
            with pytest.raises(DataError) as caught:
                store.record(row)
            assert str(caught.value) == gone(store)
        with pytest.raises(DataError) as caught:
            pickle.loads(packed).rows([0])
        assert str(caught.value) == gone(store)
        assert levels(store) == [1, 2, 3, 4, 5, 6]  # what was mapped stays
    again = Store.build(tmp_path / "c", items, Make(), {})
    assert again.made == 0 and levels(pickle.loads(pickle.dumps(again))) == [1, 2, 3, 4, 5, 6]
    assert [again.record(row)["number"] for row in range(6)] == [1, 2, 3, 4, 5, 6]


def test_a_store_that_grows_keeps_its_readers(tmp_path: Path) -> None:
    store = Store.build(tmp_path / "c", write(tmp_path, 1, 2), Make(), {})
    packed = pickle.dumps(store)
    Store.build(tmp_path / "c", write(tmp_path, 3, 4), Make(), {})
    assert levels(pickle.loads(packed)) == [1, 2] and store.record(1)["number"] == 2


def test_rows_whose_slot_was_cut_off_and_given_away_are_made_again(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2, 3)
    store = Store.build(tmp_path / "c", items, Make(), {})
    os.truncate(store.folder / store.layout.file, STRIDE)
    assert levels(Store.build(tmp_path / "c", items[2:], Make(), {})) == [3]  # where 2 was
    for _ in range(2):
        again = Store.build(tmp_path / "c", items, make := Make(), {})
        assert levels(again) == [1, 2, 3] and again.damaged() == []
    assert make.calls == []


# A full disk --------------------------------------------------------------------------------------


class Disk:
    """A disk of so many bytes for a store: what does not fit is written in part, and then refused."""

    def __init__(self, root: Path, capacity: int) -> None:
        self.root, self.capacity = root, capacity
        self.write = journal.write

    def __call__(self, file: IO[bytes], content: bytes) -> None:
        free = self.capacity - sum(path.stat().st_size for path in self.root.glob("*/*"))
        self.write(file, content[: max(free, 0)])
        if len(content) > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("commit", [0.0, 1.0])
@pytest.mark.parametrize("more", [0, 1, 1500, 4095])
def test_what_was_prepared_before_the_disk_was_full_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: float, more: int
) -> None:
    items, root = write(tmp_path, *range(20)), tmp_path / "c"
    monkeypatch.setattr(writing, "COMMIT", commit)
    monkeypatch.setattr(writing, "_SPARE", -(2**40))  # it was not known that it would be full
    monkeypatch.setattr(journal, "write", Disk(root, 8 * STRIDE + more))
    kept = []
    for _ in range(2):
        with pytest.raises(DataError, match=r"the disk is full\. What was prepared until now is"):
            Store.build(root, items, Make(), {}, workers=1)
        (folder,) = root.iterdir()
        kept.append(len(Index.read(folder).rows))
        (rows,) = folder.glob("*.rows")
        assert rows.stat().st_size == kept[-1] * STRIDE  # the rest is given back
    assert kept in ([6, 6], [7, 7])  # the journal takes a part of a row's space
    made = Store.build(root, items[: kept[0]], Make(), {})
    assert made.made == 0 and levels(made) == [*range(kept[0])] and made.damaged() == []
    monkeypatch.undo()
    monkeypatch.setattr(contents, "SETTLED", -(10**18))
    whole = Store.build(root, items, Make(), {})
    assert whole.made == 20 - kept[0] and levels(whole) == [*range(20)] and whole.damaged() == []


def test_a_journal_takes_all_of_its_lines_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").mkdir()
    path = tmp_path / "c" / JOURNAL
    journal.append(path, [{"a": 1}])
    before = path.read_bytes()
    monkeypatch.setattr(journal, "write", Disk(tmp_path, len(before) + 30))
    with pytest.raises(OSError, match="No space left"):
        journal.append(path, [{"b": number} for number in range(9)])  # two would fit
    assert path.read_bytes() == before


# Who may read it ----------------------------------------------------------------------------------


def rights(root: Path) -> tuple[set[int], set[int]]:
    """The modes of the stores below a root, and of the files in them."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    assert folders and all(len([*folder.iterdir()]) >= 3 for folder in folders)
    files = [file for folder in folders for file in folder.iterdir()]
    told = [{stat.S_IMODE(path.stat().st_mode) for path in paths} for paths in (folders, files)]
    return told[0], told[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
@pytest.mark.parametrize(
    ("root", "folder", "file"),
    [
        (None, 0o700, 0o600),  # made here
        (0o700, 0o700, 0o600),
        (0o2770, 0o2770, 0o660),  # a group's
        (0o755, 0o755, 0o644),
        (0o1777, 0o700, 0o600),  # everyone's, such as /tmp
    ],
)
def test_a_cache_is_read_by_those_who_may_read_its_root(
    tmp_path: Path, umask: int, root: int | None, folder: int, file: int
) -> None:
    place = tmp_path / "new" / "c" if root is None else tmp_path / "c"
    if root is not None:
        place.mkdir()
        place.chmod(root)
    items = write(tmp_path, 1, 2)
    before = os.umask(umask)
    try:
        Store.build(place, items[:1], Make(), {"a": 1})
        Store.build(place, items, Make((1, 3, 5, 8)), {"a": 1}, skip_bad=True)
        (held,) = cache.sizes(place)
    finally:
        os.umask(before)
    assert held.rows == 2
    assert rights(place) == ({folder}, {file})
    assert root is not None or stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_rights_that_a_person_gave_to_a_store_stay(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2)
    store = Store.build(tmp_path / "c", items[:1], Make(), {})
    store.folder.chmod(0o750)
    Store.build(tmp_path / "c", items, Make(), {})
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o750


# Copies and other names ---------------------------------------------------------------------------


def save(path: Path, seed: int) -> Path:
    voxels = np.random.default_rng(seed).normal(size=(6, 6, 6)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return path


def test_a_renamed_scan_is_called_by_its_new_name(tmp_path: Path) -> None:
    path = save(tmp_path / "alice.nii", 0)
    scans([path], cache=tmp_path / "c")
    path.rename(tmp_path / "sub-07.nii")
    data = scans([tmp_path / "sub-07.nii"], cache=tmp_path / "c")
    assert data.store.made == 0
    assert data.record(0).name == str(tmp_path / "sub-07.nii")
    assert data.report()[0].startswith(f"{tmp_path}/sub-07.nii: RAS, ")


def test_copies_have_their_own_names_and_are_told(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"sub-{n}.nii", n % 2 if n < 9 else n) for n in range(1, 11)]
    data = scans(paths, cache=tmp_path / "c")
    assert [data.record(row).name for row in range(10)] == [str(path) for path in paths]
    assert data.notes == (
        "6 of 10 scans have the content of another one: sub-3 that of sub-1, sub-4 that of sub-2, sub-5 "
        "that of sub-1 and 3 more. Find out whose it is, or leave the copies out.",
    )
    shutil.copy(paths[9], tmp_path / "sub-99.nii")
    data = scans([paths[8], paths[9], tmp_path / "sub-99.nii"], cache=tmp_path / "c")
    assert data.notes[0].startswith(
        "1 of 3 scans has the content of another one: sub-99 that of sub-10. "
    )
    assert not scans(paths[8:], cache=tmp_path / "c").notes


def test_copies_in_memory_are_told(tmp_path: Path) -> None:
    image = nibabel.load(save(tmp_path / "a.nii", 0))
    (note,) = scans([image, image], cache=tmp_path / "c").notes
    assert "image-1 that of image-0" in note
