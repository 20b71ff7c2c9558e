"""Whether scans that are called held out are: what of them is also among the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nidl_core.errors import DataError
from nidl_neuro.data import Scans
from nidl_neuro.overlap import same_people, same_scans


@dataclass(frozen=True, eq=False)
class Apart:
    """The held-out scans without those that are among the data."""

    data: Scans  # of N scans
    same: tuple[str, ...]  # ids of what was taken out: the same voxels are among the data
    of_known: NDArray[np.bool_]  # (N,), of a participant whose name is among the data's


def apart(data: Scans, val: Scans) -> Apart:
    """Take the scans out of `val` that are among `data`. Raises `DataError` if none is left."""
    same = same_scans(data, val)
    if same.all():
        raise DataError(
            f"all {len(val)} held-out scans are also among the {len(data)} scans of the report. Hand in "
            "others, or none: then probes are cross-validated."
        )
    kept = val.take(np.flatnonzero(~same)) if same.any() else val
    taken = tuple(val.ids[row] for row in np.flatnonzero(same))
    return Apart(kept, taken, same_people(data, kept))
