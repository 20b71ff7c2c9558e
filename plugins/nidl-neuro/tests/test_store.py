"""The store: rows made once for each content and spec, never stale, never torn."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nidl_core.errors import DataError
from nidl_neuro import building, cache, contents, journal, workers, writing
from nidl_neuro.errors import ScanError
from nidl_neuro.index import JOURNAL, Layout
from nidl_neuro.store import Item, NoneLeft, Row, Store
from nidl_neuro.workers import WorkerDied

sys.path.insert(0, str(Path(__file__).parent))  # for the processes that prepare, too
from store_makes import SHAPE, Make, exits, fails, prints


@pytest.fixture(autouse=True)
def _trusted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once, as they do two seconds after they were written."""
    monkeypatch.setattr(contents, "SETTLED", -(10**18))


def write(folder: Path, *numbers: int) -> list[Item]:
    """A file for each number, and an item for it."""
    items = []
    for number in numbers:
        path = folder / f"{number}.bin"
        path.write_bytes(b"%06d" % number)
        items.append(Item(f"s{number}", path.name, path))
    return items


def levels(store: Store) -> list[int]:
    arrays = store.rows(range(len(store)))
    assert arrays.dtype == np.float32 and all(len(set(a.ravel())) == 1 for a in arrays)
    return [int(array.flat[0]) for array in arrays]


# What is in it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_masks_and_records_come_back_in_the_order_of_the_items(
    tmp_path: Path, workers: int
) -> None:
    items = write(tmp_path, *range(11, 0, -1))
    make = Make()
    store = Store.build(tmp_path / "c", items, make, {"v": 1}, workers=workers)
    assert store.ids == [item.id for item in items] and len(store) == store.made == 11
    assert levels(store) == list(range(11, 0, -1)) and store.layout.shape == SHAPE
    for row in (0, 10):
        wanted = Make()(items[row])
        assert np.array_equal(store[row], wanted.array) and store[row].flags.writeable
        assert np.array_equal(store.mask(row), wanted.mask)  # type: ignore[arg-type]
        assert store.record(row) == wanted.record
    assert store.rows([3, 0, 3]).tolist() == [
        store[3].tolist(),
        store[0].tolist(),
        store[3].tolist(),
    ]
    assert store.damaged() == [] and store.refused == {}


def test_rows_may_have_no_mask(tmp_path: Path) -> None:
    def make(item: Item) -> Row:
        return Row(np.ones((2, 2), "f4"), {})

    store = Store.build(tmp_path, [Item("a", None, content="x")], make, {})
    assert store.mask(0) is None and store[0].tolist() == [[1, 1], [1, 1]]


def test_the_second_build_makes_nothing_and_reads_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = write(tmp_path, 1, 2, 3)
    Store.build(tmp_path / "c", items, Make(), {})
    monkeypatch.setattr(building, "hashed", fails)
    monkeypatch.setattr(building, "FileLock", fails)
    make, told = Make(), []
    store = Store.build(tmp_path / "c", items, make, {}, progress=lambda *now: told.append(now))
    assert make.calls == [] and told == [] and store.made == 0
    assert levels(store) == [1, 2, 3]


def test_a_grown_cohort_makes_only_what_is_new(tmp_path: Path) -> None:
    Store.build(tmp_path / "c", write(tmp_path, 1, 2), Make(), {})
    make = Make()
    store = Store.build(tmp_path / "c", write(tmp_path, 5, 2, 1, 4), make, {})
    assert make.calls == ["s5", "s4"] and levels(store) == [5, 2, 1, 4]
    assert levels(Store.build(tmp_path / "c", write(tmp_path, 2), make, {})) == [2]


def test_equal_content_is_made_once_whatever_its_name(tmp_path: Path) -> None:
    (first,) = write(tmp_path, 1)
    shutil.copy(tmp_path / "1.bin", tmp_path / "copy.bin")
    make = Make()
    store = Store.build(
        tmp_path / "c", [first, Item("again", None, tmp_path / "copy.bin")], make, {}
    )
    assert len(make.calls) == 1 and levels(store) == [1, 1]
    assert store.nbytes == store.layout.stride


def test_one_file_may_have_several_items(tmp_path: Path) -> None:
    path = write(tmp_path, 7)[0].path
    items = [Item(f"v{v}", v, path, f"volume {v}") for v in range(3)]

    def make(item: Item) -> Row:
        return Row(np.full((2,), item.source, "f4"), {})

    assert levels(Store.build(tmp_path / "c", items, make, {})) == [0, 1, 2]


