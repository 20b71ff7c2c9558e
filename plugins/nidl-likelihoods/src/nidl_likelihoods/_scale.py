"""The scale of a likelihood: from raw numbers, and as an argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from torch import Tensor
from torch.nn import functional as F

from nidl_core.errors import InvalidParameter


def bounded_below(raw: Tensor, minimum: float) -> Tensor:
    """A scale from an unconstrained number, same shape: minimum + softplus(raw).

    The bound keeps the likelihood bounded: where x is constant (a zero background), the best scale
    is 0 and the density there infinite.
    """
    return minimum + F.softplus(raw)


def check_scale(scale: float | str, names: Sequence[str], min_scale: float) -> None:
    """Raise `InvalidParameter` unless scale is positive or in `names`, and min_scale positive."""
    if scale not in names if isinstance(scale, str) else not _is_positive(scale):
        modes = " or ".join(repr(name) for name in names)
        raise InvalidParameter("scale", scale, f"a finite number above 0, or {modes}")
    if not _is_positive(min_scale):
        raise InvalidParameter("min_scale", min_scale, "a finite number above 0")


def _is_positive(value: object) -> bool:
    # bool is a number to Python, but True is no scale.
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf
