"""Bernoulli likelihood, always from logits.

Shapes: N batch, C channels, S spatial (may be empty).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, distributions
from torch.nn import functional as F

from nidl_core.interfaces import Likelihood, Support


class Bernoulli(Likelihood):
    """Bernoulli p(x | z) with logits l, independent over values.

    log p(x | z) = Σ[x·l - softplus(l)] (Kingma & Welling 2014, arXiv 1312.6114, app. C.1).
    theta = l (N, C, *S) -> p with batch (N,) and event (C, *S), mean sigmoid(l), samples 0 or 1.
    For x between 0 and 1 the formula is a cross-entropy, not a likelihood: `check` says so.

    Example:
        >>> import torch
        >>> p = Bernoulli()(torch.zeros(2, 1, 4, 5))
        >>> p.batch_shape, p.event_shape
        (torch.Size([2]), torch.Size([1, 4, 5]))
        >>> p.log_prob(torch.ones(2, 1, 4, 5))
        tensor([-13.8629, -13.8629])
    """

    support: Support = "unit"

    def __init__(self) -> None:
        super().__init__()
        self._warned = False

    def forward(self, theta: Tensor) -> distributions.Distribution:
        """Return p from logits theta (N, C, *S)."""
        (logits,) = self.split(theta)
        p = _Bernoulli(logits=logits, validate_args=False)
        return distributions.Independent(p, logits.ndim - 1, validate_args=False)

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """One case for `nidl_core.testing`, with scipy's Bernoulli as the reference."""
        from scipy.special import expit
        from scipy.stats import bernoulli

        return [{"reference": lambda logits: bernoulli(expit(logits))}]

    def check(self, x: Tensor) -> None:
        """Raise `DataError` if x (N, C, *S) leaves [0, 1]; warn once if it is not binary."""
        super().check(x)
        if not self._warned and not bool(((x == 0) | (x == 1)).all()):
            self._warned = True
            warnings.warn(
                "Bernoulli got values between 0 and 1. What it computes is then a cross-entropy, "
                "not a likelihood of the data, and samples are still 0 or 1. For a likelihood "
                "threshold the data, e.g. x = (x > 0.5), or choose likelihood='normal'.",
                UserWarning,
                stacklevel=2,
            )


class _Bernoulli(distributions.Bernoulli):
    """torch's Bernoulli, with soft targets and without cancellation."""

    def log_prob(self, value: Tensor) -> Tensor:
        # x·l - softplus(l), split into two terms of one sign: the difference of large numbers
        # would round log p to 0 for a confident right answer (x = 1, l > 17 in float32). And
        # logsigmoid is exact everywhere, where torch's softplus is cut off at 20.
        logits = self.logits
        x = value.to(torch.promote_types(value.dtype, logits.dtype))  # 1 - x: bool, bfloat16
        return x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)
