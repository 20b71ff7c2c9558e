"""Random states: seeds drawn from what a user gives, and scopes that leave no trace."""

from __future__ import annotations

import contextlib
import copy
import random
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from nidl_core.errors import InvalidParameter

_LIMIT = 2**32  # numpy's legacy generator takes seeds below this


def draw_seed(random_state: Any, *, peek: bool = False, name: str = "random_state") -> int:
    """A seed in [0, 2**32) from an int, None, numpy RandomState or Generator.

    An int is itself; None is fresh entropy, whatever any global seed is; a numpy generator gives
    its next number (with `peek`, it is left as it was). Raises `InvalidParameter`.
    """
    if random_state is None:
        return secrets.randbelow(_LIMIT)
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        if not 0 <= random_state < _LIMIT:
            raise InvalidParameter(name, random_state, "in [0, 2**32)")
        return int(random_state)
    source = copy.deepcopy(random_state) if peek else random_state
    if isinstance(source, np.random.RandomState):
        return int(source.randint(_LIMIT, dtype=np.int64))
    if isinstance(source, np.random.Generator):
        return int(source.integers(_LIMIT))
    raise InvalidParameter(name, random_state, "an int, None, or a numpy RandomState or Generator")


def seed_all(seed: int) -> None:
    """Seed torch (all devices), numpy and Python. Call it inside `preserved`."""
    torch.manual_seed(seed)
    np.random.seed(seed % _LIMIT)
    random.seed(seed)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Restore torch's, numpy's and Python's random state at the end, whatever happens inside."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    caller_seed = torch.initial_seed()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        else:  # not in use before: give it the seed it would have started from
            torch.cuda.manual_seed_all(caller_seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """`seed_all` for the length of a `with` block, then the caller's random state again."""
    with preserved():
        seed_all(seed)
        yield


def mix(*numbers: int) -> int:
    """One seed from several numbers (seed, rank, epoch, ...), each of which changes all of it.

    numpy's SeedSequence does the mixing (O'Neill's seed_seq hash), so that neighbouring epochs
    and ranks get unrelated streams.
    """
    return int(
        np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, dtype=np.uint32)[0]
    )
