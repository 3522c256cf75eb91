"""Temperatures by hand; distances of normal laws in closed form; a mismatch that is known is found where it is."""

from __future__ import annotations

import math
from typing import final

import pytest
import torch
from torch import Tensor
from walkback_levels.diagnostic import LevelMatch, energy_distance
from walkback_levels.schedule import PowerLaw

from walkback.data import DataInfo, Dataset, Split
from walkback.diagnostics import Subject
from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, NormalKernel
from walkback.model import Model
from walkback.operators import Conditional, TransitionOperator
from walkback.priors import Prior
from walkback.processes import TiedProcess
from walkback.schedules import Level
from walkback.state import Context, Space, State, leaves
from walkback.testing import Case, Check, checks

LIMIT = 4.5
SCHEDULE, DIAGNOSTIC = Case.of("power-law"), Case.of("level-match", {"groups": 8, "walks": 50})


@pytest.mark.parametrize("check", checks("schedule"), ids=str)
def test_the_schedule_conforms(check: Check) -> None:
    check(SCHEDULE)


@pytest.mark.parametrize("check", checks("diagnostic"), ids=str)
def test_the_diagnostic_conforms(check: Check) -> None:
    check(DIAGNOSTIC)


def temperatures(rho: float) -> list[float]:
    return [float(level.temperature) for level in PowerLaw(num_levels=5, rho=rho).levels(81.0)]


def test_temperatures_by_hand() -> None:
    """Even in T; even in the standard deviation √T, 1 to 9; even in log T in the limit."""
    assert temperatures(0.5) == pytest.approx([1, 21, 41, 61, 81])
    assert temperatures(1.0) == pytest.approx([1, 9, 25, 49, 81])
    assert temperatures(100.0) == pytest.approx([1, 3, 9, 27, 81], rel=0.02)


def test_one_step_is_no_schedule() -> None:
    with pytest.raises(ConfigurationError, match="at least 2"):
        PowerLaw().levels_of_length(8.0, 1)


def distance_of_normals(first: float, second: float) -> float:
    """Energy distance of N(0, u) and N(0, v): E|x - y| = √(2 (u + v) / π)."""
    u, v = first, second
    return math.sqrt(2 / math.pi) * (2 * math.sqrt(u + v) - math.sqrt(2 * u) - math.sqrt(2 * v))


def test_the_distance_is_that_of_the_closed_form() -> None:
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(100, 500, 1, generator=noise, dtype=torch.float64)
    y = 3 * torch.randn(100, 500, 1, generator=noise, dtype=torch.float64)
    terms = energy_distance(x, y)
    error = terms.std().item() / math.sqrt(100)
    assert abs(terms.mean().item() - distance_of_normals(1, 9)) < LIMIT * error
    assert error < 0.1 * distance_of_normals(1, 9)


@final
class Balanced(TransitionOperator, Conditional):
    """s' = a s + √(1 - a²) ε at every level: in detailed balance with N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self._mean = torch.zeros(0)

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        self._mean = 0.8 * leaves(state)[0]
        return self

    def cooling(self, level: Level) -> Kernel:
        return NormalKernel(self._mean, torch.full((1, 1), 0.36))

    def heating(self, level: Level) -> Kernel:
        return self.cooling(level)

    @property
    def max_temperature(self) -> float:
        return 8.0


@final
class Wide(Prior):
    """N(0, v)."""

    def __init__(self, variance: float) -> None:
        super().__init__(Space((1,)))
        self._variance = variance

    def _kernel(self, num: int) -> NormalKernel:
        return NormalKernel(torch.zeros(num, 1), torch.full((1, 1), self._variance))

    def log_prob(self, state: State) -> Tensor:
        return self._kernel(len(leaves(state)[0])).log_prob(state)

    def sample(self, num: int, generator: torch.Generator) -> State:
        return self._kernel(num).sample(generator)

    def fit(self, state: State) -> None:
        pass

    def observe(self, state: State) -> None:
        pass


@final
class Standard(Dataset):
    """N(0, 1)."""

    def prepare(self) -> None:
        pass

    @property
    def info(self) -> DataInfo:
        return DataInfo("standard", (1,))

    def examples(self, split: Split) -> Tensor:
        return torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0))

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows


def subject(prior_variance: float) -> Subject:
    schedule = PowerLaw(num_levels=4, rho=1.0)
    model = Model(Balanced(), schedule, TiedProcess(), Wide(prior_variance))
    return Subject(model, Standard().info, Standard)


def test_walks_in_balance_match_at_every_level() -> None:
    """Prior and data have the stationary law: every level is 0 but for chance."""
    (series,) = LevelMatch(groups=40, walks=200).measure(subject(1.0)).series
    assert series.error is not None
    assert len(series.y) == 5
    assert all(abs(value) < LIMIT * error for value, error in zip(series.y, series.error, strict=True))


def test_a_prior_that_is_too_wide_is_found_where_it_is() -> None:
    """Cooling has Var(s_t) = 1 + 0.64^(K - t) · 8 at every level, heating 1."""
    report = LevelMatch(groups=100, walks=400).measure(subject(9.0))
    (series,) = report.series
    assert series.error is not None
    for step, (value, error) in enumerate(zip(series.y, series.error, strict=True)):
        exact = distance_of_normals(1, 1 + 0.64 ** (4 - step) * 8)
        assert abs(value - exact) < LIMIT * error
    assert report["largest_mismatch"].value == report["mismatch_at_prior"].value
    assert "level 4 (T = 8)" in report["largest_mismatch"].meaning
