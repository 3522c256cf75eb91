"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_loggers() -> Iterable[Component]:
    """Loggers beside the metrics.jsonl that every run has."""
    yield Component(
        "tensorboard",
        "walkback_loggers.tensorboard:TensorBoard",
        "Scalars for TensorBoard, in the run directory (needs walkback[tensorboard])",
    )