def test_another_spec_is_another_store(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2)
    for spec in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}):
        Store.build(tmp_path / "c", items, make := Make(), spec)
        assert len(make.calls) == (0 if list(spec) == ["b", "a"] else 2)
    assert [held.spec["b"] for held in cache.sizes(tmp_path / "c")] == [3, 2]


# Never stale --------------------------------------------------------------------------------------


def test_a_changed_file_of_equal_size_and_time_is_noticed(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2)
    store = Store.build(tmp_path / "c", items, Make(), {})
    store.verify()
    path = tmp_path / "1.bin"
    before = path.stat()
    path.write_bytes(b"000009")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    text = (
        f"{path}: the file changed after it was prepared. Call scans(...) again: it is prepared "
        "anew."
    )
    with pytest.raises(ScanError) as caught:
        store.verify()
    assert str(caught.value) == text
    make = Make()
    assert levels(Store.build(tmp_path / "c", items, make, {})) == [9, 2] and make.calls == ["s1"]
    assert levels(store) == [1, 2]  # what was opened stays what it was


def test_a_file_that_is_gone_did_not_change(tmp_path: Path) -> None:
    store = Store.build(tmp_path / "c", write(tmp_path, 1, 2), Make(), {})
    (tmp_path / "1.bin").unlink()
    store.verify()
    assert levels(store) == [1, 2]


def test_a_touched_file_is_read_once_by_many_verifications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.build(tmp_path / "c", write(tmp_path, 1, 2), Make(), {})
    monkeypatch.setattr(contents, "SETTLED", -1)
    os.utime(tmp_path / "1.bin", (1, 1))
    store.verify()
    monkeypatch.setattr("nidl_neuro.store.hashed", fails)
    store.verify()


def test_a_file_that_was_just_written_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SETTLED", 10 * 10**9)
    items = write(tmp_path, 1, 2)
    Store.build(tmp_path / "c", items, Make(), {})
    state = contents.state_of(tmp_path / "1.bin")
    (tmp_path / "1.bin").write_bytes(b"000008")
    monkeypatch.setattr(
        contents, "state_of", lambda path: state
    )  # a coarse clock: it looks the same
    monkeypatch.setattr(building, "state_of", lambda path: state)
    assert levels(Store.build(tmp_path / "c", items, Make(), {})) == [8, 2]


def test_a_touched_file_is_hashed_once_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = write(tmp_path, 1, 2)
    store = Store.build(tmp_path / "c", items, Make(), {})
    os.utime(tmp_path / "1.bin", (1, 1))
    store.verify()
    make, told = Make(), []
    Store.build(tmp_path / "c", items, make, {}, progress=lambda *now: told.append(now))
    assert make.calls == [] and told == [("reading", 1, 2, 0)]
    monkeypatch.setattr(building, "hashed", fails)
    Store.build(tmp_path / "c", items, make, {})


def test_a_file_that_changes_while_it_is_prepared_is_refused(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2)

    def make(item: Item) -> Row:
        row = Make()(item)
        if item.id == "s1":
            (tmp_path / "1.bin").write_bytes(b"000007")
        return row

    store = Store.build(tmp_path / "c", items, make, {}, skip_bad=True)
    assert store.ids == ["s2"] and store.refused == {
        "s1": f"{tmp_path}/1.bin: the file changed while it was prepared. Wait until what writes it has "
        "finished, and run again."
    }
    assert levels(Store.build(tmp_path / "c", items, Make(), {})) == [7, 2]


def test_a_file_that_keeps_changing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(range(100))
    monkeypatch.setattr(contents, "state_of", lambda path: (next(states), 0, 0, 0))
    with pytest.raises(
        ScanError, match="the file changes while it is read. Wait until what writes"
    ):
        Store.build(tmp_path / "c", write(tmp_path, 1), Make(), {})


# What is bad --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_refused_items_are_raised_or_left_out_and_the_others_stay(
    tmp_path: Path, workers: int
) -> None:
    items = write(tmp_path, 1, 2, 3)
    text = f"{tmp_path}/2.bin: it is constant. Leave it out."
    with pytest.raises(ScanError) as caught:
        Store.build(tmp_path / "c", items, Make(bad=("s2",)), {}, workers=workers)
    assert str(caught.value) == text
    store = Store.build(
        tmp_path / "c", items, Make(bad=("s2",)), {}, workers=workers, skip_bad=True
    )
    assert store.ids == ["s1", "s3"] and store.refused == {"s2": text} and levels(store) == [1, 3]
    assert store.made < 2 or workers == 2  # s1 was there from the build that failed


