"""How the rows of a batch are spread over the levels of a path whose transitions need not be consecutive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from walkback.levels import rows_of, stack_levels
from walkback.schedules import Level, Levels
from walkback.state import State, batch_size, device_of


@dataclass(frozen=True, slots=True)
class Visits:
    """Which levels the rows of a path visit.

    Each row begins at a random level below K and goes on in their order; the rows of a transition are spread evenly
    over the levels. In the end all rows are at level K.

    Attributes:
        number: Number of transitions, at most K; with fewer, the levels of a row are as far apart as they can be.
        stay: Number of transitions for which a row is at a level.
    """

    number: int
    stay: int = 1

    def levels(self, levels: Levels, start: State, generator: torch.Generator) -> Iterator[Level]:
        """Yield the levels of the rows of each transition, the last of which is `levels[-1]` itself.

        Args:
            levels: T_1 … T_K.
            start: States `(B, *E)` of the rows.
            generator: Chooses where rows begin.
        """
        below, rows, device = levels[:-1], batch_size(start), device_of(start)
        if below:
            table = stack_levels(below, 1, device)
            places = torch.randperm(rows, generator=generator, device=device)
            shift = torch.rand((), generator=generator, device=device, dtype=torch.float64)
            first = ((places + shift) * len(below) / rows).long()
        count = self.number - 1
        for number in range(count):
            yield rows_of(table, (first + number // self.stay * len(below) // count) % len(below))
        yield levels[-1]
