"""A small component of each kind and a small estimator, made here: the core's tests need no plugin."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import nidl_core
from nidl_core.estimator import Estimator, TransformerMixin
from nidl_core.interfaces import Encoder


class Flat(Encoder):
    """x (N, C, *S) -> h (N, width), by one linear layer."""

    def __init__(self, input_shape: tuple[int, ...], width: int = 3, gain: Any = 1.0) -> None:
        super().__init__()
        self.out_features = width
        self.gain = gain
        self.layer = nn.Linear(math.prod(input_shape), width)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layer(x.flatten(1))
        return h


class Tiny(TransformerMixin, Estimator):
    """A linear auto-encoder of whatever size."""

    components: ClassVar[dict[str, str]] = {"encoder": "encoders"}
    structural = frozenset({"encoder"})

    def __init__(
        self,
        encoder: Any = "flat",
        lr: float = 0.01,
        note: Any = None,
        tied: bool = False,
        *,
        random_state: Any = None,
        batch_size: int = 64,
        num_workers: int = 0,
        warm_start: bool = False,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(
            encoder=encoder,
            lr=lr,
            note=note,
            tied=tied,
            random_state=random_state,
            batch_size=batch_size,
            num_workers=num_workers,
            warm_start=warm_start,
            **trainer_kwargs,
        )

    def build_networks(self, sample: Tensor | None) -> None:
        if sample is None:
            return
        recipe = self.recipe("encoder")
        if recipe is None:
            self.encoder = copy.deepcopy(self._given["encoder"])
        else:
            self.encoder = recipe.make(input_shape=tuple(sample.shape[1:]))
        width = self.encoder(self.as_input(sample)).shape[1]
        self.back = nn.Linear(width, sample[0].numel())
        if self.tied:
            self.again = nn.Linear(width, sample[0].numel())
            self.again.weight = self.back.weight

    def loss(self, batch: Any) -> Tensor:
        x = self.as_input(batch)
        out: Tensor = self.back(self.encoder(x))
        return (out - x.flatten(1)).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log_figures({"train/loss": loss.detach()}, batch_size=len(self.as_input(batch)))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log_figures({"val/loss": loss}, batch_size=len(self.as_input(batch)))
        return loss

    def transform_step(self, batch: Any, batch_idx: int) -> Tensor:
        h: Tensor = self.encoder(self.as_input(batch))
        return h

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.fixture
def flat() -> Iterator[type[Flat]]:
    """The encoder "flat", registered for the length of a test."""
    with nidl_core.encoders.temporary("flat", Flat):
        yield Flat


@pytest.fixture
def tiny(flat: type[Flat]) -> Iterator[type[Tiny]]:
    """The estimator "tiny", registered for the length of a test, with its encoder."""
    with nidl_core.estimators.temporary("tiny", Tiny):
        yield Tiny


@pytest.fixture
def x() -> Tensor:
    """Ten rows of shape (1, 2, 3)."""
    return torch.randn(10, 1, 2, 3, generator=torch.Generator().manual_seed(0))
