"""Kernels that can be sampled, and have no density.

    Metropolis-Hastings   P(dx' | x) = q(x' | x) a(x, x') dx' + r(x) δ_x(dx')
                          a(x, x') = min(1, π(x') q(x | x') / (π(x) q(x' | x))),   r(x) = 1 - ∫ q a dx'

The rejections put an atom of weight r(x) on the current state. No density with respect to volume describes it, and r(x)
is an intractable integral; omitting it would give wrong likelihoods and entropy productions. Measurements that need
only states remain: mixing, stationarity, and the rank test of detailed balance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NoReturn, final

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, ProductKernel, StackedKernel
from walkback.operators import TransitionOperator
from walkback.schedules import Level
from walkback.state import State, leaves


class WithoutDensity(ABC):
    """Base class of kernels without a density, from which states can only be drawn."""

    @abstractmethod
    def log_prob(self, state: State) -> NoReturn:
        """Raise ConfigurationError."""


def has_density(kernel: Kernel) -> bool:
    """Return whether log-densities of a kernel can be computed; for a product, those of all parts."""
    if isinstance(kernel, ProductKernel | StackedKernel):
        return all(map(has_density, kernel.kernels))
    return not isinstance(kernel, WithoutDensity)


@torch.no_grad()
def require_density(operator: TransitionOperator, state: State, what: str) -> None:
    """Refuse an operator whose kernel at `state` has no density, before any work is done.

    Args:
        operator: The operator.
        state: States `(B, *E)`.
        what: What needs a density, for the message: "a likelihood".

    Raises:
        ConfigurationError: The kernel has no density.
    """
    level = Level(1, 1.0)
    if not has_density(operator(state, level).cooling(level)):
        raise _lacking(what)


def _lacking(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"Got a kernel without a density, which {what} needs: measure it by mixing or stationarity, which need states "
        "alone."
    )


@final
class StepKernel(Kernel, WithoutDensity):
    """A step of a program as a kernel.

    Args:
        step: Draws the next states `(B, *E)` with a generator, its only source of randomness.
    """

    def __init__(self, step: Callable[[torch.Generator], State]) -> None:
        self._step = step

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> State:
        """Return the next states, `(B, *E)`."""
        return self._step(generator)

    def log_prob(self, state: State) -> NoReturn:
        """Raise ConfigurationError: there is no density."""
        raise _lacking("a log-probability")


@final
class MetropolisKernel(Kernel, WithoutDensity):
    """A proposal that is accepted or rejected; see the module's equation.

    Args:
        state: x, `(B, *E)`.
        proposal: The kernels q(· | x) at states `(B, *E)`.
        log_density: log π of states `(B, *E)` up to a constant: `(B,)`, nats.
    """

    def __init__(
        self, state: Tensor, proposal: Callable[[Tensor], Kernel], log_density: Callable[[Tensor], Tensor]
    ) -> None:
        self._state = state
        self._proposal = proposal
        self._log_density = log_density

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> Tensor:
        """Return the proposed states where they are accepted, and x elsewhere."""
        x, there = self._state, self._proposal(self._state)
        (proposed,) = leaves(there.sample(generator))
        log_ratio = self._log_density(proposed) - self._log_density(x)
        log_ratio = log_ratio + self._proposal(proposed).log_prob(x) - there.log_prob(proposed)
        uniform = torch.rand(len(x), generator=generator, device=x.device, dtype=log_ratio.dtype)
        accepted = uniform.log() < log_ratio
        return torch.where(accepted.reshape(-1, *(1,) * (x.dim() - 1)), proposed, x)

    def log_prob(self, state: State) -> NoReturn:
        """Raise ConfigurationError: rejections have no density."""
        raise _lacking("a log-probability")
