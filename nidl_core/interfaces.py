"""The contract: what each kind of component takes and gives.

Shapes: N batch, C channels, S spatial (may be empty: tables of features), F features,
L latent, P raw numbers per value of x. x (N, C, *S) -> h (N, F); z (N, L) -> theta (N, P*C, *S).

Components are built when the shape of the data is known: `Encoder(input_shape, **params)`,
`Decoder(latent_dim, output_shape, **params)`, `Likelihood(**params)`, `Loss(**params)`. The fifth
interface, Estimator, stands in `nidl_core.estimator`. A subclass names its parameters in its
`__init__` (no `**kwargs`) and calls `super().__init__()`.

A class may carry more, none of it required:

- `interface_version`, an int: the version of this contract that it was made for. A missing one
  counts as 1; the current one and the one before are accepted.
- `conformance()`, a classmethod: how `nidl_core.testing` is to build it (see its `cases`).
- `choices()`, a classmethod: parameter -> list of the names that it takes, for `nidl show`.
"""

from __future__ import annotations

import abc
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from nidl_core.errors import DataError, ShapeError, SpecError

Support = Literal["real", "positive", "unit", "binary", "count"]


class Encoder(nn.Module, abc.ABC):
    """Features of images: x (N, C, *S) -> h (N, F).

    Built as `Encoder(input_shape, **params)` with `input_shape` (C, *S). Raises `ShapeError` for a
    shape that it cannot take, in words that say what would fit.
    """

    out_features: int  # F, known after __init__

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, *S) to h (N, F), with the dtype and device of x."""


class Decoder(nn.Module, abc.ABC):
    """Raw likelihood parameters from latents: z (N, L) -> theta (N, *output_shape), unconstrained.

    Built as `Decoder(latent_dim, output_shape, **params)` with `output_shape` (P*C, *S), and gives
    exactly that shape back, or raises `ShapeError` when built.
    """

    @abc.abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Map z (N, L) to theta (N, P*C, *S), with the dtype and device of z."""


class Likelihood(nn.Module, abc.ABC):
    """p(x | z): turns raw decoder output into a distribution over images."""

    params_per_value: int = 1  # P: raw numbers the decoder gives for each value of x
    support: Support = "real"  # where x may lie; checked on the first batch

    @abc.abstractmethod
    def forward(self, theta: Tensor) -> Distribution:
        """Constrain `theta` (N, P*C, *S) and return p: batch (N,), event (C, *S), log_prob in nats.

        Begin with `self.split(theta)`.
        """

    def split(self, theta: Tensor) -> tuple[Tensor, ...]:
        """The P blocks of theta (N, P*C, *S), each (N, C, *S), in float32 or better.

        Half precision ends here: a sum of squares over a volume overflows float16 and is coarse in
        bfloat16. Raises `ShapeError` unless the channels divide by P.
        """
        parts = self.params_per_value
        if theta.ndim < 2 or theta.shape[1] % parts:
            times, shape = "" if parts == 1 else f"{parts}*", tuple(theta.shape)
            count = f": {shape[1]} channels are not a multiple of {parts}" if theta.ndim > 1 else ""
            raise ShapeError(
                f"{self!r} takes theta of shape (N, {times}C, *S), got {shape}{count}. Build the "
                f"decoder with output_shape ({times}C, *S), x being (N, C, *S)."
            )
        return theta.to(torch.promote_types(theta.dtype, torch.float32)).chunk(parts, dim=1)

    def observe(self, x: Tensor, theta: Tensor) -> None:
        """See a training batch x (N, C, *S), just before `forward(theta)`. By default, nothing.

        For a likelihood that depends on the data (a scale estimated from residuals, say). What it
        learns belongs in buffers, reduced over processes; evaluation only reads them.
        """

    def check(self, x: Tensor) -> None:
        """Raise `DataError` if x (N, C, *S) lies outside the support, in words that say what to do."""
        name = type(self).__name__
        if self.support not in _SUPPORTS:
            raise SpecError(
                f"{name}.support is {self.support!r}, not one of {', '.join(_SUPPORTS)}."
            )
        inside, remedy = _SUPPORTS[self.support]
        if self.support != "real" and not bool(torch.isfinite(x).all()):
            raise DataError(
                f"{name} takes {remedy[0]}, got NaN or infinite ones. Remove or impute them."
            )
        if not bool(inside(x).all()):
            low, high = float(x.min()), float(x.max())
            raise DataError(
                f"{name} takes {remedy[0]}, got values in [{low:g}, {high:g}]. {remedy[1]}"
            )


class Loss(nn.Module, abc.ABC):
    """The training objective: (x, p, q) -> named scalars, among them "loss", which is minimised."""

    @abc.abstractmethod
    def forward(
        self, x: Tensor, p: Distribution, q: Distribution, z: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compare data x (N, C, *S) with p(x | z) and the posterior q(z | x), batch (N, L).

        `z` (N, L) is the latent sample that p was decoded from. Scalars are sums over one sample
        and means over the batch, in nats, so that they do not depend on the batch size.
        """


_SCALE = (
    "Rescale the data, e.g. x = (x - x.min()) / (x.max() - x.min()), or choose likelihood='normal'."
)
_SUPPORTS = {
    "real": (torch.isfinite, ("finite values", "Remove or impute NaN and infinite values.")),
    "positive": (
        lambda x: (x > 0) & torch.isfinite(x),
        ("values above 0", "Shift the data, or choose likelihood='normal'."),
    ),
    "unit": (lambda x: (x >= 0) & (x <= 1), ("values in [0, 1]", _SCALE)),
    "binary": (
        lambda x: (x == 0) | (x == 1),
        (
            "values 0 and 1",
            "Threshold the data, e.g. x = (x > 0.5), or choose likelihood='normal'.",
        ),
    ),
    "count": (
        lambda x: (x >= 0) & (x == x.floor()) & torch.isfinite(x),
        ("counts 0, 1, 2, ...", "Round the data, or choose likelihood='normal'."),
    ),
}
