"""Streams of randomness by counter, and the order of the examples that they shuffle."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from tests.toy.statistics import LIMIT, z_of_p

from walkback.errors import DataError
from walkback.support.seeding import derive_seed, generator
from walkback.training.batches import BatchOrder

POSITIONS = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**32,), (2**32, 0), (0, 0, 0), (7, 2**40)]


def test_streams_differ_in_seed_purpose_and_position() -> None:
    """Also those whose numbers only differ by trailing zeros or in how they split into words."""
    names = list(product([0, 1, 2**32, 2**32 + 1, 2**63], ["noise", "order", ""], POSITIONS))
    seeds = {derive_seed(seed, stream, *position) for seed, stream, position in names}
    assert len(seeds) == len(names)


def test_seeds_fit_every_generator() -> None:
    assert all(0 <= derive_seed(seed, "noise", 3) < 2**63 for seed in range(2000))


def test_streams_never_change() -> None:
    """A run resumed by a later version must go on with the same numbers."""
    assert derive_seed(0, "noise", 5, 0) == 4030374081896512431


def test_a_generator_is_its_seed() -> None:
    drawn = torch.rand(3, generator=generator("cpu", 4, "noise", 2))
    again = torch.rand(3, generator=torch.Generator().manual_seed(derive_seed(4, "noise", 2)))
    assert drawn.equal(again)


def test_neighbouring_streams_are_unrelated() -> None:
    """First numbers of 4,000 consecutive streams: uniform, and uncorrelated with their neighbours', |z| < 4.5."""
    first = np.array([float(torch.rand((), generator=generator("cpu", 0, "noise", i))) for i in range(4000)])
    assert z_of_p(stats.kstest(first, "uniform").pvalue) < LIMIT
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) * np.sqrt(3999) < LIMIT


def test_deriving_a_seed_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    generator("cpu", 0, "noise")
    assert torch.get_rng_state().equal(before)


def stream(order: BatchOrder, batches: int) -> list[int]:
    return torch.cat([order.batch(number) for number in range(batches)]).tolist()


@pytest.mark.parametrize(("examples", "batch_size"), [(12, 4), (10, 4), (7, 7), (3, 10), (1, 3), (101, 8)])
def test_each_epoch_visits_every_example_once(examples: int, batch_size: int) -> None:
    seen = stream(BatchOrder(examples, batch_size, seed=0), 30)
    for start in range(0, len(seen) - examples + 1, examples):
        assert sorted(seen[start : start + examples]) == list(range(examples))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first = stream(BatchOrder(50, 50, seed=0), 2)
    assert first[:50] != first[50:]
    assert first != stream(BatchOrder(50, 50, seed=1), 2)


def test_a_shuffle_puts_every_example_anywhere() -> None:
    """Chi-square of the place of example 0 over 3,000 epochs of 5, |z| < 4.5."""
    order = BatchOrder(5, 5, seed=0)
    places = [order.batch(epoch).tolist().index(0) for epoch in range(3000)]
    assert z_of_p(stats.chisquare(np.bincount(places, minlength=5)).pvalue) < LIMIT


def test_a_batch_is_a_function_of_its_number() -> None:
    """In any order, and on an order that has just been built: nothing but the number is needed to resume."""
    order = BatchOrder(10, 4, seed=3)
    forwards = [order.batch(number) for number in range(20)]
    backwards = [order.batch(number) for number in reversed(range(20))]
    assert all(a.equal(b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert BatchOrder(10, 4, seed=3).batch(13).equal(forwards[13])


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_stream_of_one(world_size: int) -> None:
    """Ranks see disjoint parts of an epoch, and together what one process with their joint batch sees."""
    ranks = [BatchOrder(60, 5, seed=0, rank=rank, world_size=world_size) for rank in range(world_size)]
    whole = BatchOrder(60, 5 * world_size, seed=0)
    for number in range(9):
        parts = [order.batch(number) for order in ranks]
        assert torch.cat(parts).equal(whole.batch(number))
    epoch = [set(stream(order, 60 // (5 * world_size))) for order in ranks]
    assert not set.intersection(*epoch)
    assert len(set.union(*epoch)) == 60


def test_no_examples_are_refused() -> None:
    with pytest.raises(DataError, match="has no examples"):
        BatchOrder(0, 4, seed=0)
