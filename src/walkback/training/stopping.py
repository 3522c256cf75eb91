"""Early stopping: the best model on validation data so far, and when to stop training.

best ← (step, nats) if nats < best nats;   stop after `patience` consecutive validations without improvement
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from walkback.errors import ConfigurationError


@final
class EarlyStopping:
    """Follows the validation bound; with patience 0, tracks no best model and never stops.

    Args:
        patience: Number of validations without improvement before stopping.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._nats = 0.0
        self._stale = 0
        self.best_step: int | None = None

    @property
    def exhausted(self) -> bool:
        """Whether training should stop."""
        return 0 < self._patience <= self._stale

    def observe(self, step: int, nats: float) -> bool:
        """Record the negative bound after `step` walks, nats per example; returns whether it is the best so far."""
        if not self._patience:
            return False
        if self.best_step is not None and nats >= self._nats:
            self._stale += 1
            return False
        self.best_step, self._nats, self._stale = step, nats, 0
        return True

    def forget_best(self) -> None:
        """Treat the next validation as the best: the best model so far is lost."""
        self.best_step = None

    def state(self) -> dict[str, Any]:
        """Return the state needed to resume, as JSON values; empty if there is no best model."""
        if self.best_step is None:
            return {}
        return {"early_stopping": {"step": self.best_step, "nats": self._nats, "stale": self._stale}}

    def restore(self, document: Mapping[str, Any]) -> None:
        """Resume from a document that contains the result of `state`; without it, start from the beginning.

        Raises:
            ConfigurationError: The entry was not written by `state`.
        """
        if not self._patience:
            return
        match document.get("early_stopping"):
            case None:
                self.best_step, self._nats, self._stale = None, 0.0, 0
            case {"step": int(step), "nats": float(nats), "stale": int(stale)}:
                self.best_step, self._nats, self._stale = step, nats, stale
            case other:
                raise ConfigurationError(
                    f"The training state has an invalid early_stopping = {other!r:.80}: resume from another checkpoint."
                )
