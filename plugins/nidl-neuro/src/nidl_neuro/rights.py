"""Who may read and change what is in a cache: those who may its root, and nobody else.

A root that is made here is its owner's alone. A group that shares one makes the folder itself, with
the rights that all in it are to have (chmod 2770), and names it by NIDL_CACHE.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_OWN = stat.S_IRWXU
_OTHERS = stat.S_IRWXG | stat.S_IRWXO | stat.S_ISGID


def make_folder(folder: Path) -> None:
    """Make a folder, if there is none, with the rights of the one it lies in, which is made if need be.

    In a folder of everyone's, such as /tmp, it is its owner's alone.
    """
    root = folder.parent
    root.mkdir(_OWN, parents=True, exist_ok=True)
    mode = root.stat().st_mode
    with contextlib.suppress(FileExistsError):
        folder.mkdir(_OWN)
        if not mode & stat.S_ISVTX:
            _allow(folder, _OWN | mode & _OTHERS)


def make_file(path: Path) -> None:
    """Make an empty file, if there is none, for those who may read or change its folder."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR))
        _allow(path, file_mode(path.parent))


def file_mode(folder: Path) -> int:
    """The rights of files in a folder."""
    return folder.stat().st_mode & 0o666


def _allow(path: Path, mode: int) -> None:
    with contextlib.suppress(OSError):  # of file systems that know no rights
        path.chmod(mode)
