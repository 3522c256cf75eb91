"""Annealing schedules: one indexed list of levels, shared by heating and cooling.

    heating  s_t ~ q_{T_t}(· | s_{t-1})   t = 1 … K
    cooling  s_{t-1} ~ p_{T_t}(· | s_t)   t = K … 1

Step t uses the same `Level` in both directions. No temperature is ever recomputed by repeated multiplication, so the
two directions cannot disagree through rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

from walkback.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Level:
    """Step t and temperature T_t of a walk.

    Both are numbers if the whole batch is at one level, and tensors `(B,)` if rows are at different levels
    (see `walkback.levels`). Operators read the temperature through `temperature_like`, which handles both.

    Attributes:
        step: t.
        temperature: T_t.
        colder: T_{t-1}, at which the colder state of the step was drawn; 0 for the first step, whose colder state is
            data, and for a chain at one temperature, whose states follow the data's law.
        elapsed: Σ_{i<t} T_i, the diffusion time of the colder state, see `walkback.noising`; 0 for data.

    Raises:
        ConfigurationError: The temperature is not a positive finite number.
    """

    step: int | Tensor
    temperature: float | Tensor
    colder: float | Tensor = 0.0
    elapsed: float | Tensor = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.temperature, Tensor):
            return  # built from checked levels; reading the values would synchronize with the CUDA device
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigurationError(
                f"Got temperature {self.temperature!r} at step {self.step}, expected a positive finite number."
            )

    def temperature_like(self, leaf: Tensor) -> Tensor:
        """Return T_t with the dtype and device of `leaf` `(B, *E)`, shaped to broadcast against it.

        >>> Level(1, 2.0).temperature_like(torch.zeros(5, 3)).shape
        torch.Size([1, 1])
        """
        return _like(self.temperature, leaf)

    def elapsed_like(self, leaf: Tensor) -> Tensor:
        """Return Σ_{i<t} T_i in float64 on the device of `leaf` `(B, *E)`, shaped to broadcast against it."""
        return _like(self.elapsed, leaf.new_empty((1,) * leaf.dim(), dtype=torch.float64))

    def colder_level(self) -> Level | None:
        """Return the level of the colder state, or None where it is data; a tensor's temperature may be 0 there."""
        if isinstance(self.colder, Tensor) or self.colder > 0:
            return Level(self.step, self.colder)
        return None


def _like(temperature: float | Tensor, leaf: Tensor) -> Tensor:
    ones = (1,) * (leaf.dim() - 1)
    if isinstance(temperature, Tensor):
        return temperature.to(leaf).reshape(-1, *ones)
    return leaf.new_full((1, *ones), temperature)


Levels: TypeAlias = tuple[Level, ...]

MOST_LEVELS = 100_000
"""Largest number of levels of a walk; schedules bound their options by it."""


def levels_from(temperatures: Sequence[float]) -> Levels:
    """Make levels 1 … K from a list of temperatures.

    >>> [level.step for level in levels_from([1.0, 2.0])]
    [1, 2]
    """
    numbers = [float(temperature) for temperature in temperatures]
    elapsed = accumulate(numbers, initial=0.0)
    steps = zip(numbers, [0.0, *numbers], elapsed, strict=False)
    return tuple(Level(step, *of_level) for step, of_level in enumerate(steps, start=1))


def require_length(num_levels: int) -> None:
    """Raise ConfigurationError for more than `MOST_LEVELS` levels."""
    if num_levels > MOST_LEVELS:
        raise ConfigurationError(
            f"Got {num_levels:,} annealing levels, expected at most {MOST_LEVELS:,}: choose a shorter schedule."
        )


class Schedule(ABC):
    """Abstract annealing schedule. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """Return the levels of one walk, coldest first.

        Args:
            max_temperature: Temperature at which one step of the operator forgets its state
                (`TransitionOperator.max_temperature`); a schedule may override it with its own.
            generator: CPU generator for the random choices of the schedule in training. None returns the fixed
                list, which evaluation and sampling use.

        Raises:
            ConfigurationError: The schedule cannot reach `max_temperature`.
        """

    @abstractmethod
    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Return the same annealing in exactly `num_steps` steps (`walkback sample --steps`).

        Raises:
            ConfigurationError: The schedule does not support this length.
        """


class Learned(ABC):
    """Capability of a schedule that is an `nn.Module`: its parameters are trained for the bound.

    Its tensors are saved in the checkpoint, and averaged like those of the operator. The process must have noise that
    does not depend on the operator, and is a differentiable function of standard noise.
    """

    @abstractmethod
    def temperatures(self, max_temperature: float) -> Tensor:
        """Return T_1 … T_K of `levels` with their graph, `(K,)`, float64."""
