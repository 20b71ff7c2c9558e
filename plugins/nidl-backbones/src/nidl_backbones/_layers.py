"""Hidden layers, and the parameters that every backbone takes: shapes, widths, layer choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real

from torch import nn

from nidl_core.errors import InvalidParameter, ShapeError

# None works in place, so that hooks and probes see each map as its layer gave it.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORMALIZATIONS = ("batch", "group", "instance", "layer")
_BATCH_NORM: dict[int, Callable[[int], nn.Module]] = {
    0: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
# Neighbouring voxels carry the same information, so that maps drop whole channels
# (Tompson et al. 2015, arXiv 1411.4280, sec. 3.2).
_DROPOUT: dict[int, Callable[[float], nn.Module]] = {
    0: nn.Dropout,
    2: nn.Dropout2d,
    3: nn.Dropout3d,
}
_CHANNELS_PER_GROUP = 8


def hidden(
    linear: nn.Module,
    width: int,
    size: tuple[int, ...] = (),
    *,
    activation: str,
    normalization: str | None,
    dropout: float,
) -> nn.Sequential:
    """One hidden layer: `linear`, which gives (N, width, *size), then norm, activation, dropout."""
    layers = [linear]
    if normalization is not None:
        layers.append(_norm(normalization, width, size))
    layers.append(ACTIVATIONS[activation]())
    if dropout > 0:
        layers.append(_DROPOUT[len(size)](float(dropout)))
    return nn.Sequential(*layers)


def needs_bias(normalization: str | None) -> bool:
    """Whether a bias survives the norm: one that centres each channel by itself cancels it."""
    return normalization not in ("batch", "instance")


def check_choices(activation: str, normalization: str | None, dropout: float) -> None:
    """Raise `InvalidParameter` for names that are not in the tables or an impossible dropout."""
    if activation not in tuple(ACTIVATIONS):
        raise InvalidParameter("activation", activation, _one_of(ACTIVATIONS))
    if normalization is not None and normalization not in NORMALIZATIONS:
        raise InvalidParameter("normalization", normalization, f"{_one_of(NORMALIZATIONS)} or None")
    if not (isinstance(dropout, Real) and 0 <= dropout < 1):
        raise InvalidParameter("dropout", dropout, "a number from 0 to below 1")


def checked_shape(parameter: str, shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` as a tuple of plain ints, or `ShapeError` where an axis is no int of at least 1."""
    if not all(_is_count(axis) for axis in shape):
        raise ShapeError(
            f"{parameter} takes ints of at least 1, one an axis, "
            f"got {tuple(shape)}. Give the shape of one sample, x.shape[1:]."
        )
    return tuple(int(axis) for axis in shape)


def checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """`widths` as a tuple of plain ints, or `InvalidParameter`."""
    expected = "a list of ints of at least 1"
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise InvalidParameter("widths", widths, expected)
    widths = tuple(widths)
    if not all(_is_count(width) for width in widths):
        raise InvalidParameter("widths", list(widths), expected)
    return tuple(int(width) for width in widths)


def checked_count(parameter: str, value: int) -> int:
    """`value` as a plain int of at least 1, or `InvalidParameter`."""
    if not _is_count(value):
        raise InvalidParameter(parameter, value, "an int of at least 1")
    return int(value)


def _norm(name: str, width: int, size: tuple[int, ...]) -> nn.Module:
    if name == "batch":
        return _BATCH_NORM[len(size)](width)
    # Layer and instance norm are the ends of group norm (Wu & He 2018, arXiv 1803.08494, fig. 2).
    channels = {"layer": width, "group": _group_size(width), "instance": 1}[name]
    if channels * math.prod(size) == 1:  # a value minus itself: the layer would be constant
        others = "'batch', 'group', 'layer' or None" if width > 1 else "'batch' or None"
        raise InvalidParameter(
            "normalization",
            name,
            f"{others} for width {width}{' on one voxel' if size else ''}, "
            f"where {name!r} has one value at a time to work on",
        )
    return nn.GroupNorm(width // channels, width)


def _group_size(width: int) -> int:
    """The divisor of `width` nearest to 8 on a log scale; never 1, which would be instance norm."""
    divisors = [size for size in range(min(2, width), width + 1) if width % size == 0]
    return min(divisors, key=lambda size: abs(math.log(size / _CHANNELS_PER_GROUP)))


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(repr(name) for name in names)}"
