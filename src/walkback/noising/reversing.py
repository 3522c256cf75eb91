"""Operators that know the noise that they reverse."""

from __future__ import annotations

from abc import ABC, abstractmethod

from walkback.noising.gaussian import GaussianNoise


class Reversing(ABC):
    """Capability of an operator: it reverses Gaussian noise of its own, which a process copies."""

    @property
    @abstractmethod
    def reversed_noise(self) -> GaussianNoise | None:
        """The noise, fitted to data; None if an instance is not made for any."""
