"""Temperature laws: what the temperature of a level does to Gaussian noise.

    variance(v, T)       the variance at T of noise whose variance at T = 1 is v
    max_temperature      the T at which v has become the largest variance that is wanted

A law is one object, so that the noise of a level and T_max, which schedules climb to, cannot disagree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

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
