"""The log of a run: figures of training, columns of metrics, bounds on validation data, pictures.

    every `log_every` walks   loss, gradient norm, learning rate, seconds, and the figures of each metric
    at a validation           the bound, with its error

Figures are written to `metrics.jsonl` and to every logger of the run; loggers also receive pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

from torch import Tensor

from walkback.errors import PluginError
from walkback.loggers import Logger
from walkback.metrics import Metric, Moment
from walkback.training.metrics_file import FILE_NAME, MetricsFile
from walkback.training.trainer import Trainer


@final
class RunLog:
    """The open metrics file and loggers of a run, in the process that writes files.

    Args:
        metrics: Metrics to measure whenever training is logged.
        loggers: Loggers, not yet opened.
        directory: The run directory, with its `config.toml`.
        config: The resolved configuration, in plain JSON types.
        walks: Number of walks taken so far; later lines of the metrics file are dropped.

    Raises:
        WalkbackError: A file cannot be written, or a logger cannot be opened.

    Attributes:
        latest: The newest value of every figure, for a progress bar.
        damaged: Number of unreadable lines of the metrics file that were dropped.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        loggers: Sequence[Logger],
        directory: Path,
        config: Mapping[str, Any],
        walks: int,
    ) -> None:
        self.latest: dict[str, float] = {}
        self._metrics = tuple(metrics)
        self._loggers = tuple(loggers)
        with ExitStack() as stack:
            resumed = walks if (directory / FILE_NAME).exists() else None
            self._file = MetricsFile(directory, resume_step=resumed)
            self.damaged = self._file.damaged
            stack.callback(self._file.close)
            for logger in loggers:
                logger.open(directory, config)
                stack.callback(logger.close)
            self._closing = stack.pop_all()

    def training(self, trainer: Trainer, loss: Tensor) -> None:
        """Log training after its last walk.

        Raises:
            PluginError: A metric does not return numbers by name, or a name is already taken.
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
            _require_figures(metric, found)
            taken = sorted(figures.keys() & found.keys())
            if taken:
                raise PluginError(
                    f"The metric {type(metric).__name__} returned a figure called {taken[0]!r}, a name that is taken: "
                    "rename it."
                )
            figures |= {name: float(value) for name, value in found.items()}
        more = ("calls", "gradient_calls", "skipped", "rollbacks")
        counts = {name: getattr(trainer.progress, name) for name in more}
        self.log(moment.walks, figures | {name: count for name, count in counts.items() if count})

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures after `step` walks."""
        self.latest.update(figures)
        self._file.log(step, figures)
        for logger in self._loggers:
            logger.log(step, figures)

    def rewind(self, step: int) -> None:
        """Drop the lines of the metrics file after `step` walks; loggers will receive later steps a second time."""
        self._file.rewind(step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Log a picture of the run directory."""
        for logger in self._loggers:
            logger.log_picture(step, name, path.read_bytes())

    def close(self) -> None:
        """Close the file and all loggers (idempotent)."""
        self._closing.close()


def _require_figures(metric: Metric, found: object) -> None:
    numbers = isinstance(found, Mapping) and all(
        isinstance(name, str) and isinstance(value, int | float) for name, value in found.items()
    )
    if not numbers:
        raise PluginError(
            f"Got {found!r:.80} from the metric {type(metric).__name__}, expected numbers by name."
        ).suspecting(metric)
