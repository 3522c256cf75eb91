"""Transition kernels p_T(· | s): a distribution over the next state, one per row of the batch.

    Normal      log p(x) = Σ_d -½ [ (x_d - μ_d)² / v_d + log v_d + log 2π ]
    Bernoulli   log p(x) = Σ_d  x_d log ρ_d + (1 - x_d) log(1 - ρ_d),   ρ = sigmoid(logits)
    Product     log p(x, h) = log p(x) + log p(h)

Temperature enters where a kernel is made: `normal_at` asks a temperature law (`walkback.temperature`), by default a
factor T of the variance; `bernoulli_at` divides the logits by T (section 3.3 of the paper). Rows may be at different
temperatures.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from walkback.schedules import Level
from walkback.state import State, concatenate, leaves, map_state, sum_events
from walkback.temperature import VARIANCE_LAW, TemperatureLaw


class Kernel(ABC):
    """A distribution over states, conditioned on one state per row."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> State:
        """One state per row, `(B, *E)`, detached from the graph."""

    @abstractmethod
    def log_prob(self, state: State) -> Tensor:
        """Log-density or log-mass of `state` `(B, *E)`: `(B,)`, nats, summed over event dimensions."""


class Reparametrized(ABC):
    """Capability of a kernel: a sample is a differentiable function of noise whose law depends on nothing.

    x = τ(ε),   ε ~ fixed,   so that ∇ E[f(x)] = E[∇ f(τ(ε))].
    """

    @abstractmethod
    def noise(self, generator: torch.Generator) -> State:
        """ε for one state per row; `sample` draws the same numbers from the same generator."""

    @abstractmethod
    def transport(self, noise: State) -> State:
        """τ(ε), `(B, *E)`, in the graph of the kernel's parameters."""


class Expecting(ABC):
    """Capability of a kernel: it knows its mean, which is what a state is shown as without the last step's noise."""

    @abstractmethod
    def expectation(self) -> State:
        """E[s'], `(B, *E)`, detached from the graph."""


@final
class NormalKernel(Kernel, Reparametrized, Expecting):
    """Normal with independent dimensions.

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
        # log v is taken before broadcasting: often one number stands for the whole event.
        log_variance = variance.log().expand_as(self.mean)
        terms = (x - self.mean).square() / variance + log_variance
        return -0.5 * (sum_events(terms) + math.log(2 * math.pi) * math.prod(self.mean.shape[1:]))


@final
class BernoulliKernel(Kernel, Expecting):
    """Independent bits, ρ = sigmoid(logits).

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


@final
class ProductKernel(Kernel):
    """Independent kernels, one per leaf of a tuple state.

    Args:
        kernels: In the order of the leaves.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = tuple(kernels)

    def sample(self, generator: torch.Generator) -> State:
        """One leaf from each kernel, drawn in order."""
        return tuple(leaf for kernel in self.kernels for leaf in leaves(kernel.sample(generator)))

    def log_prob(self, state: State) -> Tensor:
        """Sum of the leaves' log-probabilities, `(B,)`, nats."""
        pairs = zip(self.kernels, leaves(state), strict=True)
        return torch.stack([kernel.log_prob(leaf) for kernel, leaf in pairs]).sum(0)


def reparametrized(kernel: Kernel) -> Reparametrized | None:
    """The kernel as a function of noise; None where it is none. A product is one if all of its parts are."""
    if isinstance(kernel, Reparametrized):
        return kernel
    if isinstance(kernel, ProductKernel):
        parts = [part for part in map(reparametrized, kernel.kernels) if part is not None]
        return _ReparametrizedProduct(parts) if len(parts) == len(kernel.kernels) else None
    return None


def expectation(kernel: Kernel) -> State | None:
    """E[s'] `(B, *E)`; None where the kernel does not tell. A product tells if all of its parts do."""
    if isinstance(kernel, Expecting):
        return kernel.expectation()
    if isinstance(kernel, ProductKernel):
        parts = [part for part in map(expectation, kernel.kernels) if part is not None]
        if len(parts) == len(kernel.kernels):
            return tuple(leaf for part in parts for leaf in leaves(part))
    return None


@final
class _ReparametrizedProduct(Reparametrized):
    """The parts of a product, one after another."""

    def __init__(self, parts: Sequence[Reparametrized]) -> None:
        self._parts = tuple(parts)

    def noise(self, generator: torch.Generator) -> State:
        return tuple(leaf for part in self._parts for leaf in leaves(part.noise(generator)))

    def transport(self, noise: State) -> State:
        pairs = zip(self._parts, leaves(noise), strict=True)
        return tuple(leaf for part, epsilon in pairs for leaf in leaves(part.transport(epsilon)))


@final
class StackedKernel(Kernel):
    """The rows of several kernels one after another, e.g. of the K steps of a walk: `(ΣB, *E)`.

    Args:
        kernels: One per batch of rows.
        rows: B, the number of rows of each kernel.
    """

    def __init__(self, kernels: Sequence[Kernel], rows: int) -> None:
        self.kernels = tuple(kernels)
        self._rows = rows

    def sample(self, generator: torch.Generator) -> State:
        """All rows, kernel by kernel in order."""
        return concatenate([kernel.sample(generator) for kernel in self.kernels])

    def log_prob(self, state: State) -> Tensor:
        """`(ΣB,)`, nats; each kernel judges its own rows."""
        parts = [
            kernel.log_prob(map_state(lambda leaf, start=start: leaf[start : start + self._rows], state))
            for kernel, start in zip(
                self.kernels, range(0, len(self.kernels) * self._rows, self._rows), strict=True
            )
        ]
        return torch.cat(parts)


def normal_at(
    mean: Tensor, variance: Tensor, level: Level, law: TemperatureLaw = VARIANCE_LAW
) -> NormalKernel:
    """Normal kernel at a level, from its mean `(B, *E)` and its variance at T = 1 (broadcastable to it)."""
    # A variance without batch dimension would take the temperatures of rows for those of its last event dimension.
    variance = variance.reshape((1,) * (mean.dim() - variance.dim()) + variance.shape)
    return NormalKernel(mean, law.variance(variance, level))


def bernoulli_at(logits: Tensor, level: Level) -> BernoulliKernel:
    """Bernoulli kernel at a level: ρ = sigmoid(logits / T) (section 3.3), logits `(B, *E)`."""
    return BernoulliKernel(logits / level.temperature_like(logits))
