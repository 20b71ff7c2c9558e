"""What two sets of scans have in common: scans, by their prepared voxels, and people, by their names.

N scans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.data import Scans

HASH = 16  # bytes
_BYTES = 2**26  # of voxels at once, about


def people(data: Scans) -> list[str]:
    """Who each scan is of: its `sub`; a scan without one is of a person of its own."""
    return [scan.entities.get("sub", scan.id) for scan in data.cohort]


def contents(data: Scans, rows: Sequence[int] | NDArray[Any] | None = None) -> list[bytes]:
    """A hash of the prepared voxels of all scans, or of these rows, whatever their files are called."""
    chosen = np.arange(len(data)) if rows is None else np.asarray(rows, dtype=int)
    return [hashlib.blake2b(row, digest_size=HASH).digest() for row in _rows(data, chosen)]


def same_scans(data: Scans, other: Scans) -> NDArray[np.bool_]:
    """Which scans of `other` (N,) are among `data`, under whatever name."""
    seen = set(contents(data))
    return np.array([content in seen for content in contents(other)])


def same_people(data: Scans, other: Scans) -> NDArray[np.bool_]:
    """Which scans of `other` (N,) are of a `sub` that `data` have too."""
    seen = {scan.entities.get("sub") for scan in data.cohort} - {None}
    return np.array([scan.entities.get("sub") in seen for scan in other.cohort])


def _rows(data: Scans, chosen: NDArray[np.intp]) -> Iterator[bytes]:
    size = max(1, _BYTES // (4 * int(np.prod(data.x.shape[1:]))))
    for start in range(0, len(chosen), size):
        for row in data.x[chosen[start : start + size]]:
            yield np.ascontiguousarray(row).tobytes()
