"""A logger for TensorBoard."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from walkback.errors import ConfigurationError
from walkback.loggers import Logger
from walkback.storage.files import writing_to


@final
class TensorBoard(Logger):
    """Writes scalars to `<run directory>/tensorboard`; `tensorboard --logdir runs` shows them.

    If a resumed run logs a step again, TensorBoard shows the new values from there on.
    """

    def __init__(self, directory: Path, *, flush_seconds: int = 30) -> None:
        """Opens the log.

        Args:
            directory: The run directory.
            flush_seconds: Maximum time for which values are buffered.

        Raises:
            ConfigurationError: TensorBoard is not installed.
        """
        self._directory = directory / "tensorboard"
        self._flush_seconds = flush_seconds
        self._make_writer = _summary_writer()
        self._writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records values by name after `step` walks."""
        with writing_to(self._directory):
            if (
                self._writer is None
            ):  # opened at the first logged step, where a resumed run restarts the curves
                self._writer = self._make_writer(
                    self._directory, purge_step=step, flush_secs=self._flush_seconds
                )
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the log (idempotent)."""
        if self._writer is not None:
            with writing_to(self._directory):
                self._writer.close()


def _summary_writer() -> Any:
    """Returns torch's `SummaryWriter`; suppresses deprecation warnings that importing it raises inside TensorBoard."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            "Got the logger 'tensorboard', but TensorBoard is not installed: install walkback[tensorboard]."
        ) from error
    return SummaryWriter
