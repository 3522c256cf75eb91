"""Progress of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of training: walks, optimizer updates, and seconds of training.

    `skipped` counts walks that were skipped because they were not finite, `rollbacks` returns to an earlier checkpoint.

    A CUDA device continues to work after a walk has returned: `seconds` are complete only after `Trainer.settle`.
    """

    walks: int = 0
    updates: int = 0
    seconds: float = 0.0
    skipped: int = 0
    rollbacks: int = 0

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
        )
