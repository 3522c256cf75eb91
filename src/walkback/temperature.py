"""Temperature laws: what the temperature of a level does to Gaussian noise.

    variance(v, T)       the variance at T of noise whose variance at T = 1 is v
    max_temperature      the T at which v has become the largest variance that is wanted

    variance law             v_T = T v     Algorithm 1
    standard deviation law   v_T = T² v    section 3.3

A law is one object, so that the noise of a level and T_max, which schedules climb to, cannot disagree. With the
temperatures √(2^t) of appendix F the second law doubles the variance at every step, as the first does with 2^t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

from torch import Tensor

from walkback.schedules import Level


class TemperatureLaw(ABC):
    """How a variance grows with temperature. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def variance(self, variance_at_1: Tensor, level: Level) -> Tensor:
        """The variance at a level, from that at T = 1; both broadcastable to `(B, *E)`, differentiable in it."""

    @abstractmethod
    def max_temperature(self, largest: float, at_1: float) -> float:
        """T_max: the temperature that turns the variance `at_1` into `largest`, both positive."""


@final
class VarianceLaw(TemperatureLaw):
    """The temperature multiplies the variance (Algorithm 1)."""

    def variance(self, variance_at_1: Tensor, level: Level) -> Tensor:
        """T v."""
        return variance_at_1 * level.temperature_like(variance_at_1)

    def max_temperature(self, largest: float, at_1: float) -> float:
        """v_max / v."""
        return largest / at_1


@final
class StandardDeviationLaw(TemperatureLaw):
    """The temperature multiplies the standard deviation (section 3.3)."""

    def variance(self, variance_at_1: Tensor, level: Level) -> Tensor:
        """T² v."""
        return variance_at_1 * level.temperature_like(variance_at_1).square()

    def max_temperature(self, largest: float, at_1: float) -> float:
        """√(v_max / v)."""
        return math.sqrt(largest / at_1)


VARIANCE_LAW = VarianceLaw()
"""The law where none is chosen."""
