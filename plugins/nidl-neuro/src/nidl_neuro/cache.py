"""Where stores are kept, how large they are, and how to be rid of them."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nidl_neuro import journal
from nidl_neuro.index import JOURNAL, LOCK
from nidl_neuro.rights import file_mode


@dataclass(frozen=True)
class Held:
    """A store on the disk: its folder, the preparation, its rows and bytes, when it last grew (s)."""

    folder: Path
    spec: Any
    rows: int
    nbytes: int
    grown: float


def default_root() -> Path:
    """The folder of stores: NIDL_CACHE, or `nidl` where the system keeps caches. Nothing is created.

    See `nidl_neuro.rights` for who may read it.
    """
    if named := os.environ.get("NIDL_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "nidl" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nidl"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "nidl"


def sizes(root: Path) -> list[Held]:
    """The stores below `root`, the one that grew last first."""
    return sorted(_held(root), key=lambda held: held.grown, reverse=True)


def clear(root: Path) -> int:
    """Remove the stores below `root`; how many bytes they took.

    Only stores are removed, and none that a process is building. Models and images are not touched.
    """
    freed = 0
    for held in list(_held(root)):
        trash = held.folder.with_name(f".{held.folder.name}.{uuid.uuid4().hex}")
        try:
            with FileLock(held.folder / LOCK, timeout=0, mode=file_mode(held.folder)):
                held.folder.rename(trash)  # in one step: nobody finds half a store
        except Timeout:
            continue
        shutil.rmtree(trash)
        freed += held.nbytes
    return freed


def _held(root: Path) -> Iterator[Held]:
    for path in sorted(root.glob(f"*/{JOURNAL}")):
        lines = [line for _, line in journal.read(path)]
        if lines and "spec" in lines[0]:
            rows = len({line["row"] for line in lines if "row" in line})
            nbytes = sum(file.stat().st_size for file in path.parent.iterdir())
            yield Held(path.parent, lines[0]["spec"], rows, nbytes, path.stat().st_mtime)
