"""Handling of walks with numbers that are not finite: they end training, or are skipped and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from walkback.configuration.settings import TrainingSettings
from walkback.training.finite import FiniteCheck, Moment, NotFiniteError


@final
class Guard:
    """Keeps numbers that are not finite out of weights and layers.

    Args:
        settings: `on_nonfinite` and `nonfinite_limit`.
        device: Device of the walks.
        modules: The modules in training.

    Attributes:
        flag: After `skips`, a scalar on the device: 1 if the optimizer must skip the update, else 0; None if the check
            is immediate.
        skipped: Whether the current walk, or the last one, is skipped.
    """

    def __init__(
        self, settings: TrainingSettings, device: torch.device, modules: Sequence[nn.Module]
    ) -> None:
        self.flag: Tensor | None = None
        self.skipped = False
        self._skips = settings.on_nonfinite == "skip"
        self._limit = settings.nonfinite_limit
        self._modules = modules
        self._check = FiniteCheck(device, immediate=self._skips)

    @contextmanager
    def walk(self) -> Iterator[None]:
        """Take a walk in the block; if it is skipped, restore buffers of layers, such as running statistics."""
        self.skipped = False
        if not self._skips:
            yield
            return
        buffers = [buffer for module in self._modules for buffer in module.buffers()]
        before = [buffer.clone() for buffer in buffers]
        yield
        if self.skipped:
            with torch.no_grad():
                for buffer, value in zip(buffers, before, strict=True):
                    buffer.copy_(value)

    def skips(self, moment: Moment, norm: Tensor, others: Tensor | None, before: int) -> bool:
        """Check an update, see `FiniteCheck.look`; returns whether the check is immediate and the update is skipped.

        Args:
            moment: Context of the update.
            norm: Norm of its gradient.
            others: See `FiniteCheck.look`.
            before: Number of walks skipped before this one.

        Raises:
            NotFiniteError: See `FiniteCheck.look`, if such walks are not skipped or too many already were.
        """
        try:
            self.flag = self._check.look(moment, norm, others)
        except NotFiniteError as error:
            if not self._skips:
                raise
            if before >= self._limit:
                raise error.adding(
                    f"{before} minibatches have been skipped before it (training.nonfinite_limit)"
                ) from None
            self.skipped = True
            return True
        return False

    def require(self) -> None:
        """See `FiniteCheck.require`."""
        self._check.require()

    def forget(self) -> None:
        """See `FiniteCheck.forget`."""
        self._check.forget()
