"""Figures, pictures and configuration for Weights & Biases, online or offline."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, final

from PIL import Image

from walkback.errors import ConfigurationError, WalkbackError
from walkback.loggers import Logger

_WALKS = "walks"


@final
class WeightsAndBiases(Logger):
    """Logs to a project of Weights & Biases; its local files are in `<run directory>/wandb`.

    A resumed run continues its run there. Upload offline runs with `wandb sync`.

    Args:
        project: Name of the project.
        run_name: Name of the run; None takes that of the run directory.
        entity: User or team; None uses the default of the account.
        group: Group of runs that are shown together.
        tags: Tags of the run.
        mode: "online", "offline" or "disabled"; None uses `WANDB_MODE` or the default of the account.
    """

    def __init__(
        self,
        *,
        project: str = "walkback",
        run_name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        self._wandb = _library()
        self._name = run_name
        self._settings = {
            "project": project,
            "entity": entity,
            "group": group,
            "tags": list(tags),
            "mode": mode,
        }
        self._run: Any = None

    def open(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Start a run, or continue that of the directory.

        Raises:
            WalkbackError: The run cannot be started: there is no account, or the service cannot be reached.
        """
        identity = _identity(directory)
        try:
            self._run = self._wandb.init(
                **self._settings,
                name=self._name or directory.name,
                dir=str(directory),
                config=dict(config),
                id=identity,
                resume=None if identity is None else "allow",
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        except (self._wandb.Error, OSError) as error:
            raise WalkbackError(
                f"The logger 'wandb' cannot start: {' '.join(str(error).split())}; "
                "without an account or a network, use --set loggers.wandb.mode=offline."
            ) from error
        # Use walks as the axis: wandb's own step must increase, but validation logs at steps that were already logged.
        self._run.define_metric(_WALKS)
        self._run.define_metric("*", step_metric=_WALKS)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Record figures by name after `step` walks."""
        self._run.log({**figures, _WALKS: step})

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Record a picture after `step` walks."""
        self._run.log({name: self._wandb.Image(Image.open(BytesIO(png))), _WALKS: step})

    def close(self) -> None:
        """Flush and finish the run (idempotent)."""
        if self._run is not None:
            self._run.finish()


def _identity(directory: Path) -> str | None:
    """Return the id of the last run logged from this directory (`wandb/[offline-]run-<time>-<id>`), or None."""
    runs = (directory / "wandb").glob("*run-*-*")
    newest = max(runs, key=lambda path: path.name.partition("run-")[2], default=None)
    return None if newest is None else newest.name.rpartition("-")[2]


def _library() -> Any:
    """Import and return `wandb`, suppressing its own warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import wandb
    except ImportError as error:
        raise ConfigurationError(
            "Got the logger 'wandb', but wandb is not installed: install walkback[wandb]."
        ) from error
    return wandb
