"""What a run logs: figures of training, columns of metrics, bounds on validation data.

    every `log_every` walks   loss, gradient norm, learning rate, seconds, and what each metric returns
    at a validation           the bound, with its error

All of it goes to `metrics.jsonl` and to every other logger of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from torch import Tensor

from walkback.errors import PluginError
from walkback.loggers import Logger
from walkback.metrics import Metric, Moment
from walkback.training.trainer import Trainer


@final
class RunLog:
    """The loggers of a run, in the one process that writes files.

    Args:
        metrics: Asked for further columns whenever training is logged.

    Attributes:
        latest: The newest value of every figure, for a progress bar.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.latest: dict[str, float] = {}
        self._metrics = tuple(metrics)
        self._loggers: list[Logger] = []

    def open(self, *loggers: Logger) -> None:
        """Log to these, too."""
        self._loggers.extend(loggers)

    def training(self, trainer: Trainer, loss: Tensor) -> None:
        """Log training after its last walk.

        Raises:
            PluginError: A metric returns a figure whose name is taken.
        """
        moment = Moment(
            walks=trainer.progress.walks,
            loss=loss.item(),
            gradient_norm=trainer.gradient_norm.item(),
            learning_rate=trainer.learning_rate,
            seconds=trainer.progress.seconds,
            model=trainer.model,
            averaged=trainer.averaged_model,
        )
        names = ("loss", "gradient_norm", "learning_rate", "seconds")
        figures: dict[str, float] = {name: getattr(moment, name) for name in names}
        for metric in self._metrics:
            found = metric.measure(moment)
            taken = sorted(figures.keys() & found.keys())
            if taken:
                raise PluginError(
                    f"The metric {type(metric).__name__} returned a figure called {taken[0]!r}, a name that is taken: "
                    "rename it."
                )
            figures |= {name: float(value) for name, value in found.items()}
        self.log(moment.walks, figures)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures after `step` walks."""
        self.latest.update(figures)
        for logger in self._loggers:
            logger.log(step, figures)

    def close(self) -> None:
        """Close all loggers."""
        for logger in self._loggers:
            logger.close()
