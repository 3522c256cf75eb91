"""Independent symbols with tracked frequencies.

p*(s) = Π_l φ_l(s_l),   φ ← (1 - w) φ + w · frequencies of s_K,   w = max(1 / batches seen, 0.01)
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from walkback.priors import Prior
from walkback.state import State, StateSpace, leaves
from walkback_categorical.kernel import CategoricalKernel, decode, places_and_bits

_LEAST = 1e-4
"""Probability that a symbol keeps although it never came: no state has probability 0."""


@final
class CategoricalPrior(Prior):
    """See the module's equation.

    Args:
        space: Symbols as bits, support "binary", shape (L, b).

    Raises:
        ConfigurationError: The state is something else.
    """

    frequency: Tensor
    seen: Tensor

    def __init__(self, space: StateSpace) -> None:
        super().__init__(space)
        places, bits = places_and_bits(space, "categorical")
        self.register_buffer("frequency", torch.full((places, 2**bits), 2.0**-bits))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def _kernel(self, num: int) -> CategoricalKernel:
        logits = self.frequency.clamp(min=_LEAST).log()
        return CategoricalKernel(logits.expand(num, *logits.shape))

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats."""
        return self._kernel(len(leaves(state)[0])).log_prob(state)

    def sample(self, num: int, generator: torch.Generator) -> State:
        """`(num, L, b)`."""
        return self._kernel(num).sample(generator)

    @torch.no_grad()
    def fit(self, state: State) -> None:
        """Take the frequencies in `state` `(N, L, b)`."""
        self.frequency.copy_(self._frequencies(state))
        self.seen.zero_()

    @torch.no_grad()
    def observe(self, state: State) -> None:
        """Average in the frequencies in s_K; the first batch replaces those of the data."""
        self.seen += 1
        weight = self.seen.reciprocal().clamp(min=0.01).to(self.frequency.dtype)
        self.frequency.lerp_(self._frequencies(state), weight)

    def _frequencies(self, state: State) -> Tensor:
        symbols = one_hot(decode(leaves(state)[0]), self.frequency.shape[-1])
        return symbols.to(self.frequency.dtype).mean(0)
