"""Losses with one fault each; the docstrings say which."""

from __future__ import annotations

from typing import Any

import torch
from good_components import Elbo
from torch import Tensor
from torch.distributions import Distribution


class OneTensor(Elbo):
    """It gives a tensor."""

    def forward(self, *given: Any) -> Any:
        return super().forward(*given)["loss"]


class FigureForEachSample(Elbo):
    """A figure of it has the batch as an axis."""

    def forward(
        self, x: Tensor, p: Distribution, q: Distribution, z: Tensor | None = None
    ) -> dict[str, Tensor]:
        return {**super().forward(x, p, q, z), "rows": -p.log_prob(x)}


class LeavesOutQ(Elbo):
    """It forgets the posterior."""

    def forward(self, *given: Any) -> dict[str, Tensor]:
        figures = super().forward(*given)
        return {**figures, "loss": figures["rec_loss"]}


class Sums(Elbo):
    """It sums over the batch."""

    def over_batch(self, values: Tensor) -> Tensor:
        return values.sum()


class HalfUnderAutocast(Elbo):
    """It multiplies matrices under autocast."""

    def forward(
        self, x: Tensor, p: Distribution, q: Distribution, z: Tensor | None = None
    ) -> dict[str, Tensor]:
        error = (x - p.mean).flatten(1)
        size = torch.bmm(error[:, None], error[:, :, None]).mean()
        return {**super().forward(x, p, q, z), "squares": size}


class CoarseUnderAutocast(HalfUnderAutocast):
    """As before, and float32 again in the end."""

    def forward(self, *given: Any) -> dict[str, Tensor]:
        figures = super().forward(*given)
        return {name: value.to(given[0].dtype) for name, value in figures.items()}
