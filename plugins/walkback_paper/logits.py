"""Conditionals of discrete states: logits of a kernel, of which temperature divides a part.

heating   K(heated / T)
cooling   K(heated / T + unheated)      the same kernel if there is no unheated part
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

import torch
from torch import Tensor

from walkback.kernels import BernoulliKernel, CategoricalKernel
from walkback.operators import Conditional, Guidable
from walkback.schedules import Level

LogitKernel: TypeAlias = BernoulliKernel | CategoricalKernel


@final
class LogitConditional(Conditional, Guidable):
    """Logits of both directions.

    Args:
        kernel_at: K at a level, from logits that the temperature divides.
        heated: The part that temperature divides, `(B, *E)`.
        unheated: The part that it does not divide, `(B, *E)`, which only cooling has; None if the directions are tied.
    """

    def __init__(
        self, kernel_at: Callable[[Tensor, Level], LogitKernel], heated: Tensor, unheated: Tensor | None
    ) -> None:
        self._kernel_at = kernel_at
        self._heated = heated
        self._unheated = unheated

    def cooling(self, level: Level) -> LogitKernel:
        """Returns the kernel with the learned logits."""
        heated = self.heating(level)
        return heated if self._unheated is None else type(heated)(heated.logits + self._unheated)

    def heating(self, level: Level) -> LogitKernel:
        """Returns the same kernel if tied, otherwise one without what is learned."""
        return self._kernel_at(self._heated, level)

    def guided(self, untold: Conditional, scale: float) -> LogitConditional:
        """The logits extrapolated from `untold` to this one; see `walkback.sampling.guidance`."""
        if not isinstance(untold, LogitConditional):
            raise TypeError(f"Got {type(untold).__name__}, expected a LogitConditional.")
        heated, unheated = torch.lerp(untold._heated, self._heated, scale), None
        if self._unheated is not None and untold._unheated is not None:
            unheated = torch.lerp(untold._unheated, self._unheated, scale)
        return LogitConditional(self._kernel_at, heated, unheated)
