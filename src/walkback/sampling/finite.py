"""Checks that the states of a chain are finite, before they are shown or written.

The sum of each state is recorded as a scalar on the device. The sums are read together when states leave the device
anyway, so that no step synchronizes the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.schedules import Level
from walkback.state import State, entry_sum

_MOST_SUMS = 1000
"""Maximum number of recorded sums: a diverged chain ends after at most this many further steps."""


@final
class NotFiniteStatesError(WalkbackError):
    """States of a chain are not finite."""


@final
class FiniteStates:
    """Follows the states of chains, and names the first step that led to a state that is not finite.

    Args:
        cooling: The levels of the first steps, in order; the steps after them are at T = 1.
        total: Number of steps.
    """

    def __init__(self, cooling: Sequence[Level], total: int) -> None:
        self._cooling = tuple(cooling)
        self._total = total
        self._sums: Tensor | None = None
        self._filled = 0
        self._seen = 0

    def add(self, *states: State) -> None:
        """Record the next state, in parts `(B, *E)`, beginning with the initial state.

        Raises:
            NotFiniteStatesError: A recorded state is not finite; checked whenever `_MOST_SUMS` are recorded.
        """
        sums = [entry_sum(state) for state in states]
        if self._sums is None:
            self._sums = sums[0].new_empty(_MOST_SUMS)
        self._sums[self._filled] = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        self._filled += 1
        if self._filled == _MOST_SUMS:
            self.require()

    def require(self) -> None:
        """Read the sums, which synchronizes the device.

        Raises:
            NotFiniteStatesError: A state is not finite.
        """
        if self._sums is None:
            return
        bad = ~self._sums[: self._filled].isfinite()
        if bool(bad.any()):
            raise _refusal(self._where(self._seen + int(bad.int().argmax())))
        self._seen += self._filled
        self._filled = 0

    def _where(self, step: int) -> str:
        if step == 0:
            return "before the first step"
        in_cooling = step <= len(self._cooling)
        temperature = float(self._cooling[step - 1].temperature) if in_cooling else 1.0
        return f"after step {step} of {self._total} (temperature {temperature:.4g})"


def require_finite(shown: Tensor, what: str) -> Tensor:
    """Return `shown` `(N, *E)`, to be shown or written, after checking it.

    Raises:
        NotFiniteStatesError: A value is not finite.
    """
    if not bool(shown.isfinite().all()):
        raise _refusal(f"in {what}")
    return shown


def _refusal(where: str) -> NotFiniteStatesError:
    return NotFiniteStatesError(
        f"Got states that are not finite {where}, expected finite numbers: no file is written; the model has probably "
        "diverged, so use an older checkpoint."
    )
