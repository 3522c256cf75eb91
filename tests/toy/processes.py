"""Processes beyond the operator's own: with parameters, with jumps to any level, down from the prior."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from walkback.kernels import Kernel, NormalKernel
from walkback.operators import Conditional, DataAware, TransitionOperator
from walkback.processes import Process, Stepwise, StepwiseProcess, TiedProcess
from walkback.schedules import Level, Levels
from walkback.state import State, batch_size, leaves, map_state
from walkback.walk import Start, Transition


@final
class Spreading(StepwiseProcess, DataAware):
    """q_T(s_t | s_{t-1}) = N(s_{t-1}, v T): v is learned, and starts as a share of the data's variance; T_max is 8."""

    def __init__(self, *, share: float = 0.1) -> None:
        super().__init__()
        self._share = share
        self.log_variance = nn.Parameter(torch.zeros((), dtype=torch.float64))

    @property
    def max_temperature(self) -> float:
        return 8.0

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        self.log_variance.copy_((self._share * data.double().var()).log())

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        (x,) = leaves(source)
        return NormalKernel(x, self.log_variance.exp().to(x) * level.temperature_like(x))


@final
class Jumps(Process, Stepwise):
    """s_t = s_{t-1} + √(v T_t) ε, of which the steps are visited in random order, by jumps from s_0.

    Args:
        variance: v.
        apart: Every row at a level of its own.
        fault: For the conformance kit.
    """

    def __init__(self, *, variance: float = 0.04, apart: bool = False, fault: str = "") -> None:
        super().__init__()
        self._variance = variance
        self._apart = apart
        self._fault = fault

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> NormalKernel:
        (x,) = leaves(source)
        return NormalKernel(x, self._variance * level.temperature_like(x))

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        (x,) = leaves(start.state)
        anchor = start.state if start.anchor is None else start.anchor
        temperatures = torch.tensor([level.temperature for level in levels], dtype=torch.float64)
        before = self._variance * (temperatures.cumsum(0) - temperatures)
        for number in torch.randperm(len(levels), generator=generator).tolist():
            level, variance = levels[number], before[number].to(x)
            if self._apart:
                rows = torch.randint(len(levels), (len(x),), generator=generator)
                level = Level(rows + 1, temperatures[rows])
                variance = before[rows].to(x).reshape(-1, *(1,) * (x.dim() - 1))
            source = NormalKernel(x, variance.expand_as(x)).sample(generator)
            conditional = operator(source, level, start.context)
            forward = self.heating(conditional, source, level, start.state)
            target = forward.sample(generator)
            there = source if self._fault == "reverse elsewhere" else target
            reverse = operator(there, level, start.context).cooling(level)
            yield Transition(source, target, level, forward, reverse, anchor, start.context)
            if self._fault == "twice":
                yield Transition(source, target, level, forward, reverse, anchor, start.context)


@final
class Descent(Process, Stepwise):
    """Cools from the prior, each state pulled a part of the way to the example (infusion): transitions hottest first.

    Args:
        pull: Part of the way.
    """

    def __init__(self, *, pull: float = 0.3) -> None:
        super().__init__()
        self._pull = pull

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        return conditional.heating(level)

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        assert start.prior is not None
        anchor = start.state if start.anchor is None else start.anchor
        target = start.prior.sample(batch_size(start.state), generator)
        for level in reversed(levels):
            reverse = operator(target, level, start.context).cooling(level)
            drawn = reverse.sample(generator)
            source = map_state(lambda s, x: torch.lerp(s, x, self._pull), drawn, anchor)
            forward = operator(source, level, start.context).heating(level)
            yield Transition(source, target, level, forward, reverse, anchor, start.context)
            target = source


@final
class Untold(Process):
    """Walks like the tied process, and does not tell its steps."""

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        return TiedProcess().path(operator, start, levels, generator)
