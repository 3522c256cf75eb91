"""Figures for TensorBoard."""

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

    Where a resumed run logs a step again, TensorBoard shows the new figures from there on.
    """

    def __init__(self, directory: Path, *, flush_seconds: int = 30) -> None:
        """Open the log.

        Args:
            directory: The run directory.
            flush_seconds: Longest time for which figures stay in memory.

        Raises:
            ConfigurationError: TensorBoard is not installed.
        """
        self._directory = directory / "tensorboard"
        self._flush_seconds = flush_seconds
        self._make_writer = _summary_writer()
        self._writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record figures by name after `step` walks."""
        with writing_to(self._directory):
            if self._writer is None:  # the first step logged is where a resumed run begins anew
                self._writer = self._make_writer(
                    self._directory, purge_step=step, flush_secs=self._flush_seconds
                )
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is left (idempotent)."""
        if self._writer is not None:
            with writing_to(self._directory):
                self._writer.close()


def _summary_writer() -> Any:
    """`SummaryWriter` of torch; importing it warns of deprecations that are TensorBoard's affair."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            "Got the logger 'tensorboard', but TensorBoard is not installed: install walkback[tensorboard]."
        ) from error
    return SummaryWriter
