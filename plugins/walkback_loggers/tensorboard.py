"""Figures and pictures for TensorBoard."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image
from pydantic import PositiveInt

from walkback.errors import ConfigurationError
from walkback.loggers import Logger
from walkback.storage.files import writing_to


@final
class TensorBoard(Logger):
    """Writes scalars and images to `<run directory>/tensorboard`; `tensorboard --logdir runs` shows them.

    If a resumed run logs a step again, TensorBoard shows the new values from there on.
    """

    def __init__(self, *, flush_seconds: PositiveInt = 30) -> None:
        """Imports TensorBoard.

        Args:
            flush_seconds: Longest time for which figures stay in memory.

        Raises:
            ConfigurationError: TensorBoard is not installed.
        """
        self._flush_seconds = flush_seconds
        self._make_writer = _summary_writer()
        self._directory = Path()
        self._config: Mapping[str, Any] = {}
        self._writer: Any = None
        self._last = 0

    def open(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Stores where to write and the configuration."""
        self._directory, self._config = directory / "tensorboard", config

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Records values by name after `step` walks."""
        with writing_to(self._directory):
            writer = self._writing(step)
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Records a picture after `step` walks."""
        pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB"))
        with writing_to(self._directory):
            self._writing(step).add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes the log (idempotent)."""
        if self._writer is not None:
            with writing_to(self._directory):
                self._writer.close()

    def _writing(self, step: int) -> Any:
        """Returns the writer, opened at the first logged step: from there on a resumed run replaces old curves."""
        if step < self._last:  # training went back
            self.close()
            self._writer = None
        self._last = step
        if self._writer is None:
            self._writer = self._make_writer(self._directory, purge_step=step, flush_secs=self._flush_seconds)
            text = json.dumps(self._config, indent=2, ensure_ascii=False)
            self._writer.add_text("configuration", f"```\n{text}\n```", step)
        return self._writer


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
