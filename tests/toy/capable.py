"""Processes with one capability and one fault each, for what must find them; without a fault (`""`) each is sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from walkback.kernels import BernoulliKernel, Divergent, Kernel, NormalKernel
from walkback.operators import Conditional, TransitionOperator
from walkback.priors import Prior
from walkback.processes import Bridged, Jumping, OperatorAware, Process, Reconstructing, Stepwise
from walkback.schedules import Level, Levels
from walkback.state import State, leaves
from walkback.walk import Start, Transition

V = 0.04
"""Variance of a step at T = 1."""


@final
class Wrong(Kernel, Divergent):
    """A Normal kernel whose density, or whose divergence, is not its own."""

    def __init__(self, kernel: NormalKernel, fault: str) -> None:
        self._kernel = kernel
        self._fault = fault

    def sample(self, generator: torch.Generator) -> State:
        return self._kernel.sample(generator)

    def log_prob(self, state: State) -> Tensor:
        return self._kernel.log_prob(state) + (0.3 if self._fault == "constant" else 0.0)

    def divergence_from(self, other: Kernel) -> Tensor | None:
        assert isinstance(other, Wrong)
        if self._fault == "reversed divergence":
            wide = NormalKernel(self._kernel.mean, 2 * self._kernel.variance)
            return wide.divergence_from(other._kernel)
        return self._kernel.divergence_from(other._kernel)


def spread(mean: Tensor, time: float | Tensor, factor: float = 1.0) -> NormalKernel:
    """N(mean, V time)."""
    if isinstance(time, Tensor):
        time = time.to(mean).reshape(-1, *(1,) * (mean.dim() - 1))
    return NormalKernel(mean, torch.as_tensor(factor * V * time).to(mean).expand_as(mean[..., :1]))


@final
class Diffusing(Process, Stepwise, Jumping):
    """s_t = s_{t-1} + √(V T_t) ε, with closed forms, learned from in order of the levels."""

    def __init__(self, *, fault: str = "") -> None:
        super().__init__()
        self._fault = fault

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        kernel = spread(leaves(source)[0], level.temperature)
        return Wrong(kernel, self._fault) if self._fault == "reversed divergence" else kernel

    def marginal(self, origin: State, level: Level) -> NormalKernel:
        time = level.temperature if self._fault == "step for marginal" else level.elapsed + level.temperature
        return spread(leaves(origin)[0], time)

    def posterior(self, target: State, level: Level, origin: State) -> NormalKernel:
        (s,), (x,) = leaves(target), leaves(origin)
        before = torch.as_tensor(level.elapsed).reshape(-1, *(1,) * (s.dim() - 1)).to(s)
        share = before / (before + level.temperature_like(s))
        variance = V * level.temperature_like(s) * (1.0 if self._fault == "step for posterior" else share)
        return NormalKernel(x + share * (s - x), (variance + 1e-30).expand_as(s[..., :1]))

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        origin = start.state
        for level in levels:
            time = (
                level.temperature if self._fault == "jumps by a step" else level.elapsed + level.temperature
            )
            target = spread(leaves(origin)[0], time).sample(generator)
            posterior = self.posterior(target, level, origin)
            source = posterior.sample(generator)
            reverse = operator(target, level, start.context).cooling(level)
            if self._fault == "other posterior":
                posterior = NormalKernel(posterior.mean, 2 * posterior.variance)
            forward = self.heating(operator(source, level), source, level, origin)
            yield Transition(
                source, target, level, forward, reverse, start.anchor or origin, start.context, posterior
            )


@final
class FromPrior(Kernel):
    """The prior as a kernel."""

    def __init__(self, prior: Prior, rows: int, constant: float) -> None:
        self._prior, self._rows, self._constant = prior, rows, constant

    def sample(self, generator: torch.Generator) -> State:
        return self._prior.sample(self._rows, generator)

    def log_prob(self, state: State) -> Tensor:
        return self._prior.log_prob(state) + self._constant


@final
class Descending(Process, Bridged):
    """From the prior by the operator's own steps at twice the variance, or on bits by the operator itself."""

    def __init__(self, *, fault: str = "") -> None:
        super().__init__()
        self._fault = fault

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def end(self, origin: State, level: Level, prior: Prior) -> Kernel:
        constant = 0.3 if self._fault == "end's constant" else 0.0
        return FromPrior(prior, len(leaves(origin)[0]), constant)

    def bridge(
        self, conditional: Conditional, target: State, level: Level, origin: State, last: Level
    ) -> Kernel:
        kernel = conditional.cooling(level)
        if isinstance(kernel, BernoulliKernel):
            return kernel
        assert isinstance(kernel, NormalKernel)
        wide = NormalKernel(kernel.mean, 1.5 * kernel.variance)
        return Wrong(wide, "constant") if self._fault == "bridge's constant" else wide

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        assert start.prior is not None
        origin, anchor = start.state, start.state if start.anchor is None else start.anchor
        end = self.end(origin, levels[-1], start.prior)
        target = end.sample(generator)
        for level in reversed(levels):
            output = operator(target, level, start.context)
            reverse = output.cooling(level)
            yield Transition(origin, target, level, end, reverse, anchor, start.context)
            drawn = reverse if self._fault == "narrow path" else None
            target = (drawn or self.bridge(output, target, level, origin, levels[-1])).sample(generator)


@final
class Rebuilding(Process, Reconstructing, OperatorAware):
    """s_t = x + √(v T_t) ε, and back to x; v may be set from the operator."""

    variance: Tensor

    def __init__(self, *, fault: str = "") -> None:
        super().__init__()
        self._fault = fault
        self._size = 1.0
        self.register_buffer("variance", torch.tensor(V))

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def fit_operator(self, operator: TransitionOperator) -> None:
        if self._fault == "changes the operator":
            next(operator.parameters()).mul_(0.9)
        if self._fault == "size outside":
            self._size = 2.0
        else:
            self.variance.fill_(2 * V)

    def corruption(self, origin: State, level: Level) -> Kernel:
        (x,) = leaves(origin)
        kernel = spread(x, level.temperature, self._size * float(self.variance) / V)
        return Wrong(kernel, "constant") if self._fault == "corruption's constant" else kernel

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        source, anchor = start.state, start.state if start.anchor is None else start.anchor
        for level in levels:
            forward = self.corruption(source, level)
            target = forward.sample(generator)
            reverse = operator(target, level, start.context).cooling(level)
            yield Transition(source, target, level, forward, reverse, anchor, start.context)
            if self._fault == "from the last state":
                source = target
