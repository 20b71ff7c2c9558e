"""Small sound modules of every kind. Each bad one derives from one of these and spoils one thing.

Shapes: N batch, C channels, S spatial, F features, L latent, P raw numbers per value of x.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    LogNormal,
    Normal,
    Poisson,
    kl_divergence,
)
from torch.nn import functional as F

from nidl_core.errors import ShapeError
from nidl_core.interfaces import Decoder, Encoder, Likelihood, Loss, Support


class OwnWarning(UserWarning):
    """Of this module alone: what a module may do at its import without hurting others is done here."""


warnings.simplefilter("always", OwnWarning)
warnings.filterwarnings("ignore", message="a known nuisance")
warnings.filterwarnings("ignore", module="good_components")
logging.getLogger(__name__).addHandler(logging.NullHandler())
SMALL = [(7,), (1, 6, 5), (2, 3, 4, 5)]  # shapes that cost little


class LinearEncoder(Encoder):
    """x (N, C, *S) -> h (N, width), by one linear layer.

    >>> LinearEncoder((1, 6, 5), width=3)(torch.zeros(2, 1, 6, 5)).shape
    torch.Size([2, 3])
    """

    def __init__(self, input_shape: tuple[int, ...], width: int = 4) -> None:
        super().__init__()
        self.out_features = width
        self.layer = nn.Linear(math.prod(input_shape), width)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layer(x.flatten(1))
        return h


class ImageEncoder(Encoder):
    """Images alone: a convolution, batch norm and dropout, and a layer that is frozen."""

    def __init__(
        self, input_shape: tuple[int, ...], widths: tuple[int, ...] = (3,), dropout: float = 0.5
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ShapeError(
                f"ImageEncoder takes x of shape (N, C, H, W), got (N, *{input_shape})."
            )
        (self.out_features,) = widths
        self.frozen = nn.Conv2d(input_shape[0], 2, 1).requires_grad_(False)
        self.layers = nn.Sequential(
            nn.Conv2d(2, widths[0], 3, stride=2, padding=1),
            nn.BatchNorm2d(widths[0]),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(self.frozen(x))
        return h


class LinearDecoder(Decoder):
    """z (N, L) -> theta (N, *output_shape), by one linear layer.

    >>> LinearDecoder(2, (1, 6, 5))(torch.zeros(3, 2)).shape
    torch.Size([3, 1, 6, 5])
    """

    def __init__(self, latent_dim: int, output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.output_shape = tuple(output_shape)
        self.layer = nn.Linear(latent_dim, math.prod(output_shape))

    def forward(self, z: Tensor) -> Tensor:
        theta: Tensor = self.layer(z)
        return theta.view(len(z), *self.output_shape)


class Gauss(Likelihood):
    """A normal whose scale comes from the decoder, plus a level that is learned.

    >>> Gauss()(torch.zeros(2, 2, 3)).event_shape
    torch.Size([1, 3])
    """

    params_per_value = 2

    def __init__(self, floor: float = 0.05) -> None:
        super().__init__()
        self.floor = floor
        self.level = nn.Parameter(torch.zeros(()))

    def scale(self, raw: Tensor) -> Tensor:
        return self.floor + F.softplus(raw + self.level)

    def forward(self, theta: Tensor) -> Distribution:
        mu, raw = self.split(theta)
        p = Normal(mu, self.scale(raw), validate_args=False)
        return Independent(p, mu.ndim - 1, validate_args=False)

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        from numpy import logaddexp
        from scipy.stats import norm

        return [{"reference": lambda mu, raw: norm(mu, 0.05 + logaddexp(0, raw)), "shapes": SMALL}]


class Running(Likelihood):
    """A normal whose scale is a running mean of what it observed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("variance", torch.ones(()))

    def observe(self, x: Tensor, theta: Tensor) -> None:
        if self.training:
            self.learn(x, theta)

    def learn(self, x: Tensor, theta: Tensor) -> None:
        with torch.no_grad():
            self.variance.lerp_((x - theta).square().mean().to(self.variance.dtype), 0.5)

    def forward(self, theta: Tensor) -> Distribution:
        (mu,) = self.split(theta)
        p = Normal(mu, self.variance.sqrt().to(mu.dtype), validate_args=False)
        return Independent(p, mu.ndim - 1, validate_args=False)


class Positive(Likelihood):
    """A log-normal of fixed shape."""

    support: Support = "positive"

    def forward(self, theta: Tensor) -> Distribution:
        (mu,) = self.split(theta)
        return Independent(LogNormal(mu, 0.5), mu.ndim - 1)

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        from numpy import exp
        from scipy.stats import lognorm

        return [{"reference": lambda mu: lognorm(0.5, scale=exp(mu))}]


class Count(Likelihood):
    """A Poisson."""

    support: Support = "count"

    def forward(self, theta: Tensor) -> Distribution:
        (raw,) = self.split(theta)
        return Independent(Poisson(1e-3 + F.softplus(raw)), raw.ndim - 1)

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        from numpy import logaddexp
        from scipy.stats import poisson

        return [{"reference": lambda raw: poisson(1e-3 + logaddexp(0, raw))}]


class Elbo(Loss):
    """-log p(x | z) + beta * KL(q || N(0, I)).

    >>> x, q = torch.zeros(2, 3), Normal(torch.zeros(2, 1), 1.0)
    >>> p = Independent(Normal(x, 1.0), 1)
    >>> {name: round(value.item(), 2) for name, value in Elbo()(x, p, q).items()}
    {'loss': 2.76, 'rec_loss': 2.76, 'kl_loss': 0.0}
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(
        self, x: Tensor, p: Distribution, q: Distribution, z: Tensor | None = None
    ) -> dict[str, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            rec = self.over_batch(-p.log_prob(x))
            kl = self.over_batch(kl_divergence(q, Normal(0.0, 1.0)).sum(1))
        return {"loss": rec + self.beta * kl, "rec_loss": rec, "kl_loss": kl}

    def over_batch(self, values: Tensor) -> Tensor:
        """One scalar of values (N,)."""
        return values.mean()


class WarmUp(Elbo):
    """The KL counts more with every training step."""

    def __init__(self, steps: int = 5) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(
        self, x: Tensor, p: Distribution, q: Distribution, z: Tensor | None = None
    ) -> dict[str, Tensor]:
        if self.training:
            self.step += 1
        figures = super().forward(x, p, q, z)
        beta = (self.step / self.steps).clamp(max=1.0)
        return {**figures, "loss": figures["rec_loss"] + beta * figures["kl_loss"]}


MODULES = [
    LinearEncoder,
    ImageEncoder,
    LinearDecoder,
    Gauss,
    Running,
    Positive,
    Count,
    Elbo,
    WarmUp,
]
