"""Inference: one plain no-grad loop over every row, once, in order.

It is shared out over processes only when the estimator's own devices ask for several and a process
group is there; then every rank must call it, and every rank gets the whole answer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nidl_core.data import Data, input_of
from nidl_core.errors import DataError, ShapeError
from nidl_core.seeding import draw_seed, seeded


def infer(
    estimator: Any,
    data: Data,
    step: Callable[[Tensor, int], Tensor],
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """`step(x, batch_index)` on each batch x (n, C, *S), concatenated, on the CPU.

    In evaluation mode, without gradients, on the device that `accelerator` asks for, in the
    precision of the fit (half-precision answers come back as float32). An int `random_state` makes
    its noise repeatable; the caller's random state stays as it is. Rows must have `shape`, that of
    the fitted data unless given (else `ShapeError`).
    """
    shape = estimator.input_shape_ if shape is None else shape
    rank, world = share(estimator._given)
    device = device_for(estimator._given)
    seed = _agreed(draw_seed(estimator.random_state), world)
    outputs: list[Tensor] = []
    with torch.no_grad(), seeded(seed), evaluating(estimator), _moved(estimator, device):
        estimator._inference_seed = seed
        try:
            with autocast(estimator._given, device):
                batches = data.in_order(estimator.batch_size, estimator.num_workers, rank, world)
                for index, batch in enumerate(batches):
                    x = estimator.as_input(input_of(batch))
                    check_shape(x, shape)
                    outputs.append(_as_answer(step(x, index)))
        finally:
            estimator._inference_seed = None
    outputs = _gathered(outputs, world)
    if not outputs:
        raise DataError("there are no rows to work on: the data are empty.")
    return torch.cat(outputs)


def share(given: Mapping[str, Any]) -> tuple[int, int]:
    """(rank, number of processes) among which the estimator's inference is shared out."""
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()) or not _asks_for_many(given):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def device_for(given: Mapping[str, Any]) -> torch.device:
    """The device that the Trainer arguments `accelerator` and `devices` ask for in this process."""
    accelerator = given.get("accelerator", "auto")
    name = accelerator if isinstance(accelerator, str) else type(accelerator).__name__.lower()
    if name.startswith("cpu"):
        return torch.device("cpu")
    if torch.cuda.is_available() and not name.startswith("mps"):
        local = int(os.environ.get("LOCAL_RANK", 0)) if _asks_for_many(given) else 0
        indices = _device_list(given.get("devices", "auto"))
        return torch.device("cuda", indices[local] if indices else local)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def autocast(
    given: Mapping[str, Any], device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """The mixed precision of the fit, or nothing."""
    precision = str(given.get("precision"))
    half = {"16": torch.float16, "16-mixed": torch.float16}
    dtype = {**half, "bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16}.get(precision)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every submodule is in the mode that it was in."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def check_shape(x: Tensor, expected: tuple[int, ...]) -> None:
    """Raise `ShapeError` unless x (N, C, *S) has the shape of the data that were fitted."""
    if tuple(x.shape[1:]) != tuple(expected):
        one = " One sample is x[None]." if tuple(x.shape) == tuple(expected) else ""
        raise ShapeError(
            f"this model takes data of shape ({', '.join(map(str, ('N', *expected)))}), got "
            f"{tuple(x.shape)}. Give the data the channels and size that it was fitted on.{one}"
        )


def _asks_for_many(given: Mapping[str, Any]) -> bool:
    devices = given.get("devices", "auto")
    if indices := _device_list(devices):
        count = len(indices)
    elif str(devices) in ("auto", "-1"):
        on_cpu = given.get("accelerator", "auto") == "cpu"
        count = 1 if on_cpu else max(1, torch.cuda.device_count())
    else:
        count = int(devices)
    return bool(count * given.get("num_nodes", 1) > 1)


def _device_list(devices: Any) -> list[int]:
    """The indices that Lightning's `devices` names ([0, 2], "0,2", "1,"); empty for a number of them."""
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    return [int(index) for index in devices] if isinstance(devices, (list, tuple)) else []


@contextlib.contextmanager
def _moved(module: nn.Module, device: torch.device) -> Iterator[None]:
    first = next(module.parameters(), None)
    home = first.device if first is not None else device
    module.to(device)
    try:
        yield
    finally:
        module.to(home)


def _as_answer(out: Tensor) -> Tensor:
    """On the CPU, in float32 at least."""
    out = out.to("cpu")
    return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


def _agreed(seed: int, world: int) -> int:
    """Rank 0's seed, for all."""
    if world == 1:
        return seed
    box = [seed]
    torch.distributed.broadcast_object_list(box)
    return box[0]


def _gathered(outputs: list[Tensor], world: int) -> list[Tensor]:
    """All batches in order: rank r holds the batches r, r + world, ..."""
    if world == 1:
        return outputs
    parts: list[list[Tensor]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(parts, outputs)
    total = sum(map(len, parts))
    return [parts[i % world][i // world] for i in range(total)]
