"""MONAI's convolutional decoders: z (N, L) -> theta (N, P*C, *S), exactly S.

Shapes: N batch, C channels, S spatial ((H, W) or (D, H, W)), L latent, P raw numbers per value.
Each network starts from a map of S over the product of its strides, rounded up, so that its last
map is as large as S or larger; theta is the beginning of that:

    12x14x12 -> 24x28x24 -> 48x56x48 -> 96x112x96, of which the first 91x109x91
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nidl_core.interfaces import Decoder
from nidl_monai import _cases
from nidl_monai._building import (
    blaming,
    checked_args,
    checked_count,
    checked_sample,
    look_up,
    make,
)
from nidl_monai._fitting import remove, take_batches_of_one, trial
from nidl_monai.networks import DECODERS


class MonaiDecoder(Decoder):
    """One of MONAI's convolutional decoders: z (N, L) -> theta (N, P*C, *S), unconstrained, exact.

    Two or three spatial dimensions and any size, as `output_shape` says. `net` is MONAI's network
    with MONAI's names; an encoder that comes with it is taken out.

    Parameters
    ----------
    latent_dim: L.
    output_shape: (P*C, H, W) or (P*C, D, H, W) of one sample.
    model: "generator" (MONAI's Generator), "varautoencoder" (the second half of its VarAutoEncoder)
        or "autoencoderkl" (the decoder of its AutoencoderKL, after one linear layer).
    model_args: further arguments of MONAI's class, by name: `{"channels": [64, 32]}`. `channels`
        are in MONAI's order, from z to theta for "generator" and from theta to z for the others,
        without theta's own. What follows from the shapes is not among them.

    Raises `ShapeError` for another rank, `InvalidParameter` for unknown models and impossible
    values, `UnknownParameter` for names in `model_args` that the network does not take.

    Example
    -------
    >>> import torch
    >>> decoder = MonaiDecoder(4, (1, 20, 18, 17), model_args={"channels": [16, 8]})
    >>> decoder(torch.zeros(2, 4)).shape
    torch.Size([2, 1, 20, 18, 17])
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        model: str = "generator",
        model_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        channels, size = checked_sample("gives theta", "P*C", "output_shape", output_shape)
        latent_dim = checked_count("latent_dim", latent_dim)
        network = look_up(DECODERS, model)
        args = checked_args(model, model_args)
        self.model, self.size = model, size
        with blaming(model, args):
            defaults = network.defaults(size, args)
            merged = {**defaults, **args}
            given = network.arguments(latent_dim, channels, size, merged)
            self.net = make(network, model, args, defaults, given)
            self.start: nn.Module = nn.Identity()
            if network.first_map is not None:
                first = network.first_map(size, merged)
                self.start = nn.Sequential(
                    nn.Linear(latent_dim, math.prod(first)), nn.Unflatten(1, first)
                )
            take_batches_of_one(self.net)
            shape, unreached = trial(self, (latent_dim,))
            if shape != (channels, *size):
                raise ValueError(f"theta would be {shape} for {(channels, *size)}")
        remove(self, unreached)

    def forward(self, z: Tensor) -> Tensor:
        """Map z (N, L) to theta (N, P*C, *S), with the dtype and device of z."""
        theta = DECODERS[self.model].decode(self.net, self.start(z))
        for axis, length in enumerate(self.size, start=2):
            theta = theta.narrow(axis, 0, length)
        return theta

    @classmethod
    def choices(cls) -> dict[str, list[str]]:
        """The names that `model` takes."""
        return {"model": list(DECODERS)}

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """Cases for nidl_core.testing: each network, small."""
        return _cases.DECODERS
