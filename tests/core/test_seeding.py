"""Random states: seeds drawn from what a user gives, and scopes that leave no trace."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import pytest
import torch

from nidl_core.errors import InvalidParameter
from nidl_core.seeding import draw_seed, mix, preserved, seed_all, seeded


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def spoil() -> None:
    draws()
    np.random.standard_normal()  # leaves a second Gaussian cached in the state
    random.gauss(0, 1)
    torch.manual_seed(99)
    np.random.seed(98)
    random.seed(97)


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Interrupted, GeneratorExit])
@pytest.mark.parametrize("scope", [preserved, lambda: seeded(5)], ids=["preserved", "seeded"])
def test_a_scope_restores_torch_numpy_and_python(scope: Any, error: Any) -> None:
    with preserved():
        seed_all(12345)
        np.random.standard_normal()
        random.gauss(0, 1)
        expected = (
            draws(),
            float(np.random.standard_normal()),
            random.gauss(0, 1),
            torch.initial_seed(),
        )
        seed_all(12345)
        np.random.standard_normal()
        random.gauss(0, 1)
        with pytest.raises(error) if error else contextlib.nullcontext(), scope():
            spoil()
            if error:
                raise error
        found = (
            draws(),
            float(np.random.standard_normal()),
            random.gauss(0, 1),
            torch.initial_seed(),
        )
    assert found == expected


def test_seeded_scopes_nest() -> None:
    with seeded(1):
        first = draws()
        with seeded(2):
            inner = draws()
        second = draws()
    with seeded(1):
        assert (first, second) == (draws(), draws())
    with seeded(2):
        assert inner == draws()
    assert len({*first, *second, *inner}) == 9


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1, np.int64(7), np.uint32(7)])
def test_an_int_is_its_own_seed(seed: Any) -> None:
    drawn = draw_seed(seed)
    assert drawn == seed
    assert type(drawn) is int
    with seeded(drawn):
        pass


def test_none_is_fresh_entropy_whatever_the_global_seed() -> None:
    drawn = []
    for _ in range(8):
        with seeded(0):
            drawn.append(draw_seed(None))
            after = draws()
        with seeded(0):
            assert after == draws()  # and it takes nothing from the global state
    assert len(set(drawn)) == 8
    assert all(0 <= d < 2**32 for d in drawn)


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_a_numpy_generator_gives_its_next_number(make: Any) -> None:
    source, twin = make(3), make(3)
    first, second = draw_seed(source), draw_seed(source)
    assert first != second
    assert [draw_seed(twin), draw_seed(twin)] == [first, second]
    assert all(type(d) is int and 0 <= d < 2**32 for d in (first, second))


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_peeking_leaves_a_generator_as_it_was(make: Any) -> None:
    source = make(3)
    peeked = draw_seed(source, peek=True)
    assert draw_seed(source, peek=True) == peeked == draw_seed(source)


@pytest.mark.parametrize(
    "bad", [-1, 2**32, 1.0, "0", True, False, [0], np.float64(1), torch.Generator(), random]
)
def test_anything_else_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidParameter, match="^random_state must be "):
        draw_seed(bad)


def test_mix_is_a_seed_that_every_number_changes() -> None:
    grid = {mix(a, b, c) for a in range(8) for b in range(8) for c in range(1, 9)}
    assert len(grid) == 8 * 8 * 8
    assert all(type(m) is int and 0 <= m < 2**32 for m in grid)
    assert mix(1, 2, 3) == mix(1, 2, 3)
    assert mix(1, 2) != mix(2, 1)
