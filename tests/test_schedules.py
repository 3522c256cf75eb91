"""Levels, and the doubling schedule against Algorithm 1 of the paper, executed line by line."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from tests.toy.statistics import LIMIT, rng, z_of_counts

from walkback.errors import ConfigurationError
from walkback.schedules import Level, levels_from, stack_levels
from walkback_paper.schedules import DoublingSchedule

MAXIMA = [1.5, 2.0, 2.0 + 1e-9, 3.0, 4.0 - 1e-9, 4.0, 7.3, 100.0, 128.0, 1111.1, 2.0**20, 1e9]


def doublings_to(max_temperature: float) -> int:
    """ceil(log2 T_max), without a logarithm."""
    power = 0
    while 2**power < max_temperature:
        power += 1
    return power


def algorithm_1(max_temperature: float, n: int) -> list[float]:
    """The temperature of each `Sample s_t ~ p_T(s | s_{t-1})`, in the order of the paper's pseudo-code."""
    num_steps = doublings_to(max_temperature) + n
    temperature, used = 1.0, []
    for t in range(1, num_steps + 1):
        used.append(temperature)
        if t > n:
            temperature = 2 * temperature
    return used


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_level_must_have_a_positive_finite_temperature(bad: float) -> None:
    with pytest.raises(ConfigurationError, match="positive finite"):
        Level(1, bad)
    with pytest.raises(ConfigurationError, match="step 2"):
        levels_from([1.0, bad])


def test_temperature_takes_the_shape_and_dtype_of_the_state() -> None:
    images = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    one = Level(1, 0.1).temperature_like(images)
    assert (one.shape, one.dtype, one.item()) == ((1, 1, 1, 1), torch.float64, 0.1)
    rows = stack_levels(levels_from([0.1, 2.0]), 2, torch.device("cpu")).temperature_like(images)
    assert (rows.shape, rows.dtype) == ((4, 1, 1, 1), torch.float64)
    assert rows.flatten().tolist() == [0.1, 0.1, 2.0, 2.0]


def test_stacked_levels_run_through_the_walk_in_blocks_of_rows() -> None:
    level = stack_levels(levels_from([1.0, 2.0, 4.0]), 2, torch.device("cpu"))
    assert isinstance(level.step, torch.Tensor)
    assert isinstance(level.temperature, torch.Tensor)
    assert level.step.tolist() == [1, 1, 2, 2, 3, 3]
    assert level.temperature.tolist() == [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize("n", [0, 1, 2, 5, 11])
@pytest.mark.parametrize("max_temperature", MAXIMA)
def test_doubling_is_algorithm_1(max_temperature: float, n: int) -> None:
    levels = DoublingSchedule(n1=n).levels(max_temperature)
    assert [level.temperature for level in levels] == algorithm_1(max_temperature, n)
    assert [level.step for level in levels] == list(range(1, len(levels) + 1))


@pytest.mark.parametrize("max_temperature", MAXIMA)
def test_random_levels_are_algorithm_1_for_some_n(max_temperature: float) -> None:
    schedule, generator = DoublingSchedule(n1=3), rng(1)
    expected = [algorithm_1(max_temperature, n) for n in range(4)]
    drawn = [[level.temperature for level in schedule.levels(max_temperature, generator)] for _ in range(20)]
    assert all(temperatures in expected for temperatures in drawn)


def test_the_last_step_injects_at_least_half_of_the_largest_noise() -> None:
    for max_temperature in MAXIMA:
        hottest = DoublingSchedule().levels(max_temperature)[-1].temperature
        assert max_temperature / 2 <= hottest < max_temperature


def test_n_is_uniform_from_0_to_n1() -> None:
    """Chi-square over 6 values, 6,000 draws: fails by chance with probability 6.8e-6."""
    schedule, generator = DoublingSchedule(n1=5), rng(2)
    lengths = Counter(len(schedule.levels(8.0, generator)) - 3 for _ in range(6000))
    assert set(lengths) == set(range(6))
    assert (
        abs(
            z_of_counts(
                torch.tensor([lengths[n] for n in range(6)]), torch.full((6,), 1 / 6, dtype=torch.float64)
            )
        )
        < LIMIT
    )


def test_a_draw_depends_on_its_generator_alone() -> None:
    schedule = DoublingSchedule(n1=50)
    before = torch.get_rng_state()
    first = [schedule.levels(8.0, rng(seed)) for seed in range(10)]
    assert first == [schedule.levels(8.0, rng(seed)) for seed in range(10)]
    assert len(set(map(len, first))) > 1
    assert torch.get_rng_state().equal(before)


def test_the_schedule_may_have_its_own_maximum() -> None:
    own = DoublingSchedule(n1=2, max_temperature=16.0)
    assert own.levels(1e6) == own.levels(3.0) == DoublingSchedule(n1=2).levels(16.0)


@pytest.mark.parametrize("max_temperature", MAXIMA)
def test_levels_of_length_choose_n(max_temperature: float) -> None:
    shortest = doublings_to(max_temperature)
    schedule = DoublingSchedule(n1=0)
    for num_steps in range(shortest, shortest + 4):
        levels = schedule.levels_of_length(max_temperature, num_steps)
        assert [level.temperature for level in levels] == algorithm_1(max_temperature, num_steps - shortest)
    with pytest.raises(ConfigurationError, match=f"at least {shortest}"):
        schedule.levels_of_length(max_temperature, shortest - 1)


@pytest.mark.parametrize("bad", [0.0, -4.0, math.nan, math.inf])
def test_an_impossible_maximum_is_refused(bad: float) -> None:
    with pytest.raises(ConfigurationError, match="T_max"):
        DoublingSchedule().levels(bad)


def test_a_walk_has_at_least_one_step() -> None:
    """Where one step at T = 1 forgets everything, Algorithm 1 with n = 0 would take none."""
    assert DoublingSchedule(n1=0).levels(1.0) == levels_from([1.0])
    assert DoublingSchedule(n1=2).levels(0.5) == levels_from([1.0, 1.0, 1.0])
