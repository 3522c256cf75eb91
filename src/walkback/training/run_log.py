"""What a run says while it goes on: figures into `metrics.jsonl` and to loggers, columns of metrics, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import final

from walkback.errors import PluginError
from walkback.metrics import Moment
from walkback.training.metrics_file import FILE_NAME, MetricsFile
from walkback.training.preparation import Prepared


@final
class RunLog:
    """Opens the metrics file and the loggers of a run.

    Args:
        prepared: The run.
        directory: Its directory, with its `config.toml`.
        walks: How many walks it has taken already; later lines of the metrics file are dropped.

    Raises:
        WalkbackError: A file cannot be written, or a logger cannot begin.
    """

    def __init__(self, prepared: Prepared, directory: Path, walks: int) -> None:
        self._prepared = prepared
        self.latest: dict[str, float] = {}
        """Figures by name as they were logged last."""
        with ExitStack() as stack:
            resumed = walks if (directory / FILE_NAME).exists() else None
            self._file = MetricsFile(directory, resume_step=resumed)
            stack.callback(self._file.close)
            config = prepared.config.to_dict()
            for logger in prepared.loggers:
                logger.open(directory, config)
                stack.callback(logger.close)
            self._closing = stack.pop_all()

    def moment(self, moment: Moment) -> None:
        """Log training at a moment, and what metrics make of it.

        Raises:
            PluginError: Two figures have one name.
        """
        figures = {
            "loss": moment.loss,
            "seconds": moment.seconds,
            "gradient_norm": moment.gradient_norm,
            "learning_rate": moment.learning_rate,
        }
        names = (part.name for part in self._prepared.config.metrics)
        for name, metric in zip(names, self._prepared.metrics, strict=True):
            further = dict(metric.measure(moment))
            taken = sorted(figures.keys() & further.keys())
            if taken:
                raise PluginError(
                    f"Got the figure {taken[0]!r} of the metric '{name}' a second time: "
                    "leave out one of the metrics that give it, or give it another name."
                )
            figures |= further
        self.figures(moment.walks, figures)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures by name after `step` walks."""
        self.latest.update(figures)
        self._file.log(step, figures)
        for logger in self._prepared.loggers:
            logger.log(step, figures)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Log a picture of the run directory."""
        for logger in self._prepared.loggers:
            logger.log_picture(step, name, path.read_bytes())

    def close(self) -> None:
        """Close the metrics file and all loggers (idempotent)."""
        self._closing.close()
