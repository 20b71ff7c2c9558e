"""Which rows go into which batch: for every size, batch size and number of processes."""

from __future__ import annotations

import pytest
import torch

from nidl_core.data import Order, OrderedLoader, Rows

SIZES = [(rows, batch) for rows in range(1, 41) for batch in (1, 3, 8, 64)]


def batches(
    rows: int, batch: int, world: int, *, shuffle: bool, seed: int = 7, epoch: int = 0
) -> list[list[list[int]]]:
    """Process -> batch -> row numbers."""
    found = []
    for rank in range(world):
        order = Order(rows, batch, shuffle=shuffle)
        order.seed, order.rank, order.world = seed, rank, world
        order.set_epoch(epoch)
        own = [index.tolist() for index in order]
        assert len(own) == len(order)
        found.append(own)
    return found


def flat(process: list[list[int]]) -> list[int]:
    return [row for batch in process for row in batch]


@pytest.mark.parametrize("world", range(1, 6))
def test_training_covers_every_row_with_the_same_number_on_every_process(world: int) -> None:
    for rows, batch in SIZES:
        processes = batches(rows, batch, world, shuffle=True)
        assert {row for p in processes for row in flat(p)} == set(range(rows))
        own = {len(flat(p)) for p in processes}
        assert own == {-(-rows // world)}  # equal, and no more repeats than needed
        assert len({tuple(map(len, p)) for p in processes}) == 1  # batch by batch
        assert all(1 <= len(b) <= batch for p in processes for b in p)


@pytest.mark.parametrize("world", range(1, 6))
def test_validation_covers_every_row_once_in_the_same_number_of_batches(world: int) -> None:
    for rows, batch in SIZES:
        processes = batches(rows, batch, world, shuffle=False)
        assert len({len(p) for p in processes}) == 1
        assert all(b for p in processes for b in p)
        if rows >= world:
            assert sorted(row for p in processes for row in flat(p)) == list(range(rows))
            assert all(len(b) <= batch + 1 for p in processes for b in p)
        else:  # fewer rows than processes: some repeat, none is left out
            assert {row for p in processes for row in flat(p)} == set(range(rows))


def test_one_process_validates_in_order() -> None:
    for rows, batch in SIZES:
        (process,) = batches(rows, batch, 1, shuffle=False)
        assert flat(process) == list(range(rows))


@pytest.mark.parametrize("world", range(1, 6))
def test_shuffling_is_a_function_of_seed_and_epoch_alone(world: int) -> None:
    first = batches(40, 8, world, shuffle=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert batches(40, 8, world, shuffle=True) == first
        torch.manual_seed(1)
        before = torch.get_rng_state()
        assert batches(40, 8, world, shuffle=True) == first
        assert torch.equal(torch.get_rng_state(), before)
    others = [
        batches(40, 8, world, shuffle=True, seed=s, epoch=e) for s, e in [(7, 1), (7, 2), (8, 0)]
    ]
    assert all(a != b for i, a in enumerate([first, *others]) for b in [first, *others][:i])


def test_processes_of_one_epoch_share_one_permutation() -> None:
    (whole,) = batches(20, 20, 1, shuffle=True)
    processes = batches(20, 20, 4, shuffle=True)
    assert [flat(p) for p in processes] == [whole[0][rank::4] for rank in range(4)]


def test_batches_are_read_from_the_tensor_by_the_order() -> None:
    x = torch.arange(10)[:, None]
    order = Order(10, 4, shuffle=True)
    order.seed = 3
    loader = OrderedLoader(Rows(x), order)
    assert len(loader) == 3
    assert loader.sampler is order
    assert [b.flatten().tolist() for b in loader] == [i.tolist() for i in order]
    first = [b.tolist() for b in loader]
    order.set_epoch(1)
    assert [b.tolist() for b in loader] != first
