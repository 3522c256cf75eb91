"""Laws of annealing schedules: T_1 ≤ T_2 ≤ … ≤ T_K, where T_K is hot enough for one step to forget the state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import torch

from walkback.errors import ConfigurationError
from walkback.schedules import Level, Levels, Schedule
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.probes import drawn_from

SCHEDULES = Suite()

_HEIGHTS = (1.0, 1.5, 8.0, 100.0, 1234.5)
"""Values of T_max to try."""

_DRAWS = 20


def _built(case: Case) -> Schedule:
    schedule: Schedule = case.build("schedule")
    return schedule


def _fixed(case: Case) -> Iterator[tuple[float, Levels]]:
    """Yield the deterministic levels by T_max; the schedule may refuse some values of T_max, but not all."""
    schedule, refusal = _built(case), ConfigurationError("")
    works = False
    for height in _HEIGHTS:
        try:
            levels = schedule.levels(height)
        except ConfigurationError as error:
            refusal = error
            continue
        works = True
        yield height, levels
    if not works:
        raise ConformanceError(
            f"Got no levels from {case.label!r} for T_max = {_HEIGHTS} (last refusal: {refusal}), expected some."
        )


def _lists(case: Case) -> Iterator[Levels]:
    """Yield deterministic levels, randomly drawn levels, and levels of a given length."""
    schedule = _built(case)
    for height, levels in _fixed(case):
        yield levels
        noise = torch.Generator().manual_seed(0)
        yield from (schedule.levels(height, noise) for _ in range(_DRAWS))
        try:
            yield schedule.levels_of_length(height, len(levels) + 3)
        except ConfigurationError:
            continue


def _temperatures(levels: Levels) -> list[float]:
    return [float(level.temperature) for level in levels]


def _shown(levels: Levels) -> str:
    found = _temperatures(levels)
    return ", ".join(f"{t:.4g}" for t in found[:8]) + (", …" if len(found) > 8 else "")


@SCHEDULES.check("builds", "it is a schedule, built from its options, and has levels")
def _builds(case: Case) -> None:
    for _, levels in _fixed(case):
        if not (isinstance(levels, tuple) and levels and all(isinstance(level, Level) for level in levels)):
            raise ConformanceError(
                f"Got {levels!r:.80} as levels, expected a tuple of at least one walkback.schedules.Level."
            )


@SCHEDULES.check("steps", "steps are numbered 1 … K")
def _steps(case: Case) -> None:
    for levels in _lists(case):
        steps = [level.step for level in levels]
        if steps != list(range(1, len(levels) + 1)):
            raise ConformanceError(
                f"Got steps {steps[:8]}, expected 1 … {len(levels)}: make levels with levels_from."
            )


@SCHEDULES.check("finite", "temperatures are positive finite numbers")
def _finite(case: Case) -> None:
    for levels in _lists(case):
        if not all(math.isfinite(t) and t > 0 for t in _temperatures(levels)):
            raise ConformanceError(
                f"Got temperatures {_shown(levels)}, expected positive finite numbers throughout."
            )


@SCHEDULES.check("coldest-first", "temperatures never fall from one step to the next")
def _coldest_first(case: Case) -> None:
    for levels in _lists(case):
        found = _temperatures(levels)
        if found != sorted(found):
            raise ConformanceError(
                f"Got falling temperatures {_shown(levels)}, expected the coldest first: a walk heats up."
            )


@SCHEDULES.check("reaches", "the step after the last would be at T_max or hotter")
def _reaches(case: Case) -> None:
    lists = [(height, _temperatures(levels)) for height, levels in _fixed(case)]
    growth = max((b / a for _, found in lists for a, b in pairwise(found)), default=1.0)
    for height, found in lists:
        # Algorithm 1 stops one growth short of T_max.
        if found[-1] * growth < height * (1 - 1e-9):
            raise ConformanceError(
                f"Got {found[-1]:.4g} as the hottest temperature, expected T_max = {height:g}, or one growth less: "
                "the last step must forget the state."
            )


@SCHEDULES.check(
    "repeats", "without a generator the levels are always the same, independent of global randomness"
)
def _repeats(case: Case) -> None:
    schedule = _built(case)
    for height, levels in _fixed(case):
        found = drawn_from(partial(_listed, schedule, height), "schedule without a generator")
        if not torch.equal(found, _row(levels)):
            raise ConformanceError(
                f"Got different levels from a second schedule at T_max = {height:g}, expected equal ones: without a "
                "generator, levels are deterministic."
            )


@SCHEDULES.check("generator", "random levels are drawn from the generator only")
def _generator(case: Case) -> None:
    schedule = _built(case)
    for height, _ in _fixed(case):
        drawn_from(partial(_drawn, schedule, height), "draw of levels")


def _listed(schedule: Schedule, height: float, _: torch.Generator) -> torch.Tensor:
    return _row(schedule.levels(height))


def _drawn(schedule: Schedule, height: float, noise: torch.Generator) -> torch.Tensor:
    return torch.cat([_row(schedule.levels(height, noise)) for _ in range(_DRAWS)])


def _row(levels: Levels) -> torch.Tensor:
    return torch.tensor(_temperatures(levels), dtype=torch.float64)


@SCHEDULES.check("lengths", "levels_of_length returns exactly that many levels, or raises ConfigurationError")
def _lengths(case: Case) -> None:
    schedule, given = _built(case), 0
    for height, levels in _fixed(case):
        for num in sorted({1, 2, 5, len(levels), len(levels) + 3}):
            try:
                found = schedule.levels_of_length(height, num)
            except ConfigurationError:
                continue
            given += 1
            if len(found) != num:
                raise ConformanceError(
                    f"Got {len(found)} levels, expected {num} (T_max = {height:g}), or a ConfigurationError that says "
                    "which lengths are available."
                )
    if not given:
        raise NotApplicable("The schedule supports none of the lengths tried.")
