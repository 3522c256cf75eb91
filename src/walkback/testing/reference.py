"""Exactly known parts to check others against: a reversible model, and data drawn from its stationary distribution.

real      s' = m + a (s - m) + √(1 - a²) σ √T ε     at T = 1 in detailed balance with N(m, σ²)
binary    logit ρ = c (2 s - 1) / T                 flips of equal probability: in detailed balance with fair coins

A class label k adds 0.3 k to m, or to the logits of bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from walkback.data import SPLITS, DataInfo, Dataset, Split
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel, bernoulli_at, normal_at
from walkback.model import Model
from walkback.operators import ClassConditional, Conditional, Noisy, TransitionOperator
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
    """The operator above; its parameter `memory` is a or c.

    Args:
        space: Space of one tensor.
        memory: a or c; None takes the default, nan makes every kernel nan.
    """

    def __init__(self, space: Space, *, memory: float | None = None) -> None:
        super().__init__()
        self.space = space
        usual = CORRELATION if space.support == "real" else _LOGIT
        self.memory = nn.Parameter(torch.tensor(usual if memory is None else memory))

    @property
    def max_temperature(self) -> float:
        """Temperature at which a step forgets the state: 1 / (1 - a²) ≈ 2."""
        return 2.0

    @property
    def num_classes(self) -> int:
        """Number of classes of the space."""
        return self.space.classes

    def forward(self, state: State, level: Level, context: Context = None) -> ReversibleConditional:
        """Return the conditional at a state; there is no network to run."""
        (x,) = leaves(state)
        shift: Tensor | float = 0.0
        if context is not None:
            (label,) = leaves(context)
            shift = _SHIFT * label.clamp(min=0).to(x).reshape(-1, *(1,) * (x.dim() - 1))
        return ReversibleConditional(x, self.memory, self.space, shift)


@final
class NoisyReversible(TransitionOperator, ClassConditional, Noisy):
    """`Reversible` on real states, of which the size of the noise is known.

    Args:
        space: Space of one real tensor.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.operator = Reversible(space)

    @property
    def max_temperature(self) -> float:
        """That of `Reversible`."""
        return self.operator.max_temperature

    @property
    def num_classes(self) -> int:
        """Number of classes of the space."""
        return self.operator.num_classes

    def noise(self, level: Level) -> Tensor:
        """Return the variance (1 - a²) σ² T."""
        memory = self.operator.memory.detach()
        return (1 - memory.square()) * DEVIATION**2 * level.temperature_like(memory.reshape(1))

    def forward(self, state: State, level: Level, context: Context = None) -> ReversibleConditional:
        """Return the conditional of `Reversible`."""
        return self.operator.forward(state, level, context)


@final
class ReversibleConditional(Conditional):
    """The kernel at a state, the same in both directions."""

    def __init__(self, state: Tensor, memory: Tensor, space: Space, shift: Tensor | float = 0.0) -> None:
        self._state = state
        self._memory = memory
        self._space = space
        self._shift = shift

    def cooling(self, level: Level) -> Kernel:
        """Return the kernel of the module's equations."""
        if self._space.support == "binary":
            return bernoulli_at(self._memory * (2 * self._state - 1) + self._shift, level)
        variance = ((1 - self._memory.square()) * DEVIATION**2).expand(self._space.shape)
        mean = MEAN + self._shift
        return normal_at(mean + self._memory * (self._state - mean), variance, level)

    def heating(self, level: Level) -> Kernel:
        """Return the cooling kernel: both directions are equal."""
        return self.cooling(level)


@final
class Stationary(Prior):
    """The distribution that `Reversible` is in detailed balance with."""

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
        """Return log-densities `(B,)`, in nats."""
        return self._kernel(len(leaves(state)[0])).log_prob(state)

    def sample(self, num: int, generator: torch.Generator) -> State:
        """Return samples `(num, *E)`."""
        return self._kernel(num).sample(generator)

    def fit(self, state: State) -> None:
        """Do nothing: the distribution is known."""

    def observe(self, state: State) -> None:
        """Do nothing: the distribution is known."""


@final
class Listed(Schedule):
    """The temperatures 1, 1, 1."""

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """Return T = 1, 1, 1, whatever the arguments."""
        return levels_from([1.0] * 3)

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Return `num_steps` levels at T = 1."""
        return levels_from([1.0] * num_steps)


@final
class Drawn(Dataset):
    """Independent states drawn from `Stationary`."""

    def __init__(self, space: Space, num: int = 1024) -> None:
        self._space = space
        self._num = num

    def prepare(self) -> None:
        """Do nothing: states are drawn on request."""

    @property
    def info(self) -> DataInfo:
        """Description of the data, real or binary."""
        splits = {str(split): self._num for split in SPLITS}
        return DataInfo("drawn", self._space.shape, self._space.support, splits=splits, fingerprint="drawn")

    def examples(self, split: Split) -> Tensor:
        """Return examples `(num, *E)`, drawn from a separate random stream for each split."""
        found = Stationary(self._space).sample(self._num, generator("cpu", 0, split))
        return leaves(found)[0]

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the rows unchanged, on the device of the generator."""
        return rows.to(generator.device)


def reference_walk(
    operator: TransitionOperator,
    heating: Heating,
    start: Start,
    levels: Levels,
    generator: torch.Generator,
) -> Iterator[Transition]:
    """Walk literally as in Algorithm 1, running the network twice per step (2 K runs), to check `walk` against."""
    source = start.state
    anchor = start.state if start.anchor is None else start.anchor
    for level in levels:
        forward = heating(operator(source, level, start.context), source, level, start.state)
        target = forward.sample(generator)
        reverse = operator(target, level, start.context).cooling(level)
        yield Transition(source, target, level, forward, reverse, anchor, start.context)
        source = target


def reversible_model(space: Space, memory: float | None = None) -> Model:
    """Return a model whose every figure is known: in detailed balance, stationary from the start."""
    operator = Reversible(space, memory=memory).eval().requires_grad_(False)
    return Model(operator, Listed(), TiedProcess(), Stationary(space))
