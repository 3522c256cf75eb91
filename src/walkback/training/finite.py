"""Checks that states, losses and gradients are finite, before every update and without synchronizing the device.

The steps of a walk record numbers in a `Trail`, in the order of their computation:

    s_0, s_1, loss_1, …, s_K, loss_K, (other processes), gradient norm

The first one that is not finite determines the message: the step, its level, and what is wrong.

On the CPU, reading a number is free, so a bad update is refused at once. On a device, reading a number waits for all
queued work, and a walk consists of hundreds of small kernels that are queued ahead. So the check stays on the device,
as in the gradient scaler of mixed precision: the flag `found_inf` makes fused AdamW skip an update. Once set, the flag
stays set, so the weights remain those before the first bad update, whatever follows. The cause is recorded next to the
flag and read by `require`, which the trainer calls before weights are used (for a checkpoint, a bound or a picture) and
at regular intervals.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.schedules import Level
from walkback.state import State, entry_sum


@final
class NotFiniteError(WalkbackError):
    """A state, a loss or a gradient is not finite; the weights are those of before the update.

    Attributes:
        walk: Number of the walk.
        updates: Number of updates before it.
    """

    def __init__(self, message: str, walk: int, updates: int) -> None:
        super().__init__(message)
        self.walk = walk
        self.updates = updates

    def adding(self, words: str) -> NotFiniteError:
        """Return the same error with a clause added to its message."""
        return NotFiniteError(f"{str(self).removesuffix('.')}; {words}.", self.walk, self.updates)


@final
class Trail:
    """Numbers recorded by the steps of one update: scalars on the device, read only if something is wrong.

    Args:
        start: s_0, `(B, *E)`.
        length: Number of steps of the walk.
    """

    def __init__(self, start: State, length: int) -> None:
        self.length = length
        self.first = 1
        """Number of the first recorded step in its walk."""
        self.levels: list[Level] = []
        self.losses: list[Tensor] = []
        self._start = entry_sum(start)
        self._numbers = [self._start]

    def following(self) -> Trail:
        """Return an empty trail for the steps after these, in the same walk."""
        trail = copy(self)
        trail.first = self.first + len(self.levels)
        trail.levels, trail.losses, trail._numbers = [], [], [self._start]
        return trail

    def add(self, level: Level, state: State, loss: Tensor) -> None:
        """Record a step: its level, its result s_t `(B, *E)`, and its mean loss."""
        self.levels.append(level)
        self.losses.append(loss.detach())
        self._numbers += [entry_sum(state), self.losses[-1]]

    @property
    def loss(self) -> Tensor:
        """Mean loss of the steps, a scalar."""
        return torch.stack(self.losses).mean()

    def flag(self) -> Tensor:
        """Return 0 if all numbers are finite, else NaN; the mean over processes is finite only if all of theirs are."""
        return self.numbers().sum() * 0

    def numbers(self) -> Tensor:
        """Return s_0, then state and loss of each step, as one number each: `(1 + 2·steps,)`, float64."""
        return torch.stack([number.double() for number in self._numbers])


@dataclass(frozen=True, slots=True)
class Moment:
    """The context of an update, known on the host without synchronizing the device.

    Attributes:
        walk: Number of its walk.
        updates: Number of updates before it.
        trail: Its steps.
    """

    walk: int
    updates: int
    trail: Trail


@final
class FiniteCheck:
    """Refuses updates whose states, losses or gradients are not finite.

    Args:
        device: Device of states, losses and gradients.
        immediate: Whether to synchronize the device at every update, and to refuse at once as on the CPU.
    """

    def __init__(self, device: torch.device, *, immediate: bool = False) -> None:
        # For the first bad update: flag (0 or 1), its number, the position in its trail, loss, norm. Float64 represents
        # all numbers of updates exactly.
        self._first: Tensor | None = None
        if device.type != "cpu" and not immediate:
            self._first = torch.zeros(5, dtype=torch.float64, device=device)
        self._moments: list[Moment] = []

    def look(self, moment: Moment, norm: Tensor, others: Tensor | None = None) -> Tensor | None:
        """Check an update before it is made.

        Args:
            moment: Context of the update.
            norm: Norm of its gradient, a scalar.
            others: A scalar that is not finite if the trail of any process is not; None for a single process.

        Returns:
            A scalar on the device, 1 if the update must be skipped and 0 otherwise; None if the check is immediate.

        Raises:
            NotFiniteError: The check is immediate and a number is not finite.
        """
        trail = moment.trail
        ends = [norm.double()] if others is None else [others.double(), norm.double()]
        numbers = torch.cat([trail.numbers(), torch.stack(ends)])
        bad = ~numbers.isfinite()
        if self._first is None:
            if bool(bad.any()):
                raise _refusal(moment, int(bad.int().argmax()), trail.loss.item(), norm.item())
            return None
        number = torch.full_like(norm, len(self._moments), dtype=torch.float64)
        self._moments.append(moment)
        found = torch.stack(
            [bad.any().double(), number, bad.int().argmax().double(), trail.loss.double(), norm.double()]
        )
        self._first = torch.where((found[0] == 1) & (self._first[0] == 0), found, self._first)
        return self._first[0].float()

    def require(self) -> None:
        """Synchronize the device, and raise the NotFiniteError that `look` would have raised on the CPU."""
        if self._first is None or not self._moments:
            return
        bad, number, position, loss, norm = self._first.tolist()
        if bad:
            raise _refusal(self._moments[round(number)], round(position), loss, norm)
        self._moments.clear()

    def forget(self) -> None:
        """Reset the check, after weights and moments were replaced by those of an earlier walk."""
        self._moments.clear()
        if self._first is not None:
            self._first = torch.zeros_like(self._first)


def _refusal(moment: Moment, position: int, loss: float, norm: float) -> NotFiniteError:
    """Return the error for an update, given the position in its trail of the first number that is not finite."""
    trail, walk, updates = moment.trail, moment.walk, moment.updates
    step, is_loss = divmod(position - 1, 2)
    figures = f"a loss of {loss:.4g} and a gradient norm of {norm:.4g}"
    where = f"at walk {walk}"
    if position == 0:
        advice = "check the data and their options"
        return NotFiniteError(
            f"Got starting states that are not finite {where}, expected finite numbers: {advice}.",
            walk,
            updates,
        )
    if step < len(trail.levels):
        what = figures if is_loss else "a state that is not finite"
        where += f", {_named(trail, step)}"
    else:  # the gradient norm belongs to a step only if there is one update per step
        what = figures
        if len(trail.levels) == 1:
            where += f", {_named(trail, 0)}"
    return NotFiniteError(f"Got {what} {where}, expected finite numbers: {_advice(updates)}.", walk, updates)


def _named(trail: Trail, index: int) -> str:
    """Describe a step by its number, level and temperature."""
    level = trail.levels[index]
    text = f"step {trail.first + index} of {trail.length}"
    if isinstance(level.temperature, Tensor) and level.temperature.numel() != 1:
        return f"{text} (levels that differ by row)"
    return f"{text} (level {int(level.step)}, temperature {float(level.temperature):.4g})"


def _advice(updates: int) -> str:
    if not updates:
        return (
            "no update has been made yet, so check the data, the operator (operator.sigma) and the temperatures "
            "(schedule.max_temperature)"
        )
    return (
        "lower the learning rate (training.lr), or let training skip such batches or go back "
        "(training.on_nonfinite = 'skip' or 'rollback')"
    )
