"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_loggers() -> Iterable[Component]:
    """Loggers beside the metrics.jsonl that every run has."""
    yield Component(
        "csv", "walkback_loggers.table:Table", "Figures as a table, metrics.csv in the run directory"
    )
    yield Component(
        "tensorboard",
        "walkback_loggers.tensorboard:TensorBoard",
        "Figures and pictures for TensorBoard, in the run directory (needs walkback[tensorboard])",
    )
    yield Component(
        "wandb",
        "walkback_loggers.wandb:WeightsAndBiases",
        "Figures and pictures for Weights & Biases, online or offline (needs walkback[wandb])",
    )
