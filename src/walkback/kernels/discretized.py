"""Normal distributions of gray levels: a density that is constant within each level.

    p(x) = Π_d n P_d(k_d),   k_d = ⌊n x_d⌋        for n levels on [0, 1]
    P_d(k) = Φ((k + 1 - n μ_d) / n σ_d) - Φ((k - n μ_d) / n σ_d),   with -∞ and ∞ at the first and the last edge

The discretized last step of Ho et al. (2020). It is the density of uniformly dequantized levels, so its logarithm and
that of the mass of a level differ by log n, whatever the dequantization.

Masses are computed in double precision, from the tail in which both edges lie: log(Φ(b) - Φ(a)) = log Φ(b) +
log(1 - Φ(a)/Φ(b)) with a + b ≤ 0.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from torch.special import log_ndtr

from walkback.kernels.base import Divergent, Expecting, Kernel
from walkback.kernels.normal import NormalKernel
from walkback.schedules import Level
from walkback.state import State, leaves, sum_events


@final
class DiscretizedKernel(Kernel, Expecting, Divergent):
    """Normal distribution of gray levels in some rows, and of numbers in the others.

    Args:
        normal: The normal distributions.
        levels: n.
        rows: Which rows are of gray levels, bool, `(1 or B, 1, …)`.
    """

    def __init__(self, normal: NormalKernel, levels: int, rows: Tensor) -> None:
        self.normal = normal
        self._levels = levels
        self._rows = rows

    def around(self, normal: NormalKernel) -> DiscretizedKernel:
        """Return a kernel with other normal distributions in the same rows."""
        return DiscretizedKernel(normal, self._levels, self._rows)

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw a level by its mass, and a number within it, `(B, *E)`."""
        value = self.normal.sample(generator)
        within = torch.rand(value.shape, generator=generator, dtype=value.dtype, device=value.device)
        return torch.where(self._rows, (self._level(value) + within) / self._levels, value)

    @torch.no_grad()
    def expectation(self) -> Tensor:
        """Return E[s'], `(B, *E)`: the middle of each level times its mass, Σ_k P(level ≥ k) + ½ in units of 1/n."""
        mean, deviation = self.normal.mean, self.normal.variance.sqrt()
        total = torch.full_like(mean, 0.5)
        for edge in range(1, self._levels):
            total += torch.special.ndtr((mean - edge / self._levels) / deviation)
        return torch.where(self._rows, total / self._levels, mean)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats; -∞ outside of [0, 1] in rows of gray levels."""
        (x,) = leaves(state)
        inside = ((x >= 0) & (x <= 1)) | ~self._rows
        # Rows of numbers get some level too, so that no gradient of what is not used is nan.
        level = self._level(x).double()
        scale = self._levels * self.normal.variance.double().sqrt()
        center = self._levels * self.normal.mean.double()
        mass = _log_mass((level - center) / scale, (level + 1 - center) / scale, level, self._levels)
        mass = (mass + math.log(self._levels)).masked_fill(~inside, -math.inf)
        return torch.where(self._rows.flatten(), sum_events(mass).to(x.dtype), self.normal.log_prob(x))

    def divergence_from(self, other: Kernel) -> Tensor | None:
        """`(B,)`, nats, from a `NormalKernel`, to rows of numbers; in rows of gray levels it has no meaning."""
        return self.normal.divergence_from(other)

    def _level(self, x: Tensor) -> Tensor:
        return (x * self._levels).floor().clamp(0, self._levels - 1)


def _log_mass(lower: Tensor, upper: Tensor, level: Tensor, levels: int) -> Tensor:
    """Return log P(k) of a standard normal between two edges, which are -∞ and ∞ around the first and last level."""
    flipped = lower + upper > 0
    a, b = torch.where(flipped, -upper, lower), torch.where(flipped, -lower, upper)
    of_b = log_ndtr(b)
    # Levels much narrower than the noise: their mass is not 0, even if it is rounded to it.
    ratio = (log_ndtr(a) - of_b).clamp(max=-1e-15)
    between = of_b + (-ratio.expm1()).log()
    mass = torch.where(level == 0, log_ndtr(upper), between)
    return torch.where(level == levels - 1, log_ndtr(-lower), mass)


def discretized_at(normal: NormalKernel, levels: int, level: Level) -> Kernel:
    """Make the kernel of a step of its gray levels where its colder state is data, at the first level."""
    elapsed = level.elapsed
    if not isinstance(elapsed, Tensor):
        if elapsed > 0:
            return normal
        elapsed = normal.mean.new_zeros(1)
    return DiscretizedKernel(
        normal, levels, (elapsed.to(normal.mean.device) == 0).reshape(-1, *(1,) * (normal.mean.dim() - 1))
    )
