"""Fully connected encoder and decoder, for images, volumes and tables of features alike.

Shapes: N batch, C channels, S spatial (may be empty), F features, L latent, P raw numbers per
value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from nidl_backbones._layers import (
    check_choices,
    checked_count,
    checked_shape,
    checked_widths,
    hidden,
    needs_bias,
)
from nidl_core.errors import ShapeError
from nidl_core.interfaces import Decoder, Encoder


class MLPEncoder(Encoder):
    """Fully connected encoder: x (N, C, *S) -> h (N, F), F the last of `widths`.

    Each hidden layer is Linear -> normalization -> activation -> dropout. With `widths=()` there is
    none: h is x flattened (F = C * prod(S)), so that the linear heads of a VAE make a linear VAE.

    Parameters
    ----------
    input_shape: (C, *S) of one sample; S may be empty.
    widths: width of each hidden layer, from x to h.
    activation: "elu", "gelu", "leaky_relu", "relu", "silu" or "tanh".
    normalization: "batch", "group" (about 8 features a group), "layer" or None. Batch norm cannot
        train on a batch of one.
    dropout: share of the features that each hidden layer drops in training, in [0, 1).

    Raises `ShapeError` for a shape without channels, `InvalidParameter` for impossible values.

    Example
    -------
    >>> import torch
    >>> encoder = MLPEncoder((1, 8, 6), widths=(32, 16))
    >>> encoder(torch.zeros(4, 1, 8, 6)).shape, encoder.out_features
    (torch.Size([4, 16]), 16)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        widths: Sequence[int] = (256, 128),
        activation: str = "relu",
        normalization: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        shape = _checked_sample("takes x of shape (N, C, *S)", "input_shape", input_shape)
        check_choices(activation, normalization, dropout)
        sizes = (math.prod(shape), *checked_widths(widths))
        self.layers = nn.Sequential(
            nn.Flatten(), *_hidden_layers(sizes, activation, normalization, dropout)
        )
        self.out_features = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, *S) to h (N, F), with the dtype and device of x."""
        h: Tensor = self.layers(x)
        return h


class MLPDecoder(Decoder):
    """Fully connected decoder: z (N, L) -> theta (N, P*C, *S), unconstrained.

    Each hidden layer is Linear -> normalization -> activation -> dropout; a last Linear gives
    theta. With `widths=()` this one Linear is the whole decoder.

    Parameters
    ----------
    latent_dim: L.
    output_shape: (P*C, *S) of one sample; S may be empty.
    widths: width of each hidden layer, from z to theta.
    activation: "elu", "gelu", "leaky_relu", "relu", "silu" or "tanh".
    normalization: "batch", "group" (about 8 features a group), "layer" or None. Batch norm cannot
        train on a batch of one.
    dropout: share of the features that each hidden layer drops in training, in [0, 1).

    Raises `ShapeError` for a shape without channels, `InvalidParameter` for impossible values.

    Example
    -------
    >>> import torch
    >>> decoder = MLPDecoder(5, (1, 8, 6), widths=(16, 32))
    >>> decoder(torch.zeros(4, 5)).shape
    torch.Size([4, 1, 8, 6])
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        widths: Sequence[int] = (128, 256),
        activation: str = "relu",
        normalization: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        shape = _checked_sample("gives theta of shape (N, P*C, *S)", "output_shape", output_shape)
        check_choices(activation, normalization, dropout)
        sizes = (checked_count("latent_dim", latent_dim), *checked_widths(widths))
        self.layers = nn.Sequential(
            *_hidden_layers(sizes, activation, normalization, dropout),
            nn.Linear(sizes[-1], math.prod(shape)),
            nn.Unflatten(1, shape),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map z (N, L) to theta (N, P*C, *S), with the dtype and device of z."""
        theta: Tensor = self.layers(z)
        return theta


def _hidden_layers(
    sizes: tuple[int, ...], activation: str, normalization: str | None, dropout: float
) -> list[nn.Module]:
    """A hidden layer for each step of `sizes`, the first of which is the size of what comes in."""
    linear = partial(nn.Linear, bias=needs_bias(normalization))
    layer = partial(hidden, activation=activation, normalization=normalization, dropout=dropout)
    return [layer(linear(before, after), after) for before, after in pairwise(sizes)]


def _checked_sample(fits: str, parameter: str, shape: Sequence[int]) -> tuple[int, ...]:
    sample = checked_shape(parameter, shape)
    if not sample:
        raise ShapeError(f"mlp {fits}, got (N,). Add a channel axis: x[:, None].")
    return sample
