"""Tasks for other processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from typing import Any

import torch

import nidl_core


def add_to_path(folder: str) -> None:
    """See the distributions of a folder."""
    sys.path.insert(0, folder)
    nidl_core.encoders.refresh()


def remove_from_path(folder: str) -> None:
    """See them no more."""
    sys.path.remove(folder)
    nidl_core.encoders.refresh()


def process(*given: Any) -> tuple[int, Any]:
    """Which process this is, and what it was given."""
    return os.getpid(), given


def meddle() -> None:
    """Change a setting and fail."""
    torch.set_default_dtype(torch.float64)
    raise ValueError("meddled")


def default_dtype() -> torch.dtype:
    """torch's, over there."""
    return torch.get_default_dtype()


def end(*rank: int) -> None:
    """End the process, without a word."""
    os._exit(3)


def rank_one_fails(rank: int) -> None:
    """Rank 1 fails, and rank 0 waits for it."""
    if rank == 1:
        raise ValueError("one failed")
    time.sleep(600)


def leave_in_the_middle(rank: int) -> None:
    """Both ranks fail, and rank 0 has a message on its way that rank 1 does not wait for."""
    if rank == 0:
        torch.distributed.all_reduce(torch.full((1,), 99.0), async_op=True)
    raise ValueError("both failed")


def sum_of_ranks(rank: int) -> float:
    """As the group reckons it."""
    total = torch.ones(1) * rank
    torch.distributed.all_reduce(total)
    return float(total)


class Deadly:
    """Reading it ends the process."""

    def __reduce__(self) -> Any:
        return end, ()


class Unanswerable:
    """It can be sent, and not sent back."""

    def __getstate__(self) -> Any:
        if multiprocessing.parent_process() is not None:
            raise TypeError("not from here")
        return {"there": True}
