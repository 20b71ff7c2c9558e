"""Convolutional encoder and decoder, written once for any number of spatial dimensions.

Shapes: N batch, C channels, S spatial ((H, W) or (D, H, W)), F features, L latent, P raw numbers
per value. Each stage halves every axis, s -> ceil(s / 2), and an axis of 1 stays 1:

    91x109x91 -> 46x55x46 -> 23x28x23 -> 12x14x12 -> 6x7x6

The decoder goes the same way back: of the two sizes that a halved axis can come from,
`output_padding` picks the one that the encoder saw, for each axis by itself. So any size is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from nidl_backbones._layers import (
    check_choices,
    checked_count,
    checked_shape,
    checked_widths,
    hidden,
    needs_bias,
)
from nidl_core.errors import InvalidParameter, ShapeError
from nidl_core.interfaces import Decoder, Encoder

_AXES = {2: "H, W", 3: "D, H, W"}
_CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE: dict[int, Callable[..., nn.Module]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_FIRST_WIDTH = {2: 32, 3: 16}  # a volume has more voxels to hold than an image
_MAX_WIDTH = 256
_MAX_STAGES = 5
_SMALL = 7  # default stages end once the longest axis is no longer than this


class _CNNEncoder(Encoder):
    num_spatial_dims: ClassVar[int]

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        widths: Sequence[int] | None = None,
        depth: int = 1,
        kernel_size: int = 3,
        activation: str = "relu",
        normalization: str | None = "group",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dims = self.num_spatial_dims
        channels, *axes = _checked_sample(dims, "takes x", "C", "input_shape", input_shape)
        check_choices(activation, normalization, dropout)
        kernel = _checked_kernel(kernel_size)
        depth = checked_count("depth", depth)
        if widths is None:
            widths = _default_widths(axes)
        widths = checked_widths(widths)
        sizes = _sizes(axes, widths)

        conv = partial(
            _CONV[dims], kernel_size=kernel, padding=kernel // 2, bias=needs_bias(normalization)
        )
        layer = partial(hidden, activation=activation, normalization=normalization, dropout=dropout)
        layers: list[nn.Module] = []
        for before, width, size in zip((channels, *widths), widths, sizes[1:], strict=False):
            layers.append(layer(conv(before, width, stride=2), width, size))
            layers += [layer(conv(width, width), width, size) for _ in range(depth - 1)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.out_features = widths[-1] * math.prod(sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, *S) to h (N, F), with the dtype and device of x."""
        h: Tensor = self.layers(x)  # (N, widths[-1], *smallest), flattened
        return h


