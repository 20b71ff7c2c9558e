"""Laplace likelihood: a fixed scale, or one from the decoder.

Shapes: N batch, C channels, S spatial (may be empty), P raw numbers per value of x.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, distributions

from nidl_core.interfaces import Likelihood
from nidl_likelihoods._scale import bounded_below, check_scale


class Laplace(Likelihood):
    """Laplace p(x | z) with location mu and scale b, independent over values.

    log p(x | z) = -Σ[|x - mu|/b + log 2b]; the standard deviation is b√2. Less sensitive to
    outliers than the normal. theta (N, P*C, *S) -> p with batch (N,) and event (C, *S). `scale`
    says where b comes from:

    - a positive number: fixed. P = 1, theta is mu.
    - "learned": each value's own, from the decoder. P = 2, theta is mu (first C channels) and raw
      r (other C), b = min_scale + softplus(r).

    Example:
        >>> import torch
        >>> p = Laplace(scale=0.5)(torch.zeros(2, 1, 4, 5))
        >>> p.batch_shape, p.event_shape
        (torch.Size([2]), torch.Size([1, 4, 5]))
        >>> p.log_prob(torch.ones(2, 1, 4, 5))
        tensor([-40., -40.])
    """

    def __init__(self, scale: float | str = 1.0, min_scale: float = 1e-3) -> None:
        super().__init__()
        check_scale(scale, ("learned",), min_scale)
        self.scale = scale
        self.min_scale = min_scale
        self.params_per_value = 2 if scale == "learned" else 1

    def forward(self, theta: Tensor) -> distributions.Distribution:
        """Return p from theta (N, P*C, *S)."""
        mu, *raw = self.split(theta)
        b = bounded_below(raw[0], self.min_scale) if raw else float(self.scale)
        p = distributions.Laplace(mu, b, validate_args=False)
        return distributions.Independent(p, mu.ndim - 1, validate_args=False)

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """Cases for `nidl_core.testing`, with scipy's Laplace as the reference."""
        from numpy import logaddexp
        from scipy.stats import laplace

        return [
            {"reference": lambda mu: laplace(mu, 1.0)},
            {
                "params": {"scale": "learned", "min_scale": 0.01},
                "reference": lambda mu, raw: laplace(mu, 0.01 + logaddexp(0, raw)),
            },
        ]

    def extra_repr(self) -> str:
        """Show the constructor's arguments in the repr."""
        return f"scale={self.scale!r}, min_scale={self.min_scale!r}"
