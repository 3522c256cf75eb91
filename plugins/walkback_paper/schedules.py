"""Annealing schedules: an indexed list of temperatures T_1 … T_K for heating and, reversed, for cooling.

    doubling    T_t = 2^max(0, t - 1 - n),        K = ceil(log2 T_max) + n              (Algorithm 1)
    geometric   T_t = factor^max(0, t - 1 - n),   K = ceil(log T_max / log factor) + n
    sqrt2       T_t = √(2^(t - 1)),               K = num_steps                         (appendix F)
    constant    T_t = temperature,                K = num_steps + n
    explicit    T_t as listed

n ~ U{0 … N1} in training, n = N1 in evaluation and sampling. Algorithm 1 multiplies T by 2 after every step t > n, so
n + 1 steps are taken at T = 1 and the last one at 2^(ceil(log2 T_max) - 1).
"""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias, final

import torch
from pydantic import Field

from walkback.errors import ConfigurationError
from walkback.schedules import MOST_LEVELS, Levels, Schedule, levels_from

Temperature: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
_MaxTemperature: TypeAlias = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]

_Further: TypeAlias = Annotated[int, Field(ge=0, le=MOST_LEVELS)]
_Steps: TypeAlias = Annotated[int, Field(ge=1, le=MOST_LEVELS)]

_ROUNDING = 1e-12


@final
class DoublingSchedule(Schedule):
    """n + 1 steps at T = 1, then doubling up to T_max.

    Args:
        n1: N1, the largest number n of further steps at T = 1; training draws n from 0 to N1, evaluation and sampling
            take n = N1.
        max_temperature: T_max; None takes the operator's σ_max² / σ².
    """

    def __init__(self, *, n1: _Further = 4, max_temperature: _MaxTemperature | None = None) -> None:
        self._n1 = n1
        self._max_temperature = max_temperature

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """Levels with n drawn from the generator (one integer), or with n = N1."""
        growing = _growing("doubling", 2.0, max_temperature, self._max_temperature)
        return _geometric(2.0, growing, _draw(self._n1, generator))

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Levels with n = num_steps - ceil(log2 T_max)."""
        growing = _growing("doubling", 2.0, max_temperature, self._max_temperature)
        return _geometric(2.0, growing, _further("doubling", num_steps, growing))


@final
class GeometricSchedule(Schedule):
    """n + 1 steps at T = 1, then growth by a factor up to T_max; `doubling` is the factor 2.

    The paper's 2-D examples use 30 steps with factor 1.1: `n1 = 0`, `max_temperature = 17.4`.

    Args:
        factor: Ratio of successive temperatures.
        n1: N1, the largest number n of further steps at T = 1; training draws n from 0 to N1, evaluation and sampling
            take n = N1.
        max_temperature: T_max; None takes the operator's σ_max² / σ².
    """

    def __init__(
        self,
        *,
        factor: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] = 1.5,
        n1: _Further = 4,
        max_temperature: _MaxTemperature | None = None,
    ) -> None:
        self._factor = factor
        self._n1 = n1
        self._max_temperature = max_temperature

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """Levels with n drawn from the generator (one integer), or with n = N1."""
        growing = _growing("geometric", self._factor, max_temperature, self._max_temperature)
        return _geometric(self._factor, growing, _draw(self._n1, generator))

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Levels with n = num_steps - ceil(log T_max / log factor)."""
        growing = _growing("geometric", self._factor, max_temperature, self._max_temperature)
        return _geometric(self._factor, growing, _further("geometric", num_steps, growing))


@final
class Sqrt2Schedule(Schedule):
    """Appendix F: T_t = T_0 √(2^t) with T_0 = 1, and a fixed number of steps.

    The appendix counts heating from t = 0, where T is "the initial temperature" 1, and cooling from t = 1, with
    T = √(2^(N - t)), so that cooling is heating "exactly reversed". Here step 1 is at T = 1 and step K at √(2^(K - 1)),
    regardless of the operator's T_max. If temperature multiplies the standard deviation
    (`operator.temperature_law = "std"`), the variance doubles every step, as in `doubling` with n = 0.

    Args:
        num_steps: K; the paper's experiments use 30.
    """

    def __init__(self, *, num_steps: Annotated[int, Field(ge=1, le=1000)] = 30) -> None:
        self._temperatures = [math.sqrt(2.0**power) for power in range(num_steps)]

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """The same levels always: nothing is left to chance."""
        return levels_from(self._temperatures)

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Returns levels with further steps at T = 1 (the appendix's "few extra steps")."""
        return levels_from([1.0] * _further("sqrt2", num_steps, len(self._temperatures)) + self._temperatures)


@final
class ConstantSchedule(Schedule):
    """All steps at one temperature.

    Args:
        temperature: T.
        num_steps: Steps of the shortest walk.
        n1: N1, the largest number n of further steps; training draws n from 0 to N1, evaluation and sampling take
            n = N1.
    """

    def __init__(self, *, temperature: Temperature = 1.0, num_steps: _Steps = 30, n1: _Further = 0) -> None:
        self._temperature = temperature
        self._num_steps = num_steps
        self._n1 = n1

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """Returns num_steps + n levels, with n drawn from the generator (one integer), or n = N1."""
        return levels_from([self._temperature] * (self._num_steps + _draw(self._n1, generator)))

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Returns `num_steps` levels: there is no annealing whose length could conflict."""
        _further("constant", num_steps, 1)
        return levels_from([self._temperature] * num_steps)


@final
class ExplicitSchedule(Schedule):
    """Any list of temperatures.

    Args:
        temperatures: T_1 … T_K, in the order of heating.
    """

    def __init__(
        self, *, temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1, max_length=MOST_LEVELS)]
    ) -> None:
        self._levels = levels_from(temperatures)

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """The same levels always: nothing is left to chance."""
        return self._levels

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Returns the list if it has that length."""
        if num_steps != len(self._levels):
            raise ConfigurationError(
                f"Got {num_steps} annealing steps, expected {len(self._levels)}: the explicit schedule lists that "
                "many temperatures and has no rule for others."
            )
        return self._levels


def _draw(n1: int, generator: torch.Generator | None) -> int:
    """Returns n: uniform in 0 … N1 from one integer of the generator, or N1 without a generator."""
    return n1 if generator is None else int(torch.randint(0, n1 + 1, (), generator=generator))


def _growing(name: str, factor: float, operators: float, own: float | None) -> int:
    """Returns ceil(log T_max / log factor), at least 1."""
    chosen = operators if own is None else own
    if not (math.isfinite(chosen) and chosen > 0):
        raise ConfigurationError(f"Got T_max = {chosen!r}, expected a positive finite number.")
    # T_max is often a computed ratio: rounding must not turn an exact power of the factor into an additional level.
    growing = math.ceil((math.log(chosen) - _ROUNDING) / math.log(factor))
    if growing > MOST_LEVELS:
        raise ConfigurationError(
            f"Got {growing} levels of the {name} schedule up to T_max = {chosen:.4g} with factor {factor!r}, "
            f"expected at most {MOST_LEVELS}: choose a larger factor (schedule.factor)."
        )
    return max(1, growing)


def _further(name: str, num_steps: int, needed: int) -> int:
    """Returns the steps that remain for n after those that annealing needs."""
    if num_steps < needed:
        raise ConfigurationError(
            f"Got {num_steps} annealing steps, expected at least {needed}: the number of levels "
            f"the {name} schedule needs."
        )
    return num_steps - needed


def _geometric(factor: float, growing: int, n: int) -> Levels:
    return levels_from([1.0] * (n + 1) + [factor**power for power in range(1, growing)])
