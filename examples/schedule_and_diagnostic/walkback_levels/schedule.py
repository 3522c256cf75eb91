"""A given number of levels, even in a power of the standard deviation of the noise.

    T_t = ( 1 + (t - 1) / (K - 1) · (T_max^(1/(2ρ)) - 1) )^(2ρ),   t = 1 … K

The noise of step t has the variance T_t σ², so T^(1/(2ρ)) is the ρ-th root of its standard deviation in units of σ:
the spacing of Karras et al. (2022, eq. 5), who take ρ = 7. As ρ → ∞ neighbouring temperatures have one ratio, as those
of `geometric` do; ρ = ½ is even in T, and ρ = 1 in the standard deviation.
"""

from __future__ import annotations

from typing import Annotated, final

import torch
from pydantic import Field

from walkback.errors import ConfigurationError
from walkback.schedules import Levels, Schedule, levels_from


@final
class PowerLaw(Schedule):
    """See the module's equation: T_1 = 1 and T_K = T_max.

    Args:
        num_levels: K.
        rho: ρ; larger values put more levels near T = 1.
    """

    def __init__(
        self,
        *,
        num_levels: Annotated[int, Field(ge=2, le=10_000)] = 16,
        rho: Annotated[float, Field(gt=0.0, le=100.0)] = 7.0,
    ) -> None:
        self._num_levels = num_levels
        self._power = 2 * rho

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """The same levels always: nothing is left to chance."""
        return self.levels_of_length(max_temperature, self._num_levels)

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """The same curve with `num_steps` levels on it; raises ConfigurationError for fewer than 2."""
        if num_steps < 2:
            raise ConfigurationError(
                f"Got {num_steps} step, expected at least 2: one at T = 1, one at T_max."
            )
        rise = max_temperature ** (1 / self._power) - 1
        shares = [step / (num_steps - 1) for step in range(num_steps)]
        return levels_from([(1 + share * rise) ** self._power for share in shares])
