"""Levels as tensors: for rows at different levels, and for compiled operators.

`Level` accepts tensors `(B,)` in the place of its numbers; the functions below make such levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from walkback.schedules import Level, Levels
from walkback.support.memory import send


def stack_levels(levels: Levels, rows: int, device: torch.device) -> Level:
    """Stack `levels` into one level of tensors `(K·rows,)`, each level repeated for `rows` consecutive rows."""
    if any(isinstance(level.temperature, Tensor) for level in levels):

        def stacked(values: list[float | Tensor], dtype: torch.dtype) -> Tensor:
            def own(value: float | Tensor) -> Tensor:
                # A number fills a tensor on the device; as a tensor of its own it would be copied there, which waits.
                if isinstance(value, Tensor):
                    return value.to(device, dtype).expand(rows)
                return torch.full((rows,), value, device=device, dtype=dtype)

            return torch.cat([own(value) for value in values])

        return Level(
            stacked([level.step for level in levels], torch.int64),
            stacked([level.temperature for level in levels], torch.float64),
            stacked([level.colder for level in levels], torch.float64),
            stacked([level.elapsed for level in levels], torch.float64),
        )
    steps = send(torch.tensor([level.step for level in levels]), device)
    numbers = [[getattr(level, name) for level in levels] for name in ("temperature", "colder", "elapsed")]
    times = send(torch.tensor(numbers, dtype=torch.float64), device).repeat_interleave(rows, dim=1)
    return Level(steps.repeat_interleave(rows), *times)


def rows_of(table: Level, index: Tensor) -> Level:
    """Return the levels with the given indices `(B,)` of a table, made once by `stack_levels(levels, 1, device)`."""
    numbers = (table.step, table.temperature, table.colder, table.elapsed)
    return Level(*(torch.as_tensor(values)[index] for values in numbers))


def tensor_levels(levels: Levels, device: torch.device) -> Levels:
    """Return the levels as tensors `(1,)`, so that an operator compiles once and not once per temperature."""
    return tuple(stack_levels((level,), 1, device) for level in levels)
