"""Interfaces of kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from walkback.state import State


class Kernel(ABC):
    """Abstract distribution over states, conditioned on one state per row."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> State:
        """Draw one state per row, `(B, *E)`, detached from the graph."""

    @abstractmethod
    def log_prob(self, state: State) -> Tensor:
        """Return the log-density or log-mass of `state` `(B, *E)`: `(B,)`, nats, summed over event dimensions."""


class Reparametrized(ABC):
    """Capability of a kernel: a sample is a differentiable function of noise with a fixed, parameter-free law.

    x = τ(ε),   ε ~ fixed,   so that ∇ E[f(x)] = E[∇ f(τ(ε))].
    """

    @abstractmethod
    def noise(self, generator: torch.Generator) -> State:
        """Draw ε for one state per row. `sample` consumes the same random numbers from the generator."""

    @abstractmethod
    def transport(self, noise: State) -> State:
        """Return τ(ε), `(B, *E)`, differentiable with respect to the kernel's parameters."""


class Expecting(ABC):
    """Capability of a kernel: it has a mean in closed form. Readouts show it as the state without the last noise."""

    @abstractmethod
    def expectation(self) -> State:
        """Return E[s'], `(B, *E)`, detached from the graph."""


class Divergent(ABC):
    """Capability of a kernel: its divergence from other kernels has a closed form."""

    @abstractmethod
    def divergence_from(self, other: Kernel) -> Tensor | None:
        """Return KL(other ‖ self), `(B,)`, nats, differentiably; None if it has no closed form for `other`."""
