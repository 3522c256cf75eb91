"""Priors of independent symbols, p*(s) = Π_l φ_l(s_l).

categorical       φ the frequencies of the data, then tracked ones of s_K (Algorithm 1)
uniform-symbols   φ = 1 / S
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from walkback.kernels import CategoricalKernel
from walkback.state import State, StateSpace, leaves
from walkback.support.constraints import Constrained, Constraint, unit_interval
from walkback_paper.categorical import symbols_of
from walkback_paper.priors import KernelPrior, Momentum, Tracker

_MIN_PROBABILITY = 1e-4
"""Probability of a symbol that never came: no state is impossible."""


@final
class CategoricalPrior(KernelPrior, Constrained):
    """Independent symbols with tracked frequencies.

    Args:
        space: One one-hot tensor.
        track: Track the frequencies of s_K; False keeps the data's.
        momentum: Smallest weight of a new batch in the running frequencies.
    """

    frequency: Tensor

    def __init__(self, space: StateSpace, *, track: bool = True, momentum: Momentum = 0.01) -> None:
        super().__init__(space)
        shape = symbols_of(space, "the prior 'categorical'").shape
        self._track = track
        self.tracker = Tracker(momentum)
        self.register_buffer("frequency", torch.full(shape, 1 / shape[-1]))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Frequencies are between 0 and 1."""
        return {"frequency": unit_interval}

    def kernel(self, num: int) -> CategoricalKernel:
        """Returns the law, for `num` rows."""
        logits = self.frequency.clamp(min=_MIN_PROBABILITY).log()
        return CategoricalKernel(logits.expand(num, *logits.shape))

    @torch.no_grad()
    def fit(self, state: State) -> None:
        """Sets the frequencies to those of `state` `(N, *E)`."""
        self.frequency.copy_(leaves(state)[0].mean(0))
        self.tracker.count.zero_()

    @torch.no_grad()
    def observe(self, state: State) -> None:
        """Averages in the frequencies of s_K `(B, *E)`."""
        if self._track:
            self.frequency.lerp_(leaves(state)[0].mean(0), self.tracker.weight().to(self.frequency.dtype))


@final
class UniformSymbolsPrior(KernelPrior):
    """Independent symbols, all equally likely.

    Args:
        space: One one-hot tensor.
    """

    logits: Tensor

    def __init__(self, space: StateSpace) -> None:
        super().__init__(space)
        shape = symbols_of(space, "the prior 'uniform-symbols'").shape
        self.register_buffer("logits", torch.zeros(shape), persistent=False)

    def kernel(self, num: int) -> CategoricalKernel:
        """Returns the law, for `num` rows."""
        return CategoricalKernel(self.logits.expand(num, *self.logits.shape))

    def fit(self, state: State) -> None:
        """Does nothing: the law is fixed."""

    def observe(self, state: State) -> None:
        """Nothing: this prior does not follow the walks."""
