"""Estimators with one fault each; the docstrings say which."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from good_estimator import AutoEncoder
from torch import Tensor, nn


class FreshEntropy(AutoEncoder):
    """Its weights follow no seed."""

    def build_networks(self, sample: Tensor) -> None:
        super().build_networks(sample)
        self.down.weight.data[0, 0] = int.from_bytes(os.urandom(4), "little") / 2**32


class OneSeed(AutoEncoder):
    """It seeds torch itself, whatever random_state is."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return 0 * super().training_step(batch, batch_idx)

    def build_networks(self, sample: Tensor) -> None:
        torch.manual_seed(0)
        super().build_networks(sample)


class NoSeed(AutoEncoder):
    """It takes no random_state."""

    def __init__(self, latent_dim: int = 2) -> None:
        super().__init__(latent_dim=latent_dim)


class KeepsWeights(AutoEncoder):
    """A second fit begins with the weights of the first."""

    def build_networks(self, sample: Tensor) -> None:
        super().build_networks(sample)
        self.__dict__.setdefault("_kept", self.down.state_dict())
        self.down.load_state_dict(self.__dict__["_kept"])


class SeedsNumpy(AutoEncoder):
    """It seeds numpy for all."""

    def fit(self, *data: Any, **named: Any) -> Any:
        np.random.seed(0)
        return super().fit(*data, **named)


class WorksOnTheData(AutoEncoder):
    """It scales the caller's data."""

    def fit(self, X: Any, *data: Any, **named: Any) -> Any:
        X *= 0.5
        return super().fit(X, *data, **named)


class CentresBatches(AutoEncoder):
    """It subtracts the mean of the batch."""

    def transform_step(self, batch: Any, batch_idx: int) -> Tensor:
        h = super().transform_step(batch, batch_idx)
        return h - h.mean(0)


class PlainStatistic(AutoEncoder):
    """What it learns of the data is a plain number, which no file has."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.__dict__["_level"] = float(self.as_input(batch).mean())
        return super().training_step(batch, batch_idx)

    def transform_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().transform_step(batch, batch_idx) + self.__dict__.get("_level", 0.0)


class UnusedParameter(AutoEncoder):
    """It has a layer that it does not use."""

    def build_networks(self, sample: Tensor) -> None:
        super().build_networks(sample)
        self.spare = nn.Linear(2, 2)


class LogsInfinity(AutoEncoder):
    """A figure of its training is infinite."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log_figures({"train/level": torch.tensor(torch.inf)}, batch_size=len(batch))
        return super().training_step(batch, batch_idx)


class ChangesItsParameters(AutoEncoder):
    """It changes what it was given."""

    def fit(self, *data: Any, **named: Any) -> Any:
        self.set_params(lr=0.5 * self.lr)
        return super().fit(*data, **named)
