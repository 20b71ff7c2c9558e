"""From raw numbers to parameters: what all likelihoods here do to theta and to their arguments.

Shapes: N batch, C channels, S spatial (may be empty), P raw numbers per value of x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from nidl_core.errors import InvalidParameter, ShapeError


def blocks(theta: Tensor, parts: int, owner: str) -> tuple[Tensor, ...]:
    """Split theta (N, P*C, *S) into its P blocks (N, C, *S), in float32 or better."""
    if theta.ndim < 2 or theta.shape[1] % parts:
        shape = tuple(theta.shape)
        raise ShapeError(
            f"{owner} takes theta of shape (N, {_times(parts)}C, *S), got {shape}"
            + (f": {shape[1]} channels are not a multiple of {parts}" if theta.ndim > 1 else "")
            + f". Build the decoder with output_shape ({_times(parts)}C, *S), x being (N, C, *S)."
        )
    # A sum of squares over a volume overflows float16 and is coarse in bfloat16.
    return theta.to(torch.promote_types(theta.dtype, torch.float32)).chunk(parts, dim=1)


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


def _times(parts: int) -> str:
    return "" if parts == 1 else f"{parts}*"
