"""How much memory processes hold and how long they work, as Linux tells it in /proc."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAUSE = 0.1  # seconds from look to look

Held = dict[str, int]


def held(pid: int | str = "self") -> Held:
    """Bytes of a process: `rss` in all, `anonymous` (no file behind them), `pss` (shared ones in part)."""
    found = {"rss": 0, "anonymous": 0, "pss": 0}
    names = {"Rss": "rss", "Anonymous": "anonymous", "Pss": "pss"}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = int(value.split()[0]) * 1024
    return found


def watched(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Held]:
    """What a command prints as JSON in its last line, and the most that it and its children held."""
    most: Held = {"rss": 0, "anonymous": 0, "pss": 0}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    while process.poll() is None:
        now = dict.fromkeys(most, 0)
        for pid in _family(process.pid):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                for name, size in held(pid).items():
                    now[name] += size
        most = {name: max(most[name], now[name]) for name in most}
        time.sleep(PAUSE)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with status {process.returncode}")
    answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return answer, most


def worked() -> float:
    """Seconds that processors have worked for this process and those below it, ended ones included."""
    ticks = sum(_state("self")[13:15])
    for pid in _family(os.getpid())[1:]:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            ticks += sum(_state(pid)[11:13])
    return (ticks + sum(_state("self")[11:13])) / os.sysconf("SC_CLK_TCK")


def _state(pid: int | str) -> list[int]:
    """/proc/PID/stat behind the name, but for the letter of its state: parent, ..."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, fields[1:])]


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(_state(path.parent.name)[1], []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found
