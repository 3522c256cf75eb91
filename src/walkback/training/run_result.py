"""The result of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walkback.measuring.bound import BoundEstimate


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a finished run: paths, the bound on held-out data, remarks on it, walks, and seconds of training.

    `bound` is None if the process has none (`walkback.processes.without_bound`).
    `best_step` is the number of walks of the best model on validation data, if that one was kept. `peak_memory` is the
    peak memory of training in bytes: of tensors on a CUDA device, else of the process so far; None if unknown.
    """

    directory: Path
    checkpoint: Path
    pictures: tuple[Path, ...]
    bound: BoundEstimate | None
    protocol: Mapping[str, Any]
    walks: int
    seconds: float
    best_step: int | None = None
    peak_memory: int | None = None
    remarks: tuple[str, ...] = ()
