"""Components of this plugin: lightweight records; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_loggers() -> Iterable[Component]:
    """Loggers in addition to the metrics.jsonl of every run."""
    yield Component(
        "tensorboard",
        "walkback_loggers.tensorboard:TensorBoard",
        "Scalars for TensorBoard, in the run directory (needs walkback[tensorboard])",
    )
