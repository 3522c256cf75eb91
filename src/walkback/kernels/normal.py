"""Normal kernels.

    log p(x) = Σ_d -½ [ (x_d - μ_d)² / v_d + log v_d + log 2π ]
    KL(N(m, u) ‖ N(μ, v)) = Σ_d ½ [ (m_d - μ_d)² / v_d + r_d - 1 - log r_d ],   r = u / v

The temperature scales v by a `TemperatureLaw`.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from walkback.kernels.base import Divergent, Expecting, Kernel, Reparametrized
from walkback.schedules import Level
from walkback.state import State, leaves, sum_events
from walkback.temperature import VARIANCE_LAW, TemperatureLaw


@final
class NormalKernel(Kernel, Reparametrized, Expecting, Divergent):
    """Normal distribution with independent dimensions.

    Args:
        mean: μ, `(B, *E)`.
        variance: v > 0, broadcastable to `(B, *E)`.
    """

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        self.mean = mean
        self.variance = variance

    def sample(self, generator: torch.Generator) -> Tensor:
        """μ + √v ε with ε standard normal, `(B, *E)`."""
        return torch.addcmul(self.mean.detach(), self.variance.detach().sqrt(), self.noise(generator))

    def expectation(self) -> Tensor:
        """μ, `(B, *E)`."""
        return self.mean.detach()

    def noise(self, generator: torch.Generator) -> Tensor:
        """Standard normal, `(B, *E)`."""
        mean = self.mean
        return torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)

    def transport(self, noise: State) -> Tensor:
        """μ + √v ε, `(B, *E)`."""
        (epsilon,) = leaves(noise)
        return torch.addcmul(self.mean, self.variance.sqrt(), epsilon)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats; see the module's equation."""
        (x,) = leaves(state)
        variance = self.variance
        # Take log v before broadcasting: the variance is often a single number for the whole event.
        log_variance = variance.log().expand_as(self.mean)
        terms = (x - self.mean).square() / variance + log_variance
        return -0.5 * (sum_events(terms) + math.log(2 * math.pi) * math.prod(self.mean.shape[1:]))

    def divergence_from(self, other: Kernel) -> Tensor | None:
        """`(B,)`, nats, from another `NormalKernel`."""
        if not isinstance(other, NormalKernel):
            return None
        ratio = other.variance / self.variance
        distance = (other.mean - self.mean).square() / self.variance
        return 0.5 * sum_events(distance + (ratio - 1 - ratio.log()).expand_as(distance))


def normal_at(
    mean: Tensor, variance: Tensor, level: Level, law: TemperatureLaw = VARIANCE_LAW
) -> NormalKernel:
    """Build a normal kernel at a level, from its mean `(B, *E)` and its variance at T = 1 (broadcastable to it)."""
    # Without a batch dimension, the variance would broadcast per-row temperatures along its last event dimension.
    variance = variance.reshape((1,) * (mean.dim() - variance.dim()) + variance.shape)
    return NormalKernel(mean, law.variance(variance, level))
