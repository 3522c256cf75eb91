"""Infusion training (Bordes, Honari and Vincent 2017): the walk comes from the prior, infused with the example.

    s_K ~ p*,   s_{t-1} ~ q(· | s_t, x)                                              t = K … 2

    q(s_{t-1} | s_t, x) = Π_d (1 - α_t) p_{T_t}(s_d | s_t) + α_t N(s_d; x_d, ε²)     numbers
                        = Π_d (1 - α_t) p_{T_t}(s_d | s_t) + α_t [s_d = x_d]         bits and symbols
    α_t = α + ω (K - t), at most 1

The operator learns p_{T_t}(x | s_t) at every state of the walk: the source of each transition is the example.

    log p(x) ≥ E[ log p(x | s_1) - Σ_{t=2}^K log q(s_{t-1} | s_t, x) / p_{T_t}(s_{t-1} | s_t) ]

The source infuses dimensions of x itself (ε = 0), for which numbers have no density.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, CategoricalKernel, Kernel, NormalKernel
from walkback.noising.base import time_like
from walkback.operators import Conditional, DataAware, TransitionOperator
from walkback.priors import Prior
from walkback.processes import Bridged, Process
from walkback.schedules import Level, Levels
from walkback.state import State, batch_size, leaves, sum_events
from walkback.walk import Start, Transition
from walkback_processes.noises import Positive

Rate: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]


@final
class InfusedNormal(Kernel):
    """Π_d (1 - α) N(μ_d, v_d) + α N(x_d, ε²).

    Args:
        model: N(μ, v), `(B, *E)`.
        example: x, `(B, *E)`.
        variance: ε², one number.
        rate: α, broadcastable to `(B, *E)`.
    """

    def __init__(self, model: NormalKernel, example: Tensor, variance: Tensor, rate: Tensor) -> None:
        self._parts = model, NormalKernel(example, variance)
        self._rate = rate

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw both parts, and choose one in each dimension, `(B, *E)`."""
        model, infused = (part.sample(generator) for part in self._parts)
        uniform = torch.rand(model.shape, generator=generator, dtype=model.dtype, device=model.device)
        return torch.where(uniform < self._rate, infused, model)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats."""
        (s,) = leaves(state)
        model, infused = (_log_density(part, s) for part in self._parts)
        return sum_events(torch.logaddexp(torch.log1p(-self._rate) + model, self._rate.log() + infused))


def _log_density(kernel: NormalKernel, s: Tensor) -> Tensor:
    """Return the log-density of each dimension, `(B, *E)`."""
    terms = (s - kernel.mean).square() / kernel.variance + (2 * torch.pi * kernel.variance).log()
    return -0.5 * terms


@final
class PriorKernel(Kernel):
    """The prior as a kernel of B rows.

    Args:
        prior: p*.
        rows: B.
    """

    def __init__(self, prior: Prior, rows: int) -> None:
        self._prior = prior
        self._rows = rows

    def sample(self, generator: torch.Generator) -> State:
        """Draw B states."""
        return self._prior.sample(self._rows, generator)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats."""
        return self._prior.log_prob(state)


@final
class InfusionProcess(Process, Bridged, DataAware):
    """Walks down from the prior that are infused with the example; the equations are in the module's docstring.

    Args:
        first: α, rate of the first step from the prior.
        increment: ω, its growth with each step towards the data.
        spread: ε, standard deviation of what is infused, as a share of that of the data.
    """

    deviation: Tensor

    def __init__(self, *, first: Rate = 0.0, increment: Rate = 0.04, spread: Positive = 0.1) -> None:
        super().__init__()
        self._first = first
        self._increment = increment
        self._spread = spread
        self.register_buffer("deviation", torch.tensor(spread, dtype=torch.float64))

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Set ε from examples `(N, *E)`."""
        deviation = (data.double() - data.double().mean(0)).square().mean().sqrt()
        self.deviation.copy_(self._spread * deviation.clamp(min=1e-10))

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def end(self, origin: State, level: Level, prior: Prior) -> Kernel:
        """Return p*."""
        return PriorKernel(prior, batch_size(origin))

    def bridge(
        self, conditional: Conditional, target: State, level: Level, origin: State, last: Level
    ) -> Kernel:
        """Return q(s_{t-1} | s_t, x).

        Raises:
            ConfigurationError: Kernels are not normal ones, bits or symbols.
        """
        return self._infused(conditional.cooling(level), level, origin, last)

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Walk from the prior of `start`, with K runs of the network.

        Raises:
            ConfigurationError: Kernels are not normal ones, bits or symbols, or there is no prior.
        """
        if start.prior is None:
            raise ConfigurationError(
                "Got no prior to walk from, expected one: infusion walks begin at the prior."
            )
        origin, last = start.state, levels[-1]
        anchor = origin if start.anchor is None else start.anchor
        # What is drawn from the prior teaches it nothing: `levels[-1]` itself would have the prior observe s_K.
        way = (replace(last), *levels[-2::-1])
        end = self.end(origin, last, start.prior)
        target = end.sample(generator)
        for level in way:
            reverse = operator(target, level, start.context).cooling(level)
            bridge = self._infused(reverse, level, origin, last)
            yield Transition(origin, target, level, end, reverse, anchor, start.context)
            target = bridge.sample(generator)

    def _infused(self, kernel: Kernel, level: Level, origin: State, last: Level) -> Kernel:
        (x,) = leaves(origin)
        rate = self._rate(level, last, x)
        if isinstance(kernel, NormalKernel):
            return InfusedNormal(kernel, x, self.deviation.to(x.dtype).square(), rate)
        if isinstance(kernel, BernoulliKernel):
            ones, zeros = logsigmoid(kernel.logits).exp(), logsigmoid(-kernel.logits).exp()
            return BernoulliKernel(_log(ones, x, rate) - _log(zeros, 1 - x, rate))
        if isinstance(kernel, CategoricalKernel):
            return CategoricalKernel(_log(kernel.logits.softmax(-1), x, rate))
        raise ConfigurationError(
            f"Got kernels of type {type(kernel).__name__}, expected normal ones, bits or symbols: process.name = "
            "'infusion' mixes dimension by dimension."
        )

    def _rate(self, level: Level, last: Level, leaf: Tensor) -> Tensor:
        """Return α_t, broadcastable to `leaf` `(B, *E)`."""
        count = time_like(last.step - level.step, leaf).to(leaf.dtype)
        return (self._first + self._increment * count).clamp(max=1.0)


def _log(probability: Tensor, indicator: Tensor, rate: Tensor) -> Tensor:
    """Return log((1 - α) p + α [s = x]), finite."""
    mixed = (1 - rate) * probability + rate * indicator
    return mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()
