"""What a finished run leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walkback.measuring.bound import BoundEstimate


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run leaves: paths, the bound on held-out data, remarks on it, walks, and seconds spent training.

    `best_step` is the walk after which the model was the best on validation data, where the run kept that one.
    `peak_memory` are the most bytes that training held: of tensors on a CUDA device, else of the process so far; None
    where the system does not tell.
    """

    directory: Path
    checkpoint: Path
    pictures: tuple[Path, ...]
    bound: BoundEstimate
    protocol: Mapping[str, Any]
    walks: int
    seconds: float
    best_step: int | None = None
    peak_memory: int | None = None
    remarks: tuple[str, ...] = ()
