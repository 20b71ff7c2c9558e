"""Which content a file has: a hash of its bytes, taken again only where the file may have changed."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nidl_neuro.errors import ScanError

# A file that was written this shortly before it was hashed may be written again within one tick of
# the file system's clock, and look the same: its hash is not trusted. FAT has ticks of 2 s.
SETTLED = 2 * 10**9  # ns


@dataclass(frozen=True)
class Known:
    """A file that was hashed: its state before, and the time."""

    state: tuple[int, ...]
    digest: str
    at: int  # ns since 1970

    def holds(self, state: tuple[int, ...]) -> bool:
        """Whether a file of this state surely has the same bytes still."""
        return self.state == state and self.at - max(state[1:3]) > SETTLED

    def to_line(self, path: str) -> dict[str, Any]:
        """For the journal."""
        return {"file": path, "state": self.state, "digest": self.digest, "at": self.at}

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Known:
        """What `to_line` gave."""
        return cls(tuple(line["state"]), line["digest"], line["at"])


def state_of(path: Path) -> tuple[int, ...]:
    """Size, times of the last change of content and of the file's entry (ns), and inode.

    Nobody can set the third, so that a changed file whose size and time were put back is noticed.
    """
    try:
        found = path.stat()
    except OSError as err:
        raise ScanError(
            path, f"the file cannot be read: {err.strerror}", "Put it back, or leave it out."
        ) from err
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def hashed(path: Path) -> Known:
    """The file's content as it is now. Raises `ScanError` if it cannot be read, or changes meanwhile."""
    for _ in range(3):
        state, at = state_of(path), time.time_ns()
        digest = hashlib.blake2b(digest_size=20)
        try:
            with path.open("rb", buffering=0) as file:
                while piece := file.read(2**20):
                    digest.update(piece)
        except OSError as err:
            raise ScanError(
                path, f"the file cannot be read: {err.strerror}", "Check its rights and its disk."
            ) from err
        if state_of(path) == state:
            return Known(state, digest.hexdigest(), at)
    raise ScanError(
        path, "the file changes while it is read", "Wait until what writes it has finished."
    )


def key_of(path: Path) -> str:
    """The path as the journal names it."""
    return os.path.abspath(path)
