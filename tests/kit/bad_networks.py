"""Encoders and decoders with one fault each; the docstrings say which."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from good_components import LinearDecoder, LinearEncoder
from torch import Tensor, nn
from torch.nn import functional as F

from nidl_core.errors import ShapeError
from nidl_core.interfaces import Encoder

WIDTHS = {"small": 4}  # what FromAGlobal takes its width from


class Abstract(Encoder):
    """It has no forward."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out_features = 3


class FromTheFuture(LinearEncoder):
    """It is made for another interface."""

    interface_version = 99


class OtherName(Encoder):
    """It calls its shape otherwise."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out_features = math.prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class TakesAnything(LinearEncoder):
    """Its parameters have no names."""

    def __init__(self, input_shape: tuple[int, ...], *widths: int) -> None:
        super().__init__(input_shape, *widths)


class ObjectDefault(LinearEncoder):
    """Its default is an object."""

    def __init__(self, input_shape: tuple[int, ...], activation: Any = nn.Identity) -> None:
        super().__init__(input_shape)


class NanDefault(LinearEncoder):
    """Its default is NaN, which JSON does not know."""

    def __init__(self, input_shape: tuple[int, ...], clip: float = math.nan) -> None:
        super().__init__(input_shape)


class IntKeys(LinearEncoder):
    """Its default has keys that JSON makes strings of."""

    def __init__(self, input_shape: tuple[int, ...], gains: Any = {1: 2.0}) -> None:  # noqa: B006
        super().__init__(input_shape)


class Undocumented(LinearEncoder):
    __doc__ = None


class WrongExample(LinearEncoder):
    """Its example gives something else.

    >>> WrongExample((1, 6, 5)).out_features
    5
    """


class NoSuperInit(Encoder):
    """It forgets super().__init__()."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.out_features = math.prod(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class PlainList(LinearEncoder):
    """It keeps its layers in a list, where torch does not find them."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.more = [nn.Linear(4, 4)]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.more[0](super().forward(x))
        return h


class BuiltInEvaluation(LinearEncoder):
    """It comes in evaluation mode."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.eval()


class UnusedParameter(LinearEncoder):
    """It has a layer that it does not use."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.spare = nn.Linear(2, 2)


class InfiniteGradient(LinearEncoder):
    """The norm of a vector of zeros has no finite gradient."""

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return h + (0 * h).square().sum(1, keepdim=True).sqrt()


class Detached(LinearEncoder):
    """Its output has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class BlindToInput(LinearEncoder):
    """It cuts the gradient of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class InPlace(LinearEncoder):
    """It works on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.relu_() if not x.requires_grad else x.relu())


class SinglePrecision(LinearEncoder):
    """Whatever comes, it gives float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class CpuTensor(LinearEncoder):
    """It adds a tensor that it makes on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.ones(4).to(x.dtype)


class LooksAtValues(LinearEncoder):
    """No fault: what it does depends on values, which the device meta has not."""

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return h if bool(x.isfinite().all()) else torch.zeros_like(h)


class FreshNumpyWeights(LinearEncoder):
    """Its weights follow no seed."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        values = np.random.default_rng().standard_normal(4)
        self.layer.bias.data = torch.as_tensor(values, dtype=torch.float32)


class FreshNoise(LinearEncoder):
    """Its training noise follows no seed."""

    def forward(self, x: Tensor) -> Tensor:
        noise = np.random.default_rng().standard_normal() if self.training else 0.0
        return super().forward(x) + noise


class AlwaysDropout(LinearEncoder):
    """It drops features in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5)


class DrawsForNothing(LinearEncoder):
    """It moves the random state in evaluation, to no effect."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * torch.rand(())


class SetsThreads(LinearEncoder):
    """It sets the threads of all."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        torch.set_num_threads(3)


class Seeds(LinearEncoder):
    """It seeds torch for all."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        super().__init__(input_shape)


class PlainStatistic(LinearEncoder):
    """Its running mean is a plain number, which no state_dict has."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.mean = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * float(x.detach().mean())
        return super().forward(x) - self.mean


class Lambda(LinearEncoder):
    """It keeps a lambda."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.activation = lambda h: h

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.activation(super().forward(x))
        return h


class FromAGlobal(LinearEncoder):
    """Its width comes from a global that others may change in their process."""

    def __init__(self, input_shape: tuple[int, ...], size: str = "small") -> None:
        super().__init__(input_shape, WIDTHS[size])


class OtherwiseCompiled(LinearEncoder):
    """Compiled, it does something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if torch.compiler.is_compiling() else 1)


class OtherGradientCompiled(LinearEncoder):
    """Compiled, it gives the same with another gradient."""

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return h.detach() + 2 * (h - h.detach()) if torch.compiler.is_compiling() else h


class InTurns(LinearEncoder):
    """It uses a layer in every other step."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.other, self.steps = nn.Linear(4, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        h = super().forward(x)
        other: Tensor = self.other(h)
        return h + other if self.steps % 2 or not self.training else h


class LosesOddSizes(LinearDecoder):
    """Halved and doubled, an odd side comes back shorter."""

    def __init__(self, latent_dim: int, output_shape: tuple[int, ...]) -> None:
        if len(output_shape) != 3:
            raise ShapeError(f"LosesOddSizes gives images, not {output_shape}.")
        halves = (output_shape[0], *(side // 2 for side in output_shape[1:]))
        super().__init__(latent_dim, halves)
        self.twice = nn.Upsample(scale_factor=2)

    def forward(self, z: Tensor) -> Tensor:
        theta: Tensor = self.twice(super().forward(z))
        return theta


class RefusesAll(LinearEncoder):
    """It takes no shape at all."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        raise ShapeError(f"RefusesAll does not take {input_shape}.")


class BatchNorm(LinearEncoder):
    """It cannot train on one sample."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.norm(super().forward(x))
        return h


class Squeezes(LinearEncoder):
    """A batch of one loses its axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(0)


class DividesByItsDeviation(LinearEncoder):
    """It divides a sample that is alone by its deviation from itself."""

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return h / h.std(0, correction=0) if len(h) == 1 else h


class VagueRefusal(LinearEncoder):
    """It names numbers when it refuses a shape, but not those that came."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        if len(input_shape) != 3:
            raise ShapeError("it takes images of 1 to 16 channels and of 2 axes: see conv37.")


class MuteRefusal(LinearEncoder):
    """It refuses volumes without a word."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        if len(input_shape) == 4:
            raise ShapeError("cannot take this shape")
        super().__init__(input_shape)


class LateFeatures(LinearEncoder):
    """It knows its features only when it has run."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(input_shape)
        del self.out_features

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        self.out_features = h.shape[1]
        return h


class Centres(LinearEncoder):
    """It subtracts the mean of the batch, in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return h - h.mean(0)
