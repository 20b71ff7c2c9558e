"""Gaussian noise that belongs to a row: the same for it in any batch, order, subset or process.

A row's key is a multiply-and-add hash of its bits; the noise is a counter-based stream of that key,
by the splitmix64 finaliser (Steele, Lea & Flood 2014; constants of Stafford's variant 13) and the
Box-Muller transform. All of it is vectorised int64 arithmetic, which wraps as the hash wants.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, as a signed integer
_MIX1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX2 = 0x94D049BB133111EB - 2**64
_VALUES_AT_ONCE = 2**23  # 64 MiB of int64: volumes are hashed a few rows at a time


def row_noise(x: Tensor, seed: int, draws: int, size: int) -> Tensor:
    """Standard normal noise for each row of x (N, ...): (draws, N, size), float64.

    It depends on `seed` and the row's values alone.
    """
    keys = row_keys(x, seed)  # (N,)
    counters = torch.arange(draws * 2 * size, device=keys.device).view(draws, 1, 2 * size)
    uniform = _uniform(_mix(keys[None, :, None] + (counters + 1) * _GOLDEN))  # (draws, N, 2 size)
    radius = (-2 * uniform[..., :size].log()).sqrt()
    return radius * (2 * math.pi * uniform[..., size:]).cos()


def row_keys(x: Tensor, seed: int) -> Tensor:
    """One int64 key a row of x (N, ...), from `seed` and the bits of its values."""
    rows = x.detach().reshape(len(x), -1)
    if rows.device.type == "mps":  # which has no float64
        rows = rows.cpu()
    if rows.dtype == torch.float64:
        bits = (rows + 0.0).view(torch.int64)  # + 0.0: -0.0 and 0.0 are one value
    else:
        bits = (rows.float() + 0.0).view(torch.int32).long()
    weights = _weights(rows.shape[1], seed, rows.device)
    step = max(1, _VALUES_AT_ONCE // rows.shape[1])
    sums = [(part * weights).sum(1) for part in bits.split(step)]
    return _mix(torch.cat(sums) + seed)


@lru_cache(maxsize=2)
def _weights(size: int, seed: int, device: torch.device) -> Tensor:
    """An odd factor for each position: (size,), int64."""
    index = torch.arange(size, device=device)
    return _mix((index + 1) * _GOLDEN + seed) | 1


def _mix(h: Tensor) -> Tensor:
    h = (h ^ _shift(h, 30)) * _MIX1
    h = (h ^ _shift(h, 27)) * _MIX2
    return h ^ _shift(h, 31)


def _shift(h: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which torch has no unsigned type for."""
    return (h >> bits) & ((1 << (64 - bits)) - 1)


def _uniform(h: Tensor) -> Tensor:
    """Uniform on (0, 1), both ends left out, from the upper 53 bits."""
    return (_shift(h, 11).double() + 0.5) * 2.0**-53