class _CNNDecoder(Decoder):
    num_spatial_dims: ClassVar[int]

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        widths: Sequence[int] | None = None,
        depth: int = 1,
        kernel_size: int = 3,
        activation: str = "relu",
        normalization: str | None = "group",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dims = self.num_spatial_dims
        channels, *axes = _checked_sample(dims, "gives theta", "P*C", "output_shape", output_shape)
        latent_dim = checked_count("latent_dim", latent_dim)
        check_choices(activation, normalization, dropout)
        kernel = _checked_kernel(kernel_size)
        depth = checked_count("depth", depth)
        if widths is None:
            widths = _default_widths(axes)[::-1]
        widths = checked_widths(widths)
        smallest, *sizes = reversed(_sizes(axes, widths))

        bias = needs_bias(normalization)
        conv = partial(_CONV[dims], kernel_size=kernel, padding=kernel // 2)
        up = partial(
            _CONV_TRANSPOSE[dims], kernel_size=kernel, padding=kernel // 2, stride=2, bias=bias
        )
        layer = partial(hidden, activation=activation, normalization=normalization, dropout=dropout)
        # Its bias is one a voxel, the mean map: no norm over a channel cancels that.
        seed = nn.Sequential(
            nn.Linear(latent_dim, widths[0] * math.prod(smallest)),
            nn.Unflatten(1, (widths[0], *smallest)),  # (N, widths[0], *smallest)
        )
        layers: list[nn.Module] = [layer(seed, widths[0], smallest)]
        # At full size nearly all time and memory is spent, so the halving goes on there.
        last = (widths[-1] + 1) // 2
        for before, width, size in zip(widths, (*widths[1:], last), sizes, strict=True):
            # Without padding, an axis of n becomes 2n - 1, the odd one of its two origins.
            padding = tuple(1 - axis % 2 for axis in size)
            layers.append(layer(up(before, width, output_padding=padding), width, size))
            layers += [layer(conv(width, width, bias=bias), width, size) for _ in range(depth - 1)]
        self.layers = nn.Sequential(*layers, conv(last, channels))

    def forward(self, z: Tensor) -> Tensor:
        """Map z (N, L) to theta (N, P*C, *S), with the dtype and device of z."""
        theta: Tensor = self.layers(z)
        return theta


class CNN2dEncoder(_CNNEncoder):
    """Convolutional encoder of images: x (N, C, H, W) -> h (N, F), the last map flattened.

    Each stage is a convolution of stride 2, which halves both axes (rounded up), then `depth` - 1
    convolutions of stride 1, each followed by normalization, activation and dropout.

    Parameters
    ----------
    input_shape: (C, H, W) of one sample.
    widths: channels of each stage, from x to h. None: as many stages (1 to 5) as bring the longest
        axis to 7 or less, with 32, 64, 128, 256, 256 channels.
    depth: convolutions a stage.
    kernel_size: odd.
    activation: "elu", "gelu", "leaky_relu", "relu", "silu" or "tanh".
    normalization: "batch", "group" (about 8 channels a group), "instance", "layer" or None. Batch
        norm cannot train on a batch of one where the last map is one pixel.
    dropout: share of the channels that each layer drops in training, in [0, 1).

    Raises `ShapeError` for another rank and `InvalidParameter` for impossible values.

    Example
    -------
    >>> import torch
    >>> encoder = CNN2dEncoder((1, 30, 28), widths=[8, 16, 32])  # 15x14, 8x7, 4x4
    >>> encoder(torch.zeros(2, 1, 30, 28)).shape, encoder.out_features
    (torch.Size([2, 512]), 512)
    """

    num_spatial_dims = 2


class CNN3dEncoder(_CNNEncoder):
    """Convolutional encoder of volumes: x (N, C, D, H, W) -> h (N, F), the last map flattened.

    Each stage is a convolution of stride 2, which halves all axes (rounded up), then `depth` - 1
    convolutions of stride 1, each followed by normalization, activation and dropout.

    Parameters
    ----------
    input_shape: (C, D, H, W) of one sample.
    widths: channels of each stage, from x to h. None: as many stages (1 to 5) as bring the longest
        axis to 7 or less, with 16, 32, 64, 128, 256 channels.
    depth: convolutions a stage.
    kernel_size: odd.
    activation: "elu", "gelu", "leaky_relu", "relu", "silu" or "tanh".
    normalization: "batch", "group" (about 8 channels a group), "instance", "layer" or None. Batch
        norm cannot train on a batch of one where the last map is one voxel.
    dropout: share of the channels that each layer drops in training, in [0, 1).

    Raises `ShapeError` for another rank and `InvalidParameter` for impossible values.

    Example
    -------
    >>> import torch
    >>> encoder = CNN3dEncoder((1, 9, 11, 8), widths=[4, 8])  # 5x6x4, 3x3x2
    >>> encoder(torch.zeros(2, 1, 9, 11, 8)).shape, encoder.out_features
    (torch.Size([2, 144]), 144)
    """

    num_spatial_dims = 3


class CNN2dDecoder(_CNNDecoder):
    """Convolutional decoder of images: z (N, L) -> theta (N, P*C, H, W), unconstrained, exact.

    A linear layer gives the smallest map; each stage is a transposed convolution of stride 2 to the
    size that the encoder passed through, then `depth` - 1 convolutions, each followed by
    normalization, activation and dropout; a last convolution gives theta.

    Parameters
    ----------
    latent_dim: L.
    output_shape: (P*C, H, W) of one sample.
    widths: channels that each stage starts from, from z to theta, e.g. [64, 32, 16]; the last stage
        gives half of its own, rounded up, to the convolution that gives theta. None: the
        default of `CNN2dEncoder` for the same size, turned round.
    depth: convolutions a stage, the transposed one included.
    kernel_size: odd.
    activation: "elu", "gelu", "leaky_relu", "relu", "silu" or "tanh".
    normalization: "batch", "group" (about 8 channels a group), "instance", "layer" or None. Batch
        norm cannot train on a batch of one where the smallest map is one pixel.
    dropout: share of the channels that each layer drops in training, in [0, 1).

    Raises `ShapeError` for another rank and `InvalidParameter` for impossible values.

    Example
    -------
    >>> import torch
    >>> decoder = CNN2dDecoder(5, (1, 30, 28), widths=[32, 16, 8])  # 4x4, 8x7, 15x14, 30x28
    >>> decoder(torch.zeros(2, 5)).shape
    torch.Size([2, 1, 30, 28])
    """

    num_spatial_dims = 2


class CNN3dDecoder(_CNNDecoder):
    """Convolutional decoder of volumes: z (N, L) -> theta (N, P*C, D, H, W), unconstrained, exact.

    A linear layer gives the smallest map; each stage is a transposed convolution of stride 2 to the
    size that the encoder passed through, then `depth` - 1 convolutions, each followed by
    normalization, activation and dropout; a last convolution gives theta.

    Parameters
    ----------
    latent_dim: L.
    output_shape: (P*C, D, H, W) of one sample.
    widths: channels that each stage starts from, from z to theta, e.g. [64, 32, 16]; the last stage
        gives half of its own, rounded up, to the convolution that gives theta. None: the
        default of `CNN3dEncoder` for the same size, turned round.
    depth: convolutions a stage, the transposed one included.
    kernel_size: odd.
    activation: "elu", "gelu", "leaky_relu", "relu", "silu" or "tanh".
    normalization: "batch", "group" (about 8 channels a group), "instance", "layer" or None. Batch
        norm cannot train on a batch of one where the smallest map is one voxel.
    dropout: share of the channels that each layer drops in training, in [0, 1).

    Raises `ShapeError` for another rank and `InvalidParameter` for impossible values.

    Example
    -------
    >>> import torch
    >>> decoder = CNN3dDecoder(5, (2, 9, 11, 8), widths=[8, 4])  # 3x3x2, 5x6x4, 9x11x8
    >>> decoder(torch.zeros(2, 5)).shape
    torch.Size([2, 2, 9, 11, 8])
    """

    num_spatial_dims = 3


def _default_widths(size: Sequence[int]) -> tuple[int, ...]:
    """Channels of the encoder's stages for data of `size`, doubling up to a cap."""
    stages, longest = 1, _halved(max(size))
    while longest > _SMALL and stages < _MAX_STAGES:
        stages, longest = stages + 1, _halved(longest)
    return tuple(min(_FIRST_WIDTH[len(size)] * 2**stage, _MAX_WIDTH) for stage in range(stages))


def _sizes(size: Sequence[int], widths: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sizes that the encoder passes through, from `size` on: one more than stages."""
    if not widths:
        raise InvalidParameter("widths", [], "one int or more, one a stage, or None")
    sizes = [tuple(size)]
    for _ in widths:
        sizes.append(tuple(_halved(axis) for axis in sizes[-1]))
    # A first stage is always there; those that begin at one voxel would have nothing to halve.
    useful = max(1, (max(size) - 1).bit_length())
    if len(widths) > useful:
        raise InvalidParameter(
            "widths",
            list(widths),
            f"a list of at most {useful}, the stages that bring {_text(size)} down to one voxel",
        )
    return sizes


def _halved(axis: int) -> int:
    return (axis + 1) // 2  # a convolution of stride 2, padded by half its kernel


def _checked_kernel(kernel_size: int) -> int:
    if checked_count("kernel_size", kernel_size) % 2 == 0:
        raise InvalidParameter("kernel_size", kernel_size, "odd, to pad both sides alike")
    return int(kernel_size)


def _checked_sample(
    dims: int, verb: str, channels: str, parameter: str, shape: Sequence[int]
) -> tuple[int, ...]:
    """(channels, *S) as a tuple, or `ShapeError` if S has not `dims` axes."""
    sample = checked_shape(parameter, shape)
    if len(sample) != dims + 1:
        got = ", ".join(["N", *map(str, sample)])
        raise ShapeError(
            f"cnn{dims}d {verb} of shape (N, {channels}, {_AXES[dims]}), got ({got}). "
            f"{_remedy(dims, sample)}"
        )
    return sample


def _remedy(dims: int, sample: tuple[int, ...]) -> str:
    """What would fit data of `sample`, whose rank is wrong for `dims`; its channels may lack."""
    given = len(sample) - 1
    lacks_channels = len(sample) == dims
    if lacks_channels and sample[0] > 4:  # rarely a number of channels
        return "Add a channel axis: x[:, None]."
    fits = f"Choose cnn{given}d" if given in _CONV else "Choose mlp, which takes any shape"
    if lacks_channels:
        return f"{fits}, or add a channel axis: x[:, None]."
    if len(sample) in _CONV and given not in _CONV:
        return f"{fits}, or cnn{len(sample)}d with a channel axis: x[:, None]."
    return f"{fits}."


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
