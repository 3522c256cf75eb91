"""Kernels of bits and symbols.

    Bernoulli     log p(x) = Σ_d  x_d log ρ_d + (1 - x_d) log(1 - ρ_d),   ρ = sigmoid(logits)
    Categorical   log p(x) = Σ_l  log softmax(logits_l)_{k_l},   x_l one-hot with its 1 at k_l

KL(first ‖ second) is the sum over entries, or symbols, of Σ p₁ log (p₁ / p₂).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from walkback.kernels.base import Divergent, Expecting, Kernel
from walkback.schedules import Level
from walkback.state import State, leaves, sum_events


@final
class BernoulliKernel(Kernel, Expecting, Divergent):
    """Independent Bernoulli entries, ρ = sigmoid(logits).

    Args:
        logits: `(B, *E)`.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, generator: torch.Generator) -> Tensor:
        """Zeros and ones in the dtype of the logits, `(B, *E)`."""
        probability = self.logits.detach().sigmoid()
        # A comparison with uniforms is several times faster than torch.bernoulli.
        uniform = torch.rand(
            probability.shape, generator=generator, dtype=probability.dtype, device=probability.device
        )
        return (uniform < probability).to(probability.dtype)

    def expectation(self) -> Tensor:
        """ρ, `(B, *E)`."""
        return self.logits.detach().sigmoid()

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats; see the module's equation."""
        (x,) = leaves(state)
        return -sum_events(binary_cross_entropy_with_logits(self.logits, x, reduction="none"))

    def divergence_from(self, other: Kernel) -> Tensor | None:
        """`(B,)`, nats, from another `BernoulliKernel`."""
        if not isinstance(other, BernoulliKernel):
            return None
        probability = other.logits.sigmoid()
        cross, entropy = (
            binary_cross_entropy_with_logits(logits, probability, reduction="none")
            for logits in (self.logits, other.logits)
        )
        return sum_events(cross - entropy)


@final
class CategoricalKernel(Kernel, Expecting, Divergent):
    """Independent symbols, one-hot along the last dimension.

    Args:
        logits: `(B, *E)`, defined up to a constant for each symbol; -inf for impossible ones.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, generator: torch.Generator) -> Tensor:
        """One-hot symbols in the dtype of the logits, `(B, *E)`."""
        logits = self.logits.detach()
        below = logits.softmax(-1).cumsum(-1)[..., :-1]
        uniform = torch.rand(logits.shape[:-1], generator=generator, dtype=logits.dtype, device=logits.device)
        symbols = (uniform[..., None] >= below).sum(-1, keepdim=True)  # `one_hot` would wait for the device
        return (symbols == torch.arange(logits.shape[-1], device=logits.device)).to(logits.dtype)

    def expectation(self) -> Tensor:
        """Probabilities of the symbols, `(B, *E)`."""
        return self.logits.detach().softmax(-1)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats; -inf for impossible symbols."""
        (x,) = leaves(state)  # not a factor below: 0 · -inf is NaN
        return sum_events(torch.where(x > 0, self.logits.log_softmax(-1), 0.0))

    def divergence_from(self, other: Kernel) -> Tensor | None:
        """`(B,)`, nats, from another `CategoricalKernel`."""
        if not isinstance(other, CategoricalKernel):
            return None
        log_probability = other.logits.log_softmax(-1)
        terms = log_probability.exp() * (log_probability - self.logits.log_softmax(-1))
        # 0 · log 0 is 0: a symbol that `other` never draws does not count.
        return sum_events(torch.where(log_probability == -torch.inf, 0.0, terms))


def bernoulli_at(logits: Tensor, level: Level) -> BernoulliKernel:
    """Build a Bernoulli kernel at a level: ρ = sigmoid(logits / T) (section 3.3), logits `(B, *E)`."""
    return BernoulliKernel(logits / level.temperature_like(logits))


def categorical_at(logits: Tensor, level: Level) -> CategoricalKernel:
    """Build a kernel of symbols at a level: softmax(logits / T), logits `(B, *E)`."""
    return CategoricalKernel(logits / level.temperature_like(logits))
