"""How far training has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training has come: walks, optimizer updates, and seconds spent walking.

    `skipped` walks were not finite, and moved no weights from then on; `rollbacks` is how often training went back.

    A CUDA device works on after a walk has returned: the seconds lack what it has not done until `Trainer.settle`.
    """

    walks: int = 0
    updates: int = 0
    seconds: float = 0.0
    skipped: int = 0
    rollbacks: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Progress:
        """Inverse of `dataclasses.asdict`, also for records of older versions; raises as `int` and `float`."""
        return cls(
            int(record["walks"]),
            int(record["updates"]),
            float(record["seconds"]),
            int(record.get("skipped", 0)),
            int(record.get("rollbacks", 0)),
        )
