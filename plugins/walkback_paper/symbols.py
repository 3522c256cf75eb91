"""Kernels of symbols: one of S in each place, independent of the others.

    log p(x) = Σ_l log softmax(logits_l)_{k_l},   k_l the place of the 1 in x_l

Temperature divides logits, as it does those of bits (section 3.3 of the paper).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from walkback.kernels import Expecting, Kernel
from walkback.schedules import Level
from walkback.state import State, leaves, sum_events


@final
class CategoricalKernel(Kernel, Expecting):
    """Independent symbols, one-hot along the last dimension.

    Args:
        logits: `(B, *E)`, defined up to a constant for each place; -inf for impossible symbols.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, generator: torch.Generator) -> Tensor:
        """One-hot symbols in the dtype of the logits, `(B, *E)`."""
        logits = self.logits.detach()
        below = logits.softmax(-1).cumsum(-1)[..., :-1]
        uniform = torch.rand(logits.shape[:-1], generator=generator, dtype=logits.dtype, device=logits.device)
        return one_hot((uniform[..., None] >= below).sum(-1), logits.shape[-1]).to(logits.dtype)

    def expectation(self) -> Tensor:
        """Probabilities of the symbols, `(B, *E)`."""
        return self.logits.detach().softmax(-1)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats; -inf for impossible symbols."""
        (x,) = leaves(state)
        # Not a product with x: 0 · -inf would be NaN.
        return sum_events(torch.where(x > 0, self.logits.log_softmax(-1), 0.0))


def categorical_at(logits: Tensor, level: Level) -> CategoricalKernel:
    """Build a kernel of symbols at a level: softmax(logits / T), logits `(B, *E)`."""
    return CategoricalKernel(logits / level.temperature_like(logits))
