"""A small sound estimator, which the bad ones spoil."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nidl_core.estimator import Estimator, TransformerMixin


class AutoEncoder(TransformerMixin, Estimator):
    """A linear auto-encoder of flat features."""

    def __init__(
        self, latent_dim: int = 2, lr: float = 0.01, max_epochs: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(latent_dim=latent_dim, lr=lr, max_epochs=max_epochs, **kwargs)

    def build_networks(self, sample: Tensor) -> None:
        size = sample[0].numel()
        self.down, self.up = nn.Linear(size, self.latent_dim), nn.Linear(self.latent_dim, size)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.as_input(batch).flatten(1)
        loss: Tensor = (self.up(self.down(x)) - x).square().sum(1).mean()
        return loss

    def transform_step(self, batch: Any, batch_idx: int) -> Tensor:
        h: Tensor = self.down(self.as_input(batch).flatten(1))
        return h

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)
