"""torch's settings of the whole process: what no component may change, and a scope that puts them back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.backends import cudnn

_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the number of torch threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "whether gradients are on": (torch.is_grad_enabled, torch.set_grad_enabled),
    "deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "float32 matmul precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "whether distributions validate": (
        lambda: torch.distributions.Distribution._validate_args,
        torch.distributions.Distribution.set_default_validate_args,
    ),
    "whether cuDNN is deterministic": (
        lambda: cudnn.deterministic,
        lambda value: setattr(cudnn, "deterministic", value),
    ),
    "whether cuDNN measures": (
        lambda: cudnn.benchmark,
        lambda value: setattr(cudnn, "benchmark", value),
    ),
}


def settings() -> dict[str, Any]:
    """What each setting is now, by a name that completes "it changes ..."."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put the settings back at the end: one component's fault is not the next one's."""
    before = settings()
    try:
        yield
    finally:
        for name, (read, write) in _SETTINGS.items():
            if read() != before[name]:
                write(before[name])
