"""Progress of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from walkback.measuring.calls import Calls


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of training: walks, optimizer updates, and seconds of training.

    `skipped` counts walks that were skipped because they were not finite, `rollbacks` returns to an earlier checkpoint.

    `calls` are network calls (`measuring.calls`), `gradient_calls` those with a gradient; None if they were not counted
    (compiled operators, older versions).

    A CUDA device continues to work after a walk has returned: `seconds` are complete only after `Trainer.settle`.
    """

    walks: int = 0
    updates: int = 0
    seconds: float = 0.0
    skipped: int = 0
    rollbacks: int = 0
    calls: int | None = 0
    gradient_calls: int | None = 0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Progress:
        """Invert `dataclasses.asdict`, also for records of older versions.

        Raises:
            LookupError: An entry is missing.
            TypeError: An entry is not a number.
            ValueError: An entry is not a number.
        """
        return cls(
            int(record["walks"]),
            int(record["updates"]),
            float(record["seconds"]),
            int(record.get("skipped", 0)),
            int(record.get("rollbacks", 0)),
            *(_count(record.get(name)) for name in ("calls", "gradient_calls")),
        )

    def called(self, calls: Calls | None, processes: int) -> Progress:
        """Return the progress after more network calls in each of `processes`; None if they were not counted."""
        if calls is None or self.calls is None or self.gradient_calls is None:
            return replace(self, calls=None, gradient_calls=None)
        return replace(
            self,
            calls=self.calls + processes * calls.rows,
            gradient_calls=self.gradient_calls + processes * calls.with_gradient,
        )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
