"""A schedule whose levels are learned with the operator, for the bound (`walkback.training.learned_levels`).

    T_t = T_t⁰ exp(r θ_t)      τ_t = Σ_{i≤t} T_i, so the log-SNR falls from level to level, whatever θ is

    τ_t⁰ = (`last` · T_max)^((t - 1) / (K - 1)),   T_t⁰ = τ_t⁰ - τ_{t-1}⁰      θ = 0: equal steps of log τ, from 1

With `ends` = "fixed", T_1 = 1, and T_2 … T_K are scaled so that τ_K stays τ_K⁰. The optimizer moves every θ by about
`training.lr`, so r makes levels learn r times as fast as weights.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from walkback.schedules import MOST_LEVELS, Learned, Level, Levels, Schedule, levels_from

Ends: TypeAlias = Literal["learned", "fixed"]
_Steps: TypeAlias = Annotated[int, Field(ge=2, le=MOST_LEVELS)]


@final
class LearnedSchedule(nn.Module, Schedule, Learned):
    """Learned levels; the equations are in the module's docstring.

    Times rise from level to level, but temperatures, which are their differences, need not.

    Args:
        num_steps: K.
        last: Time τ_K at the start of training, as a multiple of T_max.
        ends: Whether the first and the last time are learned too.
        rate: r, learning rate of the levels as a multiple of `training.lr`.
    """

    def __init__(
        self,
        *,
        num_steps: _Steps = 20,
        last: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] = 4.0,
        ends: Ends = "learned",
        rate: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 10.0,
    ) -> None:
        super().__init__()
        self._last = last
        self._ends: Ends = ends
        self._rate = rate
        self.offsets = nn.Parameter(torch.zeros(num_steps))

    def temperatures(self, max_temperature: float) -> Tensor:
        """T_1 … T_K, `(K,)`, float64."""
        moved = self._rate * self.offsets.double()
        powers = torch.linspace(0, 1, len(moved), dtype=torch.float64, device=moved.device)
        times = (powers * math.log(self._last * max_temperature)).exp()
        start = torch.cat([times[:1], times.diff()])
        if self._ends == "learned":
            return start * moved.exp()
        shares = (start[1:].log() + moved[1:]).softmax(0)
        return torch.cat([start[:1], shares * (times[-1] - times[0])])

    @torch.no_grad()
    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """The levels learned so far: nothing is left to chance. In training they stay on the device."""
        found = self.temperatures(max_temperature)
        if generator is None or found.device.type == "cpu":
            return levels_from(found.tolist())
        # Reading numbers of levels that change with every update would wait for the device in every walk.
        colder, elapsed = (torch.cat([found.new_zeros(1), part[:-1]]) for part in (found, found.cumsum(0)))
        parts = torch.stack([found, colder, elapsed], 1).unbind()
        return tuple(Level(step, *of_level[:, None]) for step, of_level in enumerate(parts, start=1))

    @torch.no_grad()
    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Levels between the same ends, interpolated linearly in log τ; of one step, that of the last time."""
        times = self.temperatures(max_temperature).cumsum(0).log().cpu().numpy()
        last = len(times) - 1
        places = [last] if num_steps == 1 else np.linspace(0, last, num_steps)
        found = np.exp(np.interp(places, np.arange(len(times)), times))
        return levels_from(np.diff(found, prepend=0.0).tolist())
