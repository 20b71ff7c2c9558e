"""Any of MONAI's networks as an encoder: x (N, C, *S) -> its last map (N, F, *s) -> h (N, F).

Shapes: N batch, C channels, S spatial ((H, W) or (D, H, W)), F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from nidl_core.errors import InvalidParameter, ShapeError
from nidl_core.interfaces import Encoder
from nidl_monai import _cases
from nidl_monai._building import blaming, checked_args, checked_sample, look_up, make
from nidl_monai._fitting import least_axis, remove, take_batches_of_one, trial
from nidl_monai.networks import ENCODERS


class MonaiEncoder(Encoder):
    """One of MONAI's networks without its head: x (N, C, *S) -> h (N, F).

    Two or three spatial dimensions, as `input_shape` says. Weights are MONAI's own random
    initialisation. `net` is MONAI's network with MONAI's names, for weights from elsewhere:
    `encoder.net.load_state_dict(weights, strict=False)`. Layers that the features do not depend on
    (heads, decoder halves) are taken out, so that every parameter is trained.

    Batch norm takes a batch of one where a map is one voxel (torch refuses): by running statistics.

    Parameters
    ----------
    input_shape: (C, H, W) or (C, D, H, W) of one sample.
    model: a name among `MonaiEncoder.choices()["model"]`.
    model_args: further arguments of MONAI's class, by name: `{"block_config": [2, 2]}`. What
        follows from the shape, belongs to the head or downloads weights is not among them.
    pool: whether h is the mean of the last map over positions (F its channels), as in front of
        MONAI's heads; if not, the whole map, flattened, which keeps where things are.

    Raises `ShapeError` for another rank or a size that is too small for the network,
    `InvalidParameter` for unknown models and impossible values, `UnknownParameter` for names in
    `model_args` that the network does not take.

    Example
    -------
    >>> import torch
    >>> encoder = MonaiEncoder((1, 20, 18, 17), model="resnet10", model_args={"widen_factor": 0.25})
    >>> encoder(torch.zeros(2, 1, 20, 18, 17)).shape, encoder.out_features
    (torch.Size([2, 128]), 128)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        model: str = "densenet121",
        model_args: Mapping[str, Any] | None = None,
        pool: bool = True,
    ) -> None:
        super().__init__()
        channels, size = checked_sample("takes x", "C", "input_shape", input_shape)
        network = look_up(ENCODERS, model)
        args = checked_args(model, model_args)
        if not isinstance(pool, bool):
            raise InvalidParameter("pool", pool, "True or False")
        self.model, self.pool = model, pool
        self.margins = (0,) * len(size)  # zeros appended to each axis
        with blaming(model, args):
            defaults = network.defaults(size, args)
            if network.patches is not None:
                patches = network.patches(size, {**defaults, **args})
                self.margins = tuple(-axis % p for axis, p in zip(size, patches, strict=True))
            padded = tuple(axis + more for axis, more in zip(size, self.margins, strict=True))
            given = network.arguments(channels, padded)
            self.net = make(network, model, args, defaults, given)
        take_batches_of_one(self.net)
        try:
            (self.out_features,), unreached = trial(self, (channels, *size))
        except Exception as err:
            least = least_axis(self, channels, len(size))
            if least is None:
                with blaming(model, args):
                    raise
            raise ShapeError(_too_small(model, channels, size, least)) from err
        remove(self, unreached)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, *S) to h (N, F), with the dtype and device of x."""
        if any(self.margins):  # torch counts axes from the last
            x = F.pad(x, [end for more in reversed(self.margins) for end in (0, more)])
        h = ENCODERS[self.model].features(self.net, x).flatten(2)  # (N, channels, positions)
        return h.mean(2) if self.pool else h.flatten(1)

    @classmethod
    def choices(cls) -> dict[str, list[str]]:
        """The names that `model` takes."""
        return {"model": list(ENCODERS)}

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """Cases for nidl_core.testing: a small network of each family."""
        return _cases.ENCODERS


def _too_small(model: str, channels: int, size: Sequence[int], least: int) -> str:
    got = ", ".join(["N", *map(str, (channels, *size))])
    return (
        f"{model} takes x with axes of at least {least}, got ({got}). Choose a network with fewer "
        "stages, such as 'resnet10' or 'swinvit', which take any size, or pad x."
    )
