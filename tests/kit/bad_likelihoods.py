"""Likelihoods with one fault each; the docstrings say which."""

from __future__ import annotations

import math
from typing import Any

import torch
from good_components import Count, Gauss, Positive, Running
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F


class ForgottenIndependent(Gauss):
    """Its values are batches, not one event."""

    def forward(self, theta: Tensor) -> Distribution:
        mu, raw = self.split(theta)
        return Normal(mu, self.scale(raw), validate_args=False)


class NoDistribution(Gauss):
    """It gives its parameters."""

    def forward(self, theta: Tensor) -> Distribution:
        mu, raw = self.split(theta)
        return mu, self.scale(raw)  # type: ignore[return-value]


class UnboundedScale(Gauss):
    """exp leaves the range of floats."""

    def scale(self, raw: Tensor) -> Tensor:
        return (raw + self.level).exp()


class NoSplit(Gauss):
    """It cuts theta itself, whatever its channels are."""

    def forward(self, theta: Tensor) -> Distribution:
        theta = theta.to(torch.promote_types(theta.dtype, torch.float32))
        mu, raw = theta.chunk(2, dim=1)
        p = Normal(mu, self.scale(raw), validate_args=False)
        return Independent(p, mu.ndim - 1, validate_args=False)


class HalfMean(Running):
    """Its mean stays in half precision."""

    def split(self, theta: Tensor) -> tuple[Tensor, ...]:
        return (theta,)


class RoundedScale(Gauss):
    """Its scale went through half precision, as under autocast."""

    def forward(self, theta: Tensor) -> Distribution:
        mu, raw = self.split(theta)
        coarse = self.scale(raw.to(theta.dtype)).to(theta.dtype).to(mu.dtype)
        p = Normal(mu, coarse, validate_args=False)
        return Independent(p, mu.ndim - 1, validate_args=False)


class TakesAllData(Positive):
    """It looks at no data."""

    def check(self, x: Tensor) -> None:
        pass


class TakesNan(Gauss):
    """It looks for no NaN."""

    def check(self, x: Tensor) -> None:
        pass


class RefusesItsOwn(Count):
    """It refuses counts above one."""

    def check(self, x: Tensor) -> None:
        super().check(x)
        super().check(torch.where(x > 1, -1.0, x))


class _NoConstant(Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 0.5 * math.log(2 * math.pi)


class NoConstant(Gauss):
    """It drops log 2π."""

    def forward(self, theta: Tensor) -> Distribution:
        mu, raw = self.split(theta)
        p = _NoConstant(mu, self.scale(raw), validate_args=False)
        return Independent(p, mu.ndim - 1, validate_args=False)


class _ZeroTruncated(torch.distributions.Poisson):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - torch.log1p(-torch.exp(-self.rate))


class SumsToMore(Count):
    """It divides by the probability of more than zero, and lets zero be."""

    def forward(self, theta: Tensor) -> Distribution:
        (raw,) = self.split(theta)
        return Independent(_ZeroTruncated(1e-3 + F.softplus(raw)), raw.ndim - 1)


class _WiderSamples(Normal):
    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + 1.1 * (super().rsample(sample_shape) - self.loc)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.rsample(sample_shape).detach()


class WiderSamples(Gauss):
    """Its samples have another scale."""

    def forward(self, theta: Tensor) -> Distribution:
        mu, raw = self.split(theta)
        p = _WiderSamples(mu, self.scale(raw), validate_args=False)
        return Independent(p, mu.ndim - 1, validate_args=False)


class _OtherMean(torch.distributions.LogNormal):
    @property
    def mean(self) -> Tensor:
        return self.loc.exp()  # the median


class OtherMean(Positive):
    """It calls its median the mean."""

    def forward(self, theta: Tensor) -> Distribution:
        (mu,) = self.split(theta)
        return Independent(_OtherMean(mu, 0.5), mu.ndim - 1)


class VarianceForScale(Gauss):
    """What should be its scale it takes for the variance: a normal, but another one."""

    def scale(self, raw: Tensor) -> Tensor:
        return super().scale(raw).sqrt()


class DetachedScale(Gauss):
    """Its scale has no gradient in theta."""

    def scale(self, raw: Tensor) -> Tensor:
        return super().scale(raw.detach())


class LearnsInEvaluation(Running):
    """It observes in evaluation as well."""

    def observe(self, x: Tensor, theta: Tensor) -> None:
        self.learn(x, theta)


class ScaleOfTheBatch(Gauss):
    """Its scale is that of the batch, in evaluation too."""

    def scale(self, raw: Tensor) -> Tensor:
        return super().scale(raw).mean(0, keepdim=True).expand_as(raw)