def test_all_items_of_a_refused_content_are_told(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2)
    shutil.copy(tmp_path / "1.bin", tmp_path / "copy.bin")
    items.append(Item("again", None, tmp_path / "copy.bin"))
    store = Store.build(tmp_path / "c", items, Make(bad=("s1",)), {}, skip_bad=True)
    text = f"{tmp_path}/1.bin: it is constant. Leave it out."
    assert store.ids == ["s2"] and store.refused == {"s1": text, "again": text}


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    items = [*write(tmp_path, 1), Item("gone", None, tmp_path / "gone.bin")]
    with pytest.raises(ScanError) as caught:
        Store.build(tmp_path / "c", items, Make(), {})
    assert str(caught.value) == (
        f"{tmp_path}/gone.bin: the file cannot be read: No such file or directory. Put it back, or "
        "leave it out."
    )
    assert list(Store.build(tmp_path / "c", items, Make(), {}, skip_bad=True).refused) == ["gone"]
    with pytest.raises(NoneLeft, match="no item is left: .*gone.*Put it back") as left:
        Store.build(tmp_path / "c", items[1:], Make(), {}, skip_bad=True)
    assert list(pickle.loads(pickle.dumps(left.value)).refused) == ["gone"]


def test_rows_of_another_shape_than_most_are_refused(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2, 3)

    def make(item: Item) -> Row:
        return Make((1, 2, 2) if item.id == "s1" else (1, 3, 3))(item)

    text = (
        f"{tmp_path}/1.bin: its prepared shape is (1, 2, 2), that of 2 others (1, 3, 3). Prepare all "
        "scans to one shape: give the preparation a target shape, such as shape=[3, 3]."
    )
    with pytest.raises(ScanError) as caught:
        Store.build(tmp_path / "c", items, make, {})
    assert str(caught.value) == text
    store = Store.build(tmp_path / "c", items, make, {}, skip_bad=True)
    assert store.refused == {"s1": text} and levels(store) == [2, 3]
    assert levels(Store.build(tmp_path / "c", items[:1], make, {})) == [1]  # alone it is fine


def test_ids_are_unique_and_there_are_some(tmp_path: Path) -> None:
    (item,) = write(tmp_path, 1)
    with pytest.raises(DataError, match=r"two items have the id 's1'\."):
        Store.build(tmp_path / "c", [item, item], Make(), {})
    with pytest.raises(DataError, match=r"there are no items\."):
        Store.build(tmp_path / "c", [], Make(), {})


