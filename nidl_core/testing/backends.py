"""How components are run in the checks: eager, compiled, in half precision, on which device.

NIDL_TEST_BACKEND is one of

- eager (the default): all checks, as they are
- compile, inductor: modules go through torch.compile with aot_eager or inductor, for the smallest
  of their shapes
- bf16: modules run under bfloat16 autocast
- ddp: only the checks that train in two processes

NIDL_TEST_DEVICE is cpu (the default) or cuda. Asking for cuda where there is none is an error.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from nidl_core.errors import SpecError

NAMES = ("eager", "compile", "inductor", "bf16", "ddp")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Backend:
    """A way to run modules. `run(function)` makes a function of modules and tensors run that way."""

    name: str = "eager"
    device: str = "cpu"

    def run(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled or under autocast, as the backend says."""
        if how := compiler(self.name):
            return compiled(function, how)

        def within(*inputs: Any) -> Any:
            with self._precision():
                return function(*inputs)

        return within

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """What must hold while components run on the backend, forwards and backwards.

        For bfloat16 on a CPU no oneDNN: its convolutions (torch 2.13) read memory that nobody wrote
        where a map has one or two voxels an axis, so that some gradients are NaN now and then.
        """
        before = torch._C._get_mkldnn_enabled()
        if self.name == "bf16" and self.device == "cpu":
            torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(before)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.name == "bf16":
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    @property
    def share(self) -> float:
        """Of the largest value: what may differ where another order of the same sums is allowed."""
        return 5e-2 if self.name == "bf16" else 1e-4


def current() -> Backend:
    """The backend of NIDL_TEST_BACKEND and NIDL_TEST_DEVICE. Raises `SpecError`."""
    name = os.environ.get("NIDL_TEST_BACKEND") or "eager"
    device = os.environ.get("NIDL_TEST_DEVICE") or "cpu"
    if name not in NAMES:
        raise SpecError(f"NIDL_TEST_BACKEND must be one of {', '.join(NAMES)}, got {name!r}.")
    if device not in DEVICES:
        raise SpecError(f"NIDL_TEST_DEVICE must be one of {', '.join(DEVICES)}, got {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise SpecError(
            "NIDL_TEST_DEVICE=cuda, and torch finds no CUDA device. Unset it, or run where there is one."
        )
    return Backend(name, device)


def compiler(backend: str) -> str:
    """The backend of torch.compile that one of NIDL_TEST_BACKEND stands for, or ""."""
    return {"compile": "aot_eager", "inductor": "inductor"}.get(backend, "")


def compiled(function: Callable[..., Any], how: str) -> Callable[..., Any]:
    """`function` through torch.compile, from an empty cache: components do not share their limits."""
    torch.compiler.reset()
    fast = torch.compile(function, backend=how)

    def run(*inputs: Any) -> Any:
        with without_dynamos_warnings():
            return fast(*inputs)

    return run


@contextlib.contextmanager
def without_dynamos_warnings() -> Iterator[None]:
    """Leave out what the compiler itself sets off: where a graph breaks, and by its own imports."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        warnings.filterwarnings("ignore", message="`torch.jit.* is deprecated")
        yield
