"""Where a run's figures and pictures go beside its directory: any logger that a plugin offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger(ABC):
    """Takes figures and pictures while a run goes on; `metrics.jsonl` is written in any case.

    Built as `cls(**options)` before anything is trained; the keyword-only arguments of `__init__` are its
    configuration. What it cannot work without (a library, a key) it asks for then, by a ConfigurationError, and the run
    directory stays free. The one process that writes files opens it once. A resumed run opens a new one, and may log
    steps a second time.

    What a logger raises ends the run, as a full disk does: a WalkbackError in its own words, anything else as a fault.
    """

    @abstractmethod
    def open(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Begin.

        Args:
            directory: The run directory; its `config.toml` is written.
            config: The resolved configuration, tables by section, plain JSON types.
        """

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Record figures by name after `step` walks; they may be nan or infinite."""

    @abstractmethod
    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Record a picture, the content of a PNG file, after `step` walks; a name may come again at later steps."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is left (idempotent)."""