@pytest.mark.parametrize("workers", [1, 2])
def test_faults_of_the_program_are_not_taken_for_bad_scans(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a fault of the program"):
        Store.build(tmp_path, write(tmp_path, 1, 2), fails, {}, workers=workers, skip_bad=True)


def test_an_interrupted_build_keeps_what_it_made(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2, 3)

    def make(item: Item) -> Row:
        if item.id == "s3":
            raise KeyboardInterrupt
        return Make()(item)

    with pytest.raises(KeyboardInterrupt):
        Store.build(tmp_path / "c", items, make, {}, workers=1)
    again = Make()
    assert levels(Store.build(tmp_path / "c", items, again, {})) == [1, 2, 3]
    assert again.calls == ["s3"]


def test_a_record_that_json_cannot_hold_costs_no_other_row(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2)

    def make(item: Item) -> Row:
        row = Make()(item)
        return row if item.id == "s1" else row._replace(record={"array": row.array})

    with pytest.raises(TypeError, match="not JSON serializable"):
        Store.build(tmp_path / "c", items, make, {}, workers=1)
    assert Store.build(tmp_path / "c", items[:1], fails, {}).made == 0


def test_a_worker_that_dies_is_told_and_nothing_hangs(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match="the process that prepared s[12] ended with status 3"):
        Store.build(tmp_path, write(tmp_path, 1, 2), exits, {}, workers=2, skip_bad=True)


def test_a_function_of_the_users_script_runs_in_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type("Own", (Make,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Own", own, raising=False)
    make = own()
    store = Store.build(tmp_path / "c", write(tmp_path, 1, 2), make, {}, workers=2)
    assert levels(store) == [1, 2] and make.calls == ["s1", "s2"]


def test_processes_are_started_where_the_work_is_worth_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = write(tmp_path, *range(9))
    make = Make()
    Store.build(tmp_path / "c", items, make, {"a": 1})
    assert len(make.calls) == 9  # all in this process
    make = Make()
    monkeypatch.setattr(workers, "_WORTH", 0.0)
    store = Store.build(tmp_path / "c", items, make, {"a": 2})
    assert make.calls == ["s0", "s1", "s2", "s3"] or workers.cores() == 1
    assert levels(store) == list(range(9))


def test_what_a_worker_prints_does_no_harm(tmp_path: Path) -> None:
    store = Store.build(tmp_path / "c", write(tmp_path, 1, 2), prints, {}, workers=2)
    assert levels(store) == [1, 2]


def test_a_disk_that_is_too_small_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: usage)
    items = write(tmp_path, *range(3))
    with pytest.raises(DataError) as caught:
        Store.build(tmp_path / "c", items, Make(), {}, skip_bad=True)
    folder = building.folder_of(tmp_path / "c", {})
    assert str(caught.value) == (
        f"the prepared scans take 12.3 kB, and 1 MB are free at {folder}. Free some space, or name "
        "another folder by the environment variable NIDL_CACHE."
    )


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")]
)
def test_a_store_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(
        DataError, match=f"cannot be written: {reason}. What was prepared until now"
    ):
        Store.build(tmp_path / "c", write(tmp_path, 1), Make(), {}, skip_bad=True)


# Size, progress, memory ---------------------------------------------------------------------------


def test_progress_tells_counts_and_the_size_to_come(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, int]] = []
    items = write(tmp_path, 1, 2, 3)
    store = Store.build(tmp_path / "c", items, Make(), {}, progress=lambda *now: told.append(now))
    assert [now[:3] for now in told] == [
        *[("reading", done, 3) for done in (1, 2, 3)],
        *[("preparing", done, 3) for done in (0, 1, 2, 3)],
    ]
    assert [now[3] for now in told] == [0, 0, 0, 0, *[store.nbytes] * 3]
    (held,) = cache.sizes(tmp_path / "c")
    assert (held.rows, held.spec) == (3, {}) and held.nbytes >= store.nbytes == 3 * 4096


def test_nothing_to_do_starts_no_process() -> None:
    for count in (0, 1, 2, None):
        assert list(workers.mapped(abs, [], count)) == []


def test_rows_are_never_all_in_memory() -> None:
    things, given = list(range(40)), []

    def noted() -> Iterator[int]:
        for thing in things:
            given.append(thing)
            yield thing

    results = building.mapped(abs, list(things), 2)
    next(results)
    results.close()

    class Slow(list[int]):
        def __iter__(self) -> Iterator[int]:
            return noted()

    for taken, _ in enumerate(building.mapped(abs, Slow(things), 2)):
        assert len(given) <= taken + 2 * 2 + 1
        time.sleep(0.005)
    assert len(given) == 40


def test_reading_leaves_no_rows_in_the_memory_of_the_process(tmp_path: Path) -> None:
    status = Path("/proc/self/smaps_rollup")
    if not status.exists():
        pytest.skip("this system does not tell how much memory a process maps")

    def resident() -> int:
        return next(
            int(line.split()[1]) for line in status.read_text().splitlines() if "Rss" in line
        )

    items = [Item(str(n), n, content=str(n)) for n in range(64)]

    def make(item: Item) -> Row:
        return Row(np.full((1, 64, 64, 64), item.source, "f4"), {})

    store = Store.build(tmp_path, items, make, {}, workers=1)
    store.rows([0])
    before = resident()
    for row in range(64):  # 64 MiB
        assert store[row].flat[-1] == row
    assert resident() - before < 16 * 1024


# Processes ----------------------------------------------------------------------------------------


