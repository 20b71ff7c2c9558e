"""The bound of a model per voxel, so that models of other grids and masks can be told apart from it."""

from __future__ import annotations

import math
from typing import Any


def bits_per_voxel(model: Any, data: Any) -> float:
    """What a voxel of these scans costs: -ELBO / (M ln 2), in bits; lower is better.

    ELBO is `model.score(data)`, the mean evidence lower bound in nats per scan; M is the number of
    values that it counts: the voxels in the mask of the fit, times the channels. Voxels are
    continuous, so that a cost below 0 is possible, and it depends on the unit: it is that of the
    prepared intensities, a standard deviation of the scan with intensity="zscore". In scanner units
    a voxel costs log2(`record.scale`) bits more. Only models of equally prepared scans compare.

    Raises what `score` raises.

    Example:
        >>> from types import SimpleNamespace
        >>> model = SimpleNamespace(input_shape_=(1, 2, 2, 2), data_mask=None, score=lambda data: -16.0)
        >>> round(bits_per_voxel(model, None), 3)
        2.885
    """
    return bits(float(model.score(data)), values_counted(model))


def bits(bound: float, values: int) -> float:
    """A bound in nats per scan as what each of its values costs, in bits: lower is better."""
    return -bound / (values * math.log(2))


def values_counted(model: Any) -> int:
    """M: the values of a scan that the bound of a fitted model counts."""
    shape, mask = model.input_shape_, getattr(model, "data_mask", None)
    return math.prod(shape) if mask is None else shape[0] * int(mask.sum())
