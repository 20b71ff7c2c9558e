"""Normal likelihood: a fixed scale, one from the decoder, one learned, or the optimal one.

Shapes: N batch, C channels, S spatial (may be empty), P raw numbers per value of x.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, distributions, nn

from nidl_core.interfaces import Likelihood
from nidl_likelihoods._scale import bounded_below, check_scale

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_MOMENTUM = 0.05  # of the data-set level: 20 batches, exact means before that


class Normal(Likelihood):
    """Normal p(x | z) with mean mu and standard deviation s, independent over values.

    log p(x | z) = -1/2 Σ[(x - mu)²/s² + log 2πs²] (Kingma & Welling 2014, arXiv 1312.6114).
    theta (N, P*C, *S) -> p with batch (N,) and event (C, *S). `scale` says where s comes from:

    - a positive number: fixed. P = 1, theta is mu.
    - "learned": each value's own, from the decoder. P = 2, theta is mu (first C channels) and raw
      r (other C), s = min_scale + softplus(r).
    - "shared": one s for all values, a parameter that starts at 1 and stays above `min_scale`
      (sigma-VAE, Rybkin et al. 2021, arXiv 2006.13202). P = 1.
    - "optimal": the best s for the batch, s*² = mean (x - mu)² over batch and dimensions, which
      makes the batch's mean NLL D/2 (log 2πs*² + 1) for D values a sample (same source). P = 1.
      `observe` sees each training batch and keeps a data-set level, the only one used in
      evaluation; s is 1 before the first batch, and never below `min_scale`.

    Example:
        >>> import torch
        >>> p = Normal(scale=0.5)(torch.zeros(2, 1, 4, 5))
        >>> p.batch_shape, p.event_shape
        (torch.Size([2]), torch.Size([1, 4, 5]))
        >>> p.log_prob(torch.zeros(2, 1, 4, 5))
        tensor([-4.5158, -4.5158])
        >>> Normal(scale="learned").params_per_value
        2
    """

    variance: Tensor  # (), "optimal" only: data-set level of s*²
    observations: Tensor  # (), "optimal" only: batches seen
    batch_variance: Tensor | None  # (), "optimal" only: s*² of the batch last observed

    def __init__(self, scale: float | str = 1.0, min_scale: float = 1e-3) -> None:
        super().__init__()
        check_scale(scale, ("learned", "shared", "optimal"), min_scale)
        self.scale = scale
        self.min_scale = min_scale
        self.params_per_value = 2 if scale == "learned" else 1
        if scale == "shared":
            # s = min_scale + exp(log_scale) is 1, or twice the floor where that is more.
            self.log_scale = nn.Parameter(torch.tensor(max(1 - min_scale, min_scale)).log())
        elif scale == "optimal":
            self.register_buffer("variance", torch.ones(()))
            self.register_buffer("observations", torch.zeros((), dtype=torch.int64))
            self.register_buffer("batch_variance", None, persistent=False)

    def forward(self, theta: Tensor) -> distributions.Distribution:
        """Return p from theta (N, P*C, *S)."""
        mu, *raw = self.split(theta)
        p = _Normal(mu, self._scale(mu, *raw), validate_args=False)
        return distributions.Independent(p, mu.ndim - 1, validate_args=False)

    def observe(self, x: Tensor, theta: Tensor) -> None:
        """Measure s*² on a training batch: x (N, C, *S), theta as in `forward`.

        For "optimal" in training mode; does nothing otherwise. Processes pool their batches, so
        every one must call it.
        """
        if self.scale != "optimal" or not self.training:
            return
        # s* is a constant to autograd. Nothing is lost: s* is a stationary point of the NLL in s,
        # so (envelope theorem) the gradient in mu is that of D/2 log mean (x - mu)².
        with torch.no_grad():
            (mu,) = self.split(theta)
            batch = _pooled_mean((x - mu).square())
            self.batch_variance = batch
            # One overflow of mixed precision must not spoil the level for ever; the batch's own
            # value stays as it is and shows in the loss.
            valid = batch.isfinite()
            self.observations.add_(valid)
            weight = (1 / self.observations.to(batch.dtype)).clamp(min=_MOMENTUM)
            level = torch.lerp(self.variance.to(batch.dtype), batch, weight)
            self.variance.copy_(torch.where(valid, level, self.variance))

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """Cases for `nidl_core.testing`, with scipy's normal as the reference."""
        from numpy import logaddexp
        from scipy.stats import norm

        return [
            {"reference": lambda mu: norm(mu, 1.0)},
            {"params": {"scale": 0.3}, "reference": lambda mu: norm(mu, 0.3)},
            {
                "params": {"scale": "learned", "min_scale": 0.01},
                "reference": lambda mu, raw: norm(mu, 0.01 + logaddexp(0, raw)),
            },
            {"params": {"scale": "shared"}, "reference": lambda mu: norm(mu, 1.0)},
            {"params": {"scale": "optimal"}},
        ]

    def extra_repr(self) -> str:
        """Show the constructor's arguments in the repr."""
        return f"scale={self.scale!r}, min_scale={self.min_scale!r}"

    def _scale(self, mu: Tensor, raw: Tensor | None = None) -> Tensor | float:
        if raw is not None:
            return bounded_below(raw, self.min_scale)  # (N, C, *S)
        if self.scale == "shared":
            # A soft floor, as in the sigma-VAE's own code: under a hard one the gradient is 0,
            # and s could never rise again.
            return self.min_scale + self.log_scale.to(mu.dtype).exp()
        if self.scale == "optimal":
            batch = self.batch_variance if self.training else None
            variance = self.variance if batch is None else batch
            return variance.to(mu.dtype).sqrt().clamp(min=self.min_scale)
        return float(self.scale)


class _Normal(distributions.Normal):
    """torch's Normal, less its s², which is 0 in float32 below s = 1e-23."""

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        return -0.5 * z.square() - self.scale.log() - _HALF_LOG_2PI


def _pooled_mean(values: Tensor) -> Tensor:
    """Mean over all values of all processes, whose batches may differ in size."""
    total = values.sum()
    sums = torch.stack((total, total.new_full((), values.numel())))
    group = torch.distributed
    if group.is_available() and group.is_initialized() and group.get_world_size() > 1:
        group.all_reduce(sums)
    return sums[0] / sums[1]