def _report(store: Store, queue: Any) -> None:
    queue.put((levels(store), store.record(1)["number"]))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_store_crosses_process_borders_by_its_path(tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    store = Store.build(tmp_path / "c", write(tmp_path, *range(1, 30)), Make(), {})
    assert len(pickle.dumps(store)) < 29 * np.prod(SHAPE) * 4
    again = pickle.loads(pickle.dumps(store))
    assert levels(again) == levels(store) and again.record(3) == store.record(3)
    if method == "fork":
        pid = os.fork()  # multiprocessing warns of threads that other tests left
        if not pid:
            os._exit(0 if levels(store) == list(range(1, 30)) else 1)
        assert os.waitpid(pid, 0)[1] == 0
    else:
        from torch.utils.data import DataLoader

        loader = DataLoader(store, num_workers=1, batch_size=8, multiprocessing_context="spawn")  # type: ignore[arg-type]
        assert [int(x.flatten()[0]) for batch in loader for x in batch] == list(range(1, 30))


def test_threads_that_build_the_same_store_make_each_row_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = write(tmp_path, *range(6))
    makes = [Make(), Make(), Make()]
    slow = threading.Event()

    def build(make: Make) -> None:
        slow.wait()
        stores.append(Store.build(tmp_path / "c", items, make, {}, workers=1))

    stores: list[Store] = []
    with caplog.at_level(logging.INFO, "nidl_neuro"):
        threads = [threading.Thread(target=build, args=[make]) for make in makes]
        for thread in threads:
            thread.start()
        slow.set()
        for thread in threads:
            thread.join()
    assert sorted(len(make.calls) for make in makes) == [0, 0, 6]
    assert [levels(store) for store in stores] == [list(range(6))] * 3


def test_the_journal_names_a_row_after_its_bytes_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "COMMIT", 0.0)
    flushed: dict[str, int] = {}  # file -> its length when it was flushed last
    flush, append = os.fsync, journal.append

    def noted(number: int) -> None:
        flush(number)
        flushed[os.path.realpath(f"/proc/self/fd/{number}")] = os.fstat(number).st_size

    def checked(path: Path, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if "row" in line:
                layout = Layout(tuple(line["shape"]), tuple(line["mask"]))
                start = line["slot"] * layout.stride
                assert flushed[str(path.with_name(layout.file))] >= start + layout.stride
                size = layout.array_bytes + layout.mask_bytes
                content = path.with_name(layout.file).read_bytes()[start : start + size]
                assert zlib.crc32(content) == line["checksum"]
        append(path, lines)

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell the names of open files")
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(journal, "append", checked)
    store = Store.build(tmp_path / "c", write(tmp_path, 1, 2, 3), Make(), {})
    assert levels(store) == [1, 2, 3] and len(flushed) == 2


# Damage -------------------------------------------------------------------------------------------


def test_rows_whose_journal_or_file_was_cut_are_made_again(tmp_path: Path) -> None:
    items = write(tmp_path, 1, 2, 3)
    store = Store.build(tmp_path / "c", items, Make(), {})
    index = store.folder / JOURNAL
    whole = index.read_bytes()
    for cut in range(0, len(whole), 37):
        index.write_bytes(whole[:cut])
        again = Store.build(tmp_path / "c", items, Make(), {})
        assert levels(again) == [1, 2, 3] and again.damaged() == []
        assert again.record(2)["number"] == 3
    os.truncate(store.folder / store.layout.file, 2 * 4096)
    assert levels(Store.build(tmp_path / "c", items, Make(), {})) == [1, 2, 3]


def test_changed_bytes_on_the_disk_are_found(tmp_path: Path) -> None:
    store = Store.build(tmp_path / "c", write(tmp_path, 1, 2, 3), Make(), {})
    with (store.folder / store.layout.file).open("r+b") as file:
        file.seek(4096 + 100)
        file.write(b"x")
    assert store.damaged() == ["s2"]


# Where stores are ---------------------------------------------------------------------------------


def test_the_default_root_follows_the_system_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("NIDL_CACHE", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    for platform, below in {
        "linux": ".cache/nidl",
        "darwin": "Library/Caches/nidl",
        "win32": "AppData/Local/nidl/Cache",
    }.items():
        monkeypatch.setattr(cache.sys, "platform", platform)
        monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
        assert cache.default_root() == tmp_path / below
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.default_root() == tmp_path / "xdg" / "nidl"
    monkeypatch.setenv("NIDL_CACHE", "~/mine")
    assert cache.default_root() == tmp_path / "mine"
    assert cache.sizes(cache.default_root()) == [] and cache.clear(cache.default_root()) == 0
    assert list(tmp_path.iterdir()) == []


def test_clear_removes_stores_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "c"
    Store.build(root, write(tmp_path, 1), Make(), {"a": 1})
    Store.build(root, write(tmp_path, 1), Make(), {"a": 2})
    (root / "mine").mkdir()
    (root / "mine" / "index.jsonl").write_text("notes of my own")
    (root / "photo.jpg").write_text("x")
    with building.FileLock(building.folder_of(root, {"a": 2}) / "lock"):
        assert cache.clear(root) > 4096
        assert [held.spec for held in cache.sizes(root)] == [{"a": 2}]
    cache.clear(root)
    assert sorted(path.name for path in root.iterdir()) == ["mine", "photo.jpg"]
