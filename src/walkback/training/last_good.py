"""The last good checkpoint, to which training can go back after it has diverged.

A checkpoint is good if the loss of the walk after it (which is the loss of its weights) is finite and at most one nat
per dimension above the smallest such loss of the run, and if the same holds for its validation bound, if there is one.
Because the next walk is needed, a checkpoint is judged when the next one is saved. The last good checkpoint is thus
older than the newest ones, which may already be ruined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

_ALLOWED = 1.0  # nats per dimension; what has diverged is worse by orders of magnitude


@final
class LastGood:
    """Follows losses and bounds; its decisions are part of a training state.

    Args:
        dimensions: Number of dimensions of a state, D.
    """

    def __init__(self, dimensions: int) -> None:
        self._allowed = _ALLOWED * dimensions
        self._good: int | None = None
        self._newest: int | None = None
        self._after: Tensor | float | None = None
        self._first: Tensor | float | None = None
        self._loss = math.inf
        self._bound = math.inf
        self._is_bounded = True

    @property
    def kept(self) -> set[int]:
        """Steps whose checkpoints must be kept: the last good one, and the newest one until it is judged."""
        return {step for step in (self._good, self._newest) if step is not None}

    def observe(self, walks: int, loss: Tensor) -> None:
        """Record the loss of walk number `walks` (from 1), a scalar, without reading it from the device."""
        if walks == 1:
            self._first = loss
        if self._newest is not None and self._after is None:
            self._after = loss

    def observe_bound(self, nats: float) -> None:
        """Record a negative validation bound, nats per example, before the checkpoint of its step is saved."""
        self._is_bounded = math.isfinite(nats) and nats <= self._bound + self._allowed
        self._bound = min(self._bound, nats) if self._is_bounded else self._bound

    def saved(self, step: int) -> None:
        """Judge the previous checkpoint, now that the one of `step` is the newest; reads losses from the device."""
        self._good = self.newest()
        if self._after is not None:
            self._loss = min(self._reference(), _finite(self._after))
        self._newest, self._after = (step if self._is_bounded else None), None
        self._is_bounded = True

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint known to be good; None if there is none."""
        if self._newest is None or self._after is None:
            return self._good
        loss = float(self._after)
        good = math.isfinite(loss) and loss <= self._reference() + self._allowed
        return self._newest if good else self._good

    def restart(self, step: int) -> None:
        """Consider the checkpoint of `step` good, without any other knowledge of it."""
        self._good = self._newest = step
        self._after = None

    def state(self) -> dict[str, Any]:
        """Return the state needed to resume, as JSON values."""
        return {
            "last_good": {
                "good": self._good,
                "newest": self._newest,
                "after": _number(self._after),
                "loss": _number(self._reference()),
                "bound": _number(self._bound),
                "is_bounded": self._is_bounded,
            }
        }

    def restore(self, document: Mapping[str, Any], step: int) -> None:
        """Resume from a document that contains the result of `state`; without it, from the checkpoint of `step`."""
        match document.get("last_good"):
            case {
                "good": int() | None as good,
                "newest": int() | None as newest,
                "after": float() | None as after,
                "loss": float() | None as loss,
                "bound": float() | None as bound,
                "is_bounded": bool() as is_bounded,
            }:
                self._good, self._newest, self._after, self._first = good, newest, after, None
                self._loss = math.inf if loss is None else loss
                self._bound = math.inf if bound is None else bound
                self._is_bounded = is_bounded
            case _:
                self.restart(step)

    def _reference(self) -> float:
        """Return the smallest loss so far, including that of the initial weights."""
        return self._loss if self._first is None else min(self._loss, _finite(self._first))


def _finite(loss: Tensor | float) -> float:
    """Return a loss as a number; infinity if it is not finite."""
    value = float(loss)
    return value if math.isfinite(value) else math.inf


def _number(value: Tensor | float | None) -> float | None:
    """Return a number for JSON; None if it is not finite or missing."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
