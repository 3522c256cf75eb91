"""States, losses and gradients must be finite: checked before every update, without waiting for the device.

Steps of a walk leave their numbers in a `Trail`, in the order in which they come about:

    s_0, s_1, loss_1, …, s_K, loss_K, (other processes), gradient norm

The first of them that is not finite names the step, its level and what is wrong. On the CPU looking at a number is
free, so an update is refused at once. On a device looking means to wait until it has done all that it was told, at
every update; and a walk is hundreds of small kernels that are told ahead. So there the check stays on the device, as
the gradient scaler of mixed precision does it: the flag `found_inf` makes fused AdamW leave weights and moments as they
are. Once set it stays set, so that the weights remain those of before the first bad update, whatever comes after. What
was wrong is kept beside it, and `require` reads it: the trainer does before weights leave it for a checkpoint, a bound
or a picture, and every so many walks.
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
        updates: Number of updates that were made before it.
    """

    def __init__(self, message: str, walk: int, updates: int) -> None:
        super().__init__(message)
        self.walk = walk
        self.updates = updates

    def adding(self, words: str) -> NotFiniteError:
        """The same with more in its sentence."""
        return NotFiniteError(f"{str(self).removesuffix('.')}; {words}.", self.walk, self.updates)


@final
class Trail:
    """What the steps behind one update came to: scalars on the device, read only if something is wrong.

    Args:
        start: s_0, `(B, *E)`.
        length: Number of steps of the walk.
    """

    def __init__(self, start: State, length: int) -> None:
        self.length = length
        self.first = 1
        """Number of the first of these steps in its walk."""
        self.levels: list[Level] = []
        self.losses: list[Tensor] = []
        self._start = entry_sum(start)
        self._numbers = [self._start]

    def following(self) -> Trail:
        """The trail of the steps after these, in the same walk."""
        trail = copy(self)
        trail.first = self.first + len(self.levels)
        trail.levels, trail.losses, trail._numbers = [], [], [self._start]
        return trail

    def add(self, level: Level, state: State, loss: Tensor) -> None:
        """Note a step: its level, the state s_t `(B, *E)` that it led to, and its mean loss."""
        self.levels.append(level)
        self.losses.append(loss.detach())
        self._numbers += [entry_sum(state), self.losses[-1]]

    @property
    def loss(self) -> Tensor:
        """Mean loss of the steps, a scalar."""
        return torch.stack(self.losses).mean()

    def flag(self) -> Tensor:
        """0 if all of them are finite, else NaN: a scalar whose mean over processes tells whether theirs are."""
        return self.numbers().sum() * 0

    def numbers(self) -> Tensor:
        """s_0, then state and loss of each step: `(1 + 2·steps,)`, float64."""
        return torch.stack([number.double() for number in self._numbers])


@dataclass(frozen=True, slots=True)
class Moment:
    """When an update is made: what the host knows without asking the device.

    Attributes:
        walk: Number of its walk.
        updates: Number of updates before it.
        trail: The steps behind it.
    """

    walk: int
    updates: int
    trail: Trail


@final
class FiniteCheck:
    """Refuses updates by what is not finite.

    Args:
        device: Of states, losses and gradients.
        immediate: Whether to wait for a device at every update, and to refuse as on the CPU.
    """

    def __init__(self, device: torch.device, *, immediate: bool = False) -> None:
        # bad (0 or 1), number of the update, position in the trail, loss, norm of the first bad update; in float64,
        # which has all numbers of updates.
        self._first: Tensor | None = None
        if device.type != "cpu" and not immediate:
            self._first = torch.zeros(5, dtype=torch.float64, device=device)
        self._moments: list[Moment] = []

    def look(self, moment: Moment, norm: Tensor, others: Tensor | None = None) -> Tensor | None:
        """Look at an update before it is made.

        Args:
            moment: When it is, and the steps behind it.
            norm: Norm of its gradient, a scalar.
            others: Not finite where the trail of any process is not; None for a process alone.

        Returns:
            1 on the device where this update is to be skipped, else 0; None where the answer is known at once.

        Raises:
            NotFiniteError: A number is not finite; where the answer is known at once.
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
        """Wait for the device, and raise what `look` would have raised on the CPU."""
        if self._first is None or not self._moments:
            return
        bad, number, position, loss, norm = self._first.tolist()
        if bad:
            raise _refusal(self._moments[round(number)], round(position), loss, norm)
        self._moments.clear()

    def forget(self) -> None:
        """Begin again, after weights and moments have been replaced by those of an earlier walk."""
        self._moments.clear()
        if self._first is not None:
            self._first = torch.zeros_like(self._first)


def _refusal(moment: Moment, position: int, loss: float, norm: float) -> NotFiniteError:
    """What is wrong, from the position of the first number that is not finite."""
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
    else:  # the sum over the steps has no step, but an update after every step does
        what = figures
        if len(trail.levels) == 1:
            where += f", {_named(trail, 0)}"
    return NotFiniteError(f"Got {what} {where}, expected finite numbers: {_advice(updates)}.", walk, updates)


def _named(trail: Trail, index: int) -> str:
    """A step in words: its number, its level and its temperature."""
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
