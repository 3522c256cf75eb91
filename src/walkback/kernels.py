"""Transition kernels p_T(· | s): distributions over the next state, one per row of the batch.

    Normal        log p(x) = Σ_d -½ [ (x_d - μ_d)² / v_d + log v_d + log 2π ]
    Bernoulli     log p(x) = Σ_d  x_d log ρ_d + (1 - x_d) log(1 - ρ_d),   ρ = sigmoid(logits)
    Categorical   log p(x) = Σ_l  log softmax(logits_l)_{k_l},   x_l one-hot with its 1 at k_l
    Product       log p(x, h) = log p(x) + log p(h)

The temperature is applied when a kernel is constructed. `normal_at` uses a temperature law (`walkback.temperature`),
by default a factor T on the variance; `bernoulli_at` and `categorical_at` divide the logits by T (section 3.3 of the
paper). Rows may have different temperatures.
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


@final
class NormalKernel(Kernel, Reparametrized, Expecting):
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


@final
class BernoulliKernel(Kernel, Expecting):
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


@final
class CategoricalKernel(Kernel, Expecting):
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


@final
class ProductKernel(Kernel):
    """Independent kernels, one per leaf of a tuple state.

    Args:
        kernels: One per leaf, in the order of the leaves.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = tuple(kernels)

    def sample(self, generator: torch.Generator) -> State:
        """Draw one leaf from each kernel, in order."""
        return tuple(leaf for kernel in self.kernels for leaf in leaves(kernel.sample(generator)))

    def log_prob(self, state: State) -> Tensor:
        """Return the sum of the leaves' log-probabilities, `(B,)`, nats."""
        pairs = zip(self.kernels, leaves(state), strict=True)
        return torch.stack([kernel.log_prob(leaf) for kernel, leaf in pairs]).sum(0)


def expectation(kernel: Kernel) -> State | None:
    """Return E[s'] `(B, *E)`, or None if the kernel has no mean. A product has one if all of its parts do."""
    if isinstance(kernel, Expecting):
        return kernel.expectation()
    if isinstance(kernel, ProductKernel):
        parts = [part for part in map(expectation, kernel.kernels) if part is not None]
        if len(parts) == len(kernel.kernels):
            return tuple(leaf for part in parts for leaf in leaves(part))
    return None


@final
class StackedKernel(Kernel):
    """Concatenation of several kernels along the batch, e.g. of the K steps of a walk: `(ΣB, *E)`.

    Args:
        kernels: One per batch of rows.
        rows: B, the number of rows of each kernel.
    """

    def __init__(self, kernels: Sequence[Kernel], rows: int) -> None:
        self.kernels = tuple(kernels)
        self._rows = rows

    def sample(self, generator: torch.Generator) -> State:
        """Draw all rows, kernel by kernel in order."""
        return concatenate([kernel.sample(generator) for kernel in self.kernels])

    def log_prob(self, state: State) -> Tensor:
        """Return `(ΣB,)`, nats; each kernel scores its own rows."""
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
    """Build a normal kernel at a level, from its mean `(B, *E)` and its variance at T = 1 (broadcastable to it)."""
    # Without a batch dimension, the variance would broadcast per-row temperatures along its last event dimension.
    variance = variance.reshape((1,) * (mean.dim() - variance.dim()) + variance.shape)
    return NormalKernel(mean, law.variance(variance, level))


def bernoulli_at(logits: Tensor, level: Level) -> BernoulliKernel:
    """Build a Bernoulli kernel at a level: ρ = sigmoid(logits / T) (section 3.3), logits `(B, *E)`."""
    return BernoulliKernel(logits / level.temperature_like(logits))


def categorical_at(logits: Tensor, level: Level) -> CategoricalKernel:
    """Build a kernel of symbols at a level: softmax(logits / T), logits `(B, *E)`."""
    return CategoricalKernel(logits / level.temperature_like(logits))
