"""Levels; doubling against Algorithm 1 of the paper, executed line by line; other schedules against lists by hand."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tests.toy.statistics import LIMIT, rng, z_of_counts

from walkback.configuration.schema import validate
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.levels import stack_levels
from walkback.schedules import Level, Levels, Schedule, levels_from
from walkback.temperature import StandardDeviationLaw, VarianceLaw
from walkback_paper.schedules import (
    ConstantSchedule,
    DoublingSchedule,
    ExplicitSchedule,
    GeometricSchedule,
    Sqrt2Schedule,
)

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


def temperatures(levels: Levels) -> list[Any]:
    assert [level.step for level in levels] == list(range(1, len(levels) + 1))
    return [level.temperature for level in levels]


EVERY: list[Schedule] = [
    DoublingSchedule(),
    GeometricSchedule(factor=1.1),
    GeometricSchedule(factor=7.0, n1=0),
    Sqrt2Schedule(),
    ConstantSchedule(temperature=0.25, num_steps=3, n1=2),
    ExplicitSchedule(temperatures=(0.5, 3.0, 2.0)),
]
NAMES = ["doubling", "geometric", "sqrt2", "constant", "explicit"]


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("max_temperature", [1.0, 2.5, 1e9])
def test_levels_are_positive_and_depend_on_the_generator_alone(
    schedule: Schedule, max_temperature: float
) -> None:
    before = torch.get_rng_state()
    for seed in range(5):
        drawn = schedule.levels(max_temperature, rng(seed))
        assert drawn == schedule.levels(max_temperature, rng(seed))
        assert all(0 < level.temperature < math.inf for level in drawn)
        assert len(drawn) <= len(schedule.levels(max_temperature))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("n1", [0, 1, 4])
@pytest.mark.parametrize("max_temperature", [0.5, 1.0, *MAXIMA])
def test_doubling_is_geometric_with_factor_two(max_temperature: float, n1: int) -> None:
    doubling, geometric = DoublingSchedule(n1=n1), GeometricSchedule(factor=2.0, n1=n1)
    assert doubling.levels(max_temperature) == geometric.levels(max_temperature)
    for seed in range(5):
        assert doubling.levels(max_temperature, rng(seed)) == geometric.levels(max_temperature, rng(seed))
    for num_steps in range(40, 45):
        assert doubling.levels_of_length(max_temperature, num_steps) == geometric.levels_of_length(
            max_temperature, num_steps
        )


@pytest.mark.parametrize(
    ("factor", "n1", "max_temperature", "expected"),
    [
        (1.5, 2, 5.0, [1.0, 1.0, 1.0, 1.5, 2.25, 3.375]),
        (1.5, 0, 5.0625, [1.0, 1.5, 2.25, 3.375]),
        (1.5, 0, 5.1, [1.0, 1.5, 2.25, 3.375, 5.0625]),
        (3.0, 1, 10.0, [1.0, 1.0, 3.0, 9.0]),
        (10.0, 0, 1000.0, [1.0, 10.0, 100.0]),
        (10.0, 3, 10.0, [1.0] * 4),
        (10.0, 0, 1.0, [1.0]),
        (1e200, 0, 1e300, [1.0, 1e200]),
    ],
)
def test_geometric_levels_by_hand(
    factor: float, n1: int, max_temperature: float, expected: list[float]
) -> None:
    assert temperatures(GeometricSchedule(factor=factor, n1=n1).levels(max_temperature)) == expected
    own = GeometricSchedule(factor=factor, n1=n1, max_temperature=max_temperature)
    assert temperatures(own.levels(7e77)) == expected


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("factor", [1.1, 1.5, 2.0, 2.5, 7.0])
@pytest.mark.parametrize("max_temperature", MAXIMA)
def test_geometric_takes_as_many_steps_as_the_factor_needs(
    max_temperature: float, factor: float, n: int
) -> None:
    """K - n = ceil(log T_max / log factor), counted with exact fractions."""
    needed = 0
    while Fraction(factor) ** needed < Fraction(max_temperature):
        needed += 1
    found = temperatures(GeometricSchedule(factor=factor, n1=n).levels(max_temperature))
    assert len(found) == needed + n
    assert all(a <= b for a, b in pairwise(found))
    np.testing.assert_allclose(found[n + 1 :], np.array(found[n:-1]) * factor, rtol=1e-12)
    assert max_temperature / factor * (1 - 1e-12) <= found[-1] < max_temperature


@pytest.mark.parametrize("factor", [1.1, 1.3, 1.5, 3.0])
def test_rounding_of_an_exact_power_adds_no_level(factor: float) -> None:
    schedule = GeometricSchedule(factor=factor, n1=0)
    for power in range(1, 120):
        for maximum in (factor**power, math.prod([factor] * power), float(Fraction(str(factor)) ** power)):
            assert len(schedule.levels(maximum)) == power


def test_thirty_steps_of_the_papers_examples() -> None:
    """Appendix C: 30 steps, the temperature times 1.1 each time."""
    found = temperatures(GeometricSchedule(factor=1.1, n1=0, max_temperature=17.4).levels(400.0))
    np.testing.assert_allclose(found, np.cumprod([1.0, *[1.1] * 29]), rtol=1e-12)


def test_levels_of_length_of_geometric_choose_n() -> None:
    schedule = GeometricSchedule(factor=3.0, n1=7)
    assert temperatures(schedule.levels_of_length(20.0, 3)) == [1.0, 3.0, 9.0]
    assert temperatures(schedule.levels_of_length(20.0, 5)) == [1.0, 1.0, 1.0, 3.0, 9.0]
    with pytest.raises(ConfigurationError, match=r"Got 2 annealing steps, expected at least 3"):
        schedule.levels_of_length(20.0, 2)


def test_a_factor_that_would_take_forever_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"at most 100000: choose a larger factor"):
        GeometricSchedule(factor=1 + 1e-9).levels(100.0)


def test_appendix_f_by_hand() -> None:
    root = 1.4142135623730951
    found = temperatures(Sqrt2Schedule(num_steps=6).levels(1e6))
    np.testing.assert_allclose(found, [1, root, 2, 2 * root, 4, 4 * root], rtol=1e-15)
    assert found[::2] == [1.0, 2.0, 4.0]
    assert len(Sqrt2Schedule().levels(1.0)) == 30


def test_cooling_of_appendix_f_is_heating_reversed() -> None:
    """The appendix: heating T_t = √(2^t) from t = 0, cooling T_t = √(2^(N - t)) for t = 1 … N."""
    cooling = [math.sqrt(2.0 ** (30 - t)) for t in range(1, 31)]
    assert temperatures(Sqrt2Schedule().levels(1.0))[::-1] == cooling


def test_appendix_f_with_the_deviation_is_doubling_of_the_variance() -> None:
    noise = torch.tensor([[0.3]], dtype=torch.float64)
    roots, doubling = Sqrt2Schedule(num_steps=12).levels(1.0), DoublingSchedule(n1=0).levels(4096.0)
    found = [StandardDeviationLaw().variance(noise, level) for level in roots]
    expected = [VarianceLaw().variance(noise, level) for level in doubling]
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=1e-14, atol=0)


def test_more_steps_of_appendix_f_are_taken_at_temperature_one() -> None:
    schedule = Sqrt2Schedule(num_steps=3)
    assert temperatures(schedule.levels_of_length(9.0, 5)) == [1.0, 1.0, 1.0, math.sqrt(2), 2.0]
    with pytest.raises(ConfigurationError, match=r"Got 2 annealing steps, expected at least 3"):
        schedule.levels_of_length(9.0, 2)


def test_constant_levels_by_hand() -> None:
    assert temperatures(ConstantSchedule(temperature=0.25, num_steps=3).levels(1e6)) == [0.25] * 3
    assert temperatures(ConstantSchedule(temperature=4.0, num_steps=3, n1=2).levels(1.0)) == [4.0] * 5
    assert temperatures(ConstantSchedule(temperature=4.0, n1=2).levels_of_length(1.0, 2)) == [4.0] * 2
    with pytest.raises(ConfigurationError, match=r"Got 0 annealing steps, expected at least 1"):
        ConstantSchedule().levels_of_length(1.0, 0)


def test_explicit_levels_are_those_listed() -> None:
    schedule = ExplicitSchedule(temperatures=(0.5, 3.0, 2.0))
    assert temperatures(schedule.levels(1e6, rng())) == [0.5, 3.0, 2.0]
    assert temperatures(schedule.levels_of_length(1.0, 3)) == [0.5, 3.0, 2.0]
    for num_steps in (2, 4):
        with pytest.raises(ConfigurationError, match=rf"Got {num_steps} annealing steps, expected 3"):
            schedule.levels_of_length(1.0, num_steps)


@pytest.mark.parametrize(
    ("schedule", "shortest"),
    [
        (GeometricSchedule(factor=1.5, n1=5, max_temperature=2.0), 2),
        (ConstantSchedule(num_steps=4, n1=5), 4),
    ],
    ids=["geometric", "constant"],
)
def test_n_of_the_others_is_uniform_too(schedule: Schedule, shortest: int) -> None:
    """Chi-square over 6 values, 6,000 draws."""
    generator = rng(3)
    lengths = Counter(len(schedule.levels(8.0, generator)) - shortest for _ in range(6000))
    assert set(lengths) == set(range(6))
    counts = torch.tensor([lengths[n] for n in range(6)])
    assert z_of_counts(counts, torch.full((6,), 1 / 6, dtype=torch.float64)) < LIMIT


def test_one_integer_is_drawn_a_walk() -> None:
    """All schedules that draw n draw the same one from the same generator, and leave it in the same state."""
    drawing = [DoublingSchedule(n1=9), GeometricSchedule(n1=9), ConstantSchedule(num_steps=1, n1=9)]
    generators = [rng(4) for _ in drawing]
    for _ in range(20):
        lengths = [
            len(s.levels(1.0, g)) - len(type(s)(n1=0).levels_of_length(1.0, 1))
            for s, g in zip(drawing, generators, strict=True)
        ]
        assert len(set(lengths)) == 1
    assert all(g.get_state().equal(generators[0].get_state()) for g in generators)


@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_is_offered_by_name(name: str) -> None:
    registry = Registry.discover()
    cls = registry.load(registry.find("schedule", name))
    options = {"temperatures": [1, 2.5]} if name == "explicit" else {}
    assert isinstance(cls(**validate("schedule", cls, options)), Schedule)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (GeometricSchedule, {"factor": 1.0}),
        (GeometricSchedule, {"factor": 1e999}),
        (GeometricSchedule, {"max_temperature": 0.5}),
        (GeometricSchedule, {"n1": -1}),
        (Sqrt2Schedule, {"num_steps": 0}),
        (Sqrt2Schedule, {"num_steps": 1001}),
        (ConstantSchedule, {"temperature": 0.0}),
        (ConstantSchedule, {"num_steps": 0}),
        (ExplicitSchedule, {}),
        (ExplicitSchedule, {"temperatures": []}),
        (ExplicitSchedule, {"temperatures": [1.0, -2.0]}),
        (ExplicitSchedule, {"temperatures": "1"}),
    ],
)
def test_impossible_options_are_refused(cls: type, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        validate("schedule", cls, options)
