"""The Cauchy likelihood."""

from __future__ import annotations

import torch
from torch import Tensor, distributions

from nidl_core import Likelihood


class Cauchy(Likelihood):
    """Cauchy p(x | z) around theta with one fixed `scale` > 0: it forgives outliers."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, theta: Tensor) -> distributions.Distribution:
        theta = theta.to(torch.promote_types(theta.dtype, torch.float32))
        p = distributions.Cauchy(theta, torch.full_like(theta, self.scale))
        return distributions.Independent(p, theta.ndim - 1)
