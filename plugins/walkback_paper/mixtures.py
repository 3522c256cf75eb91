"""Mixtures of normal distributions that are diagonal in a basis: cooling kernels of several modes.

    p(x) = Σ_j π_j N(x; m + U z_j, U diag(w_j) Uᵀ),   j = 1 … J

Data of several modes have steps whose reverse has several modes as well: a state between two clusters came from one of
them. No normal kernel reverses such a step, however well it is learned.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from walkback.kernels import Expecting, Kernel
from walkback.state import State, leaves
from walkback_paper.bases import Basis


@final
class MixtureKernel(Kernel, Expecting):
    """Mixture of J normal distributions.

    Args:
        coordinates: z_j, `(J, B, *E)`.
        variance: w_j, of the coordinates, broadcastable to those.
        log_weights: log π_j, `(J, B)`.
        origin: m, `(*E)`.
        basis: U.
    """

    def __init__(
        self, coordinates: Tensor, variance: Tensor, log_weights: Tensor, origin: Tensor, basis: Basis
    ) -> None:
        self._coordinates = coordinates
        self._variance = variance.expand_as(coordinates)
        self._log_weights = log_weights
        self._origin = origin
        self._basis = basis

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> Tensor:
        """Draws j, and a state of its normal distribution, `(B, *E)`."""
        weights = self._log_weights.exp().T
        chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        rows = torch.arange(len(chosen), device=chosen.device)
        mean, variance = self._coordinates[chosen, rows], self._variance[chosen, rows]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self._event(torch.addcmul(mean, variance.sqrt(), noise))

    @torch.no_grad()
    def expectation(self) -> Tensor:
        """Returns m + U Σ_j π_j z_j, `(B, *E)`."""
        return self._event(average(self._coordinates, self._log_weights))

    def log_prob(self, state: State) -> Tensor:
        """Returns the log-density, `(B,)`, nats."""
        (x,) = leaves(state)
        # Half precision would lose small distances, as in normal kernels.
        with torch.autocast(x.device.type, enabled=False):
            distance = self._basis.coordinates(x - self._origin) - self._coordinates
            terms = (distance.square() / self._variance + self._variance.log()).flatten(2)
            each = -0.5 * (terms.sum(2) + math.log(2 * math.pi) * terms.shape[2])
            return (self._log_weights + each).logsumexp(0)

    def _event(self, coordinates: Tensor) -> Tensor:
        with torch.autocast(coordinates.device.type, enabled=False):
            return self._origin + self._basis.event(coordinates)


def average(values: Tensor, log_weights: Tensor) -> Tensor:
    """Returns Σ_j π_j x_j of x `(J, B, *E)` and log π `(J, B)`."""
    weights = log_weights.exp().reshape(*log_weights.shape, *(1,) * (values.dim() - 2))
    return (weights * values).sum(0)
