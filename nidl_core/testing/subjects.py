"""A component that was built, with inputs to feed it: what all kinds of torch modules share.

Shapes: N batch, C channels, S spatial, F features, L latent, P raw numbers per value of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import UninitializedParameter

from nidl_core.seeding import preserved, seed_all
from nidl_core.testing.backends import Backend, compiler, current
from nidl_core.testing.cases import LATENT_DIM, Case


@dataclass
class Subject:
    """A built component, the function that runs it, and how to draw inputs for it.

    `run(module, *inputs)` gives one tensor whose first axis is N, and that has a gradient.
    """

    module: Any  # an nn.Module
    run: Callable[..., Tensor]
    draw: Callable[[int, torch.dtype], tuple[Tensor, ...]]
    backend: Backend

    def inputs(
        self, n: int, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> tuple[Tensor, ...]:
        """The same inputs every time: a batch of n."""
        with preserved():
            seed_all(seed)
            return tuple(x.to(self.backend.device) for x in self.draw(n, dtype))

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the module on the backend, under a fixed seed."""
        return self.seeded(0, *inputs)

    def seeded(self, seed: int, *inputs: Tensor) -> Tensor:
        """Run the module on the backend, under this seed."""
        with preserved():
            seed_all(seed)
            result: Tensor = self._runner(self.module, *inputs)
        return result

    @cached_property
    def _runner(self) -> Callable[..., Tensor]:
        return self.backend.run(self.run)  # compiled once

    def plain(self, *inputs: Tensor) -> Tensor:
        """Run the module as it is, under a fixed seed."""
        with preserved():
            seed_all(0)
            return self.run(self.module, *inputs)


def subject(case: Case, shape: tuple[int, ...], *, seed: int = 0) -> Subject:
    """Build a case for data of shape (C, *S), under a seed, on the current device."""
    with preserved():
        seed_all(seed)
        return unseeded(case, shape)


def unseeded(case: Case, shape: tuple[int, ...]) -> Subject:
    """As `subject`, in the random state that is."""
    backend, module = current(), case.build(shape)
    assert "_modules" in vars(module), f"{case.cls.__name__}.__init__ must call super().__init__()"
    lazy = [name for name, p in module.named_parameters() if isinstance(p, UninitializedParameter)]
    assert not lazy, (
        f"{', '.join(lazy)} has no shape when __init__ ends: it is known then, so use no lazy layers"
    )
    module.to(backend.device)
    run, draw = _KINDS[case.kind](module, shape)
    return Subject(module, run, draw, backend)


def subjects(case: Case) -> list[Subject]:
    """One for each accepted shape. A component that accepts none has failed."""
    return [subject(case, shape) for shape in shapes_of(case)]


def shapes_of(case: Case) -> list[tuple[int, ...]]:
    """The accepted shapes that checks go through: all, but where each is compiled the smallest."""
    least = smallest(case)
    return [least] if compiler(current().name) else case.accepted


def first(case: Case) -> Subject:
    """The subject of the smallest accepted shape: for checks that one shape answers."""
    return subject(case, smallest(case))


def smallest(case: Case) -> tuple[int, ...]:
    """The accepted shape of the fewest values. A component that accepts none has failed."""
    assert case.accepted, (
        f"{case.id} refuses all of {list(case.shapes)}. Name shapes that it takes under "
        '"shapes" in its conformance().'
    )
    return min(case.accepted, key=math.prod)


def assert_close(found: Tensor, expected: Tensor, share: float, what: str) -> None:
    """Raise unless they differ by no more than this share of the largest value, or of 0.1."""
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        found,
        expected,
        rtol=share,
        atol=share * max(0.1, largest),
        msg=lambda text: f"{what}, it gives something else.\n{text}",
    )


def run_encoder(module: nn.Module, x: Tensor) -> Tensor:
    """h (N, F) of x; decoders likewise, theta of z."""
    h: Tensor = module(x)
    return h


def run_likelihood(module: Any, theta: Tensor, x: Tensor) -> Tensor:
    """log p(x | theta), (N,); in training the likelihood sees the batch first."""
    if module.training:
        module.observe(x, theta)
    log_prob: Tensor = module(theta).log_prob(x)
    return log_prob


def run_loss(module: Any, x: Tensor, mean: Tensor, loc: Tensor, raw: Tensor) -> Tensor:
    """The loss of p = Normal(mean, 1), one event a sample, and q = Normal(loc, softplus(raw)).

    (1,): a loss has no batch axis left.
    """
    p = Independent(Normal(mean, torch.ones_like(mean), validate_args=False), mean.ndim - 1)
    q = Normal(loc, nn.functional.softplus(raw), validate_args=False)
    loss: Tensor = module(x, p, q, q.rsample())["loss"]
    return loss.reshape(1)


def values_of(support: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random x in a support."""
    if support == "real":
        return torch.randn(shape, dtype=dtype)
    if support == "positive":
        return torch.rand(shape, dtype=dtype) + 0.1
    if support == "unit":
        return torch.rand(shape, dtype=dtype)
    if support == "binary":
        return torch.randint(0, 2, shape).to(dtype)
    return torch.randint(0, 5, shape).to(dtype)  # count


def _encoder(module: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    return run_encoder, lambda n, dtype: (torch.randn(n, *shape, dtype=dtype),)


def _decoder(module: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    return run_encoder, lambda n, dtype: (torch.randn(n, LATENT_DIM, dtype=dtype),)


def _likelihood(module: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    channels, *spatial = shape

    def draw(n: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        theta = torch.randn(n, module.params_per_value * channels, *spatial, dtype=dtype)
        return theta, values_of(module.support, (n, *shape), dtype)

    return run_likelihood, draw


def _loss(module: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    def draw(n: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        x, mean = torch.rand(n, *shape, dtype=dtype), torch.randn(n, *shape, dtype=dtype)
        loc, raw = torch.randn(n, LATENT_DIM, dtype=dtype), torch.randn(n, LATENT_DIM, dtype=dtype)
        return x, mean, loc, raw

    return run_loss, draw


_KINDS: dict[str, Callable[[Any, tuple[int, ...]], tuple[Any, Any]]] = {
    "encoders": _encoder,
    "decoders": _decoder,
    "likelihoods": _likelihood,
    "losses": _loss,
}
