"""Parts that are known exactly, to check others against: a reversible model, and data of it.

real      s' = m + a (s - m) + √(1 - a²) σ √T ε     at T = 1 in detailed balance with N(m, σ²)
binary    logit ρ = c (2 s - 1) / T                 flips of equal probability: in balance with fair coins

A class label k moves m by 0.3 k, and the logits of bits by as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from walkback.data import SPLITS, DataInfo, Dataset, Split
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel, bernoulli_at, normal_at
from walkback.model import Model
from walkback.operators import ClassConditional, Conditional, TransitionOperator
from walkback.priors import Prior
from walkback.processes import TiedProcess
from walkback.schedules import Level, Levels, Schedule, levels_from
from walkback.state import Context, Space, State, StateSpace, leaves, spaces
from walkback.support.seeding import generator
from walkback.walk import Heating, Start, Transition

MEAN, DEVIATION, CORRELATION = 0.5, 0.2, 0.7
_SHIFT = 0.3
_LOGIT = 1.5


@final
class Reversible(TransitionOperator, ClassConditional):
    """The operator above; `memory` is a or c, a parameter.

    Args:
        space: One tensor.
        memory: a or c; None takes a usual one, nan breaks every kernel.
    """

    def __init__(self, space: Space, *, memory: float | None = None) -> None:
        super().__init__()
        self.space = space
        usual = CORRELATION if space.support == "real" else _LOGIT
        self.memory = nn.Parameter(torch.tensor(usual if memory is None else memory))

    @property
    def max_temperature(self) -> float:
        """Where a step forgets: 1 / (1 - a²)."""
        return 2.0

    @property
    def num_classes(self) -> int:
        """As many as the space says."""
        return self.space.classes

    def forward(self, state: State, level: Level, context: Context = None) -> ReversibleConditional:
        """Nothing to run."""
        (x,) = leaves(state)
        shift: Tensor | float = 0.0
        if context is not None:
            (label,) = leaves(context)
            shift = _SHIFT * label.clamp(min=0).to(x).reshape(-1, *(1,) * (x.dim() - 1))
        return ReversibleConditional(x, self.memory, self.space, shift)


@final
class ReversibleConditional(Conditional):
    """The kernel at a state, the same both ways."""

    def __init__(self, state: Tensor, memory: Tensor, space: Space, shift: Tensor | float = 0.0) -> None:
        self._state = state
        self._memory = memory
        self._space = space
        self._shift = shift

    def cooling(self, level: Level) -> Kernel:
        """As the module says."""
        if self._space.support == "binary":
            return bernoulli_at(self._memory * (2 * self._state - 1) + self._shift, level)
        variance = ((1 - self._memory.square()) * DEVIATION**2).expand(self._space.shape)
        mean = MEAN + self._shift
        return normal_at(mean + self._memory * (self._state - mean), variance, level)

    def heating(self, level: Level) -> Kernel:
        """The same."""
        return self.cooling(level)


@final
class Stationary(Prior):
    """The law that `Reversible` is in balance with."""

    def __init__(self, space: StateSpace) -> None:
        super().__init__(space)
        self.register_buffer("origin", torch.zeros(()))

    def _kernel(self, num: int) -> Kernel:
        (space,) = spaces(self.space)
        zeros = torch.zeros(num, *space.shape, device=self.get_buffer("origin").device)
        if space.support == "binary":
            return BernoulliKernel(zeros)
        return NormalKernel(zeros + MEAN, torch.full_like(zeros[:1], DEVIATION**2))

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats."""
        return self._kernel(len(leaves(state)[0])).log_prob(state)

    def sample(self, num: int, generator: torch.Generator) -> State:
        """`(num, *E)`."""
        return self._kernel(num).sample(generator)

    def fit(self, state: State) -> None:
        """Nothing: it is known."""

    def observe(self, state: State) -> None:
        """Nothing: it is known."""


@final
class Listed(Schedule):
    """The temperatures 1, 1, 1."""

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """Always the same."""
        return levels_from([1.0] * 3)

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Further steps at T = 1."""
        return levels_from([1.0] * num_steps)


@final
class Drawn(Dataset):
    """Independent states of `Stationary`, with two classes by the sign of the first number."""

    def __init__(self, space: Space, num: int = 1024) -> None:
        self._space = space
        self._num = num

    def prepare(self) -> None:
        """Nothing to do."""

    @property
    def info(self) -> DataInfo:
        """Plain real or binary data."""
        splits = {str(split): self._num for split in SPLITS}
        return DataInfo("drawn", self._space.shape, self._space.support, splits=splits, fingerprint="drawn")

    def examples(self, split: Split) -> Tensor:
        """`(num, *E)`, another stream for each split."""
        found = Stationary(self._space).sample(self._num, generator("cpu", 0, split))
        return leaves(found)[0]

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """As they are."""
        return rows.to(generator.device)


def reference_walk(
    operator: TransitionOperator,
    heating: Heating,
    start: Start,
    levels: Levels,
    generator: torch.Generator,
) -> Iterator[Transition]:
    """`walk` as it is written in Algorithm 1: two runs of the network a step (2 K), at the level of the transition."""
    source = start.state
    anchor = start.state if start.anchor is None else start.anchor
    for level in levels:
        forward = heating(operator(source, level, start.context), source, level, start.state)
        target = forward.sample(generator)
        reverse = operator(target, level, start.context).cooling(level)
        yield Transition(source, target, level, forward, reverse, anchor, start.context)
        source = target


def reversible_model(space: Space, memory: float | None = None) -> Model:
    """A model of which every figure is known: in detailed balance, stationary from the start."""
    operator = Reversible(space, memory=memory).eval().requires_grad_(False)
    return Model(operator, Listed(), TiedProcess(), Stationary(space))
