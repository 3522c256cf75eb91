"""The annealing schedule of Algorithm 1.

    T_t = 2^max(0, t - 1 - n),   t = 1 … K,   K = ceil(log2 T_max) + n,   n ~ U{0 … N1}

The algorithm multiplies T by 2 after every step t > n, so n + 1 steps are taken at T = 1 and the last one at
2^(ceil(log2 T_max) - 1).
"""

from __future__ import annotations

import math
from typing import Annotated, final

import torch
from pydantic import Field, NonNegativeInt

from walkback.errors import ConfigurationError
from walkback.schedules import Levels, Schedule, levels_from


@final
class DoublingSchedule(Schedule):
    """n + 1 steps at T = 1, then doubling up to T_max.

    Args:
        n1: N1, the largest number n of further steps at T = 1; training draws n from 0 to N1, evaluation and sampling
            take n = N1.
        max_temperature: T_max; None takes the operator's σ_max² / σ².
    """

    def __init__(
        self,
        *,
        n1: NonNegativeInt = 4,
        max_temperature: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] | None = None,
    ) -> None:
        self._n1 = n1
        self._max_temperature = max_temperature

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """Levels with n drawn from the generator (one integer), or with n = N1."""
        n = self._n1
        if generator is not None:
            n = int(torch.randint(0, self._n1 + 1, (), generator=generator))
        return _doubling(self._doublings(max_temperature), n)

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Levels with n = num_steps - ceil(log2 T_max)."""
        doublings = self._doublings(max_temperature)
        if num_steps < doublings:
            raise ConfigurationError(
                f"Got {num_steps} annealing steps, expected at least {doublings}: the number of levels "
                "the doubling schedule needs from T_max down to 1."
            )
        return _doubling(doublings, num_steps - doublings)

    def _doublings(self, max_temperature: float) -> int:
        chosen = max_temperature if self._max_temperature is None else self._max_temperature
        if not (math.isfinite(chosen) and chosen > 0):
            raise ConfigurationError(f"Got T_max = {chosen!r}, expected a positive finite number.")
        return max(1, math.ceil(math.log2(chosen)))


def _doubling(doublings: int, n: int) -> Levels:
    return levels_from([1.0] * (n + 1) + [2.0**power for power in range(1, doublings)])
