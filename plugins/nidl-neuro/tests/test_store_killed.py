"""Builds that are killed, and builds that race: no torn row is ever read, and the next one goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROWS = 30
SCRIPT = Path(__file__).with_name("store_makes.py")


def write(folder: Path) -> None:
    for number in range(ROWS):
        (folder / f"s{number:02}.bin").write_bytes(b"%06d" % number)


def start(folder: Path, workers: int) -> subprocess.Popen[str]:
    search = os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder, str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    return out.strip()


def log(folder: Path) -> list[str]:
    path = folder / "log"
    return path.read_text().split() if path.exists() else []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill -9")
def test_twenty_kills_leave_no_torn_row_and_the_next_build_goes_on(tmp_path: Path) -> None:
    chance = random.Random(0)
    kills = saved = 0
    for attempt in range(20):
        folder = tmp_path / str(attempt // 4)  # four kills on the way to one store
        if not attempt % 4:
            folder.mkdir()
            write(folder)
        known = len(log(folder))
        process = start(folder, workers=1 + attempt % 2)
        deadline = time.monotonic() + 30
        while len(log(folder)) == known and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)  # the imports are not what is to be killed
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()
        if attempt % 4 == 3:
            made, right, damaged = ended(start(folder, workers=1)).split()
            assert (right, damaged) == ("True", "[]")
            saved += ROWS - int(made)
    assert kills >= 15  # most died in the middle
    assert saved >= ROWS  # and what they had made was used


def test_processes_of_a_killed_build_end_by_themselves(tmp_path: Path) -> None:
    write(tmp_path)
    process = start(tmp_path, workers=2)
    while not log(tmp_path):
        time.sleep(0.005)
    children = _children(process.pid)
    assert len(children) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_runs(pid) for pid in children)


def test_processes_that_build_at_once_make_each_row_once(tmp_path: Path) -> None:
    write(tmp_path)
    told = [ended(process) for process in [start(tmp_path, workers=1 + n) for n in range(2)]]
    assert sorted(told) == ["0 True []", f"{ROWS} True []"]
    assert sorted(log(tmp_path)) == [f"s{number:02}" for number in range(ROWS)]


def _children(pid: int) -> list[int]:
    if not Path("/proc").is_dir():
        pytest.skip("this system does not tell which processes there are")
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(state[1]) == pid:
            found.append(int(path.parent.name))
    return found


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return state[0] != "Z"
