"""Intensities brought to a common scale: prepared = (scanned - shift) / scale, nothing clipped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_neuro.errors import ScanError

SCALINGS = ("zscore", "percentiles", "none")
LOW, HIGH = 1.0, 99.0  # percentiles


def scaling(values: NDArray[Any], how: str, name: str) -> tuple[float, float]:
    """Shift and scale for `values` (M,), those of the mask.

    "zscore" gives them mean 0 and standard deviation 1; "percentiles" brings the 1st to 0 and the
    99th to 1, whatever lies beyond; "none" is 0 and 1. Raises `ScanError` where there is no scale.
    """
    if how == "none":
        return 0.0, 1.0
    _check_varies(values, name, f"the {values.size} voxels of the mask all have the value")
    if how == "zscore":
        return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    low, high = (float(value) for value in np.percentile(values, (LOW, HIGH)))
    if low == high:
        raise ScanError(
            name,
            f"its {LOW:g}st and {HIGH:g}th percentile are both {low:g}, which leaves no scale to "
            "normalise by",
            "Give a mask of the brain, or choose intensity='zscore'.",
        )
    return low, high - low


def check_varies(values: NDArray[Any], how: str, name: str) -> None:
    """Raise `ScanError` for a constant image (*S), unless "none" is to be done with it."""
    if how != "none":
        _check_varies(values, name, "the image is constant, all its voxels have the value")


def _check_varies(values: NDArray[Any], name: str, told: str) -> None:
    if values.min() == values.max():  # rounding would give a constant a tiny deviation
        raise ScanError(
            name,
            f"{told} {values.flat[0]:g}, which leaves no scale to normalise by",
            "Leave the scan out, or choose intensity='none'.",
        )
