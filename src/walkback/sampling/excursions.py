"""There and back: chains each of whose steps heats j levels and cools them again.

    up       s_0 = s,      s_t ~ q_{T_t}(· | s_{t-1})           t = 1 … j
    back     s'_j = s_j,   s'_{t-1} ~ p_{T_t}(· | s'_t)         t = j … 1        s' = s'_0

at the schedule's fixed levels. Where q(s_j | s_0) is known, the way up is one jump, and where operators learn to return
to s_0 at once, so is the way back: s' ~ p_{T_j}(· | s_j), the chain of a denoising autoencoder.

Law: let π_0 be the law of the data and π_t that of its heated states, and let p be the reverse of q at every level,
π_{t-1}(s) q_{T_t}(y | s) = π_t(y) p_{T_t}(s | y). Then s and s' are independent draws of the same p(s_0 | s_j), and

    π_0(s) P(s' | s) = ∫ π_j(y) p(s | y) p(s' | y) dy

is symmetric in s and s': the chain is in detailed balance with π_0, for any heating process and any j. This also holds
where steps at T = 1 are not a chain of the data, as for a diffusion, whose p removes noise that data do not have. The
covariance of f(s) and f(s') is Var E[f(s_0) | s_j]: never negative, and smaller for larger j (data augmentation; Liu,
Wong and Kong, 1994). If q has forgotten s at level j, s' is a new sample.

A learned p is not exactly that reverse, and the law of the chain is then another one: `walkback diagnose` measures it.

Cost: 2 j runs of the network, at s_0 … s_{j-1} on the way up, and at s'_j … s'_1 on the way back; j after a jump, and 1
where the way back is a jump, too.

Where operators learn to return to s_0 at once, excursions of one level are the plain chain, and samples are cooled by

    x ~ p_{T_K}(· | s_K),   s_K ~ p*,      then  x ← x' ~ p_{T_t}(· | s),   s ~ C_{T_t}(· | x),      t = K - 1 … 1

with C the corruption: p applied to x itself would take it for a corrupted state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import final

import torch

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.known import StepKernel
from walkback.model import Model
from walkback.operators import Conditional, Latent, TransitionOperator
from walkback.processes import Jumping, Process, Reconstructing, require_stepwise
from walkback.sampling.chains import cool, last, steps
from walkback.sampling.wrapped import Compound, Wrapped, WrappedLatent
from walkback.schedules import Level, Levels
from walkback.state import Context, State
from walkback.support.seeding import generator as seeded
from walkback.support.shapes import require_like
from walkback.walk import Start, walk


def there_and_back(model: Model, num_levels: int) -> Model:
    """Return the model with the operator of a chain there and back: each of its steps is one excursion.

    Samples from the prior are cooled as before. Kernels have no density.

    Args:
        model: The model.
        num_levels: j.

    Raises:
        ConfigurationError: There are fewer than j levels, j < 1, or the process cannot heat.
    """
    levels = model.levels()
    if not 1 <= num_levels <= len(levels):
        raise ConfigurationError(
            f"Got an excursion of {num_levels} levels, expected 1 to {len(levels)}, the number of levels of the "
            f"schedule ({type(model.schedule).__name__})."
        )
    _require_heating(model, levels[0])
    kind = _LatentExcursions if isinstance(model.operator, Latent) else _Excursions
    operator = kind(model.operator, model.process, levels[:num_levels])
    return replace(model, operator=operator.train(model.operator.training))


def own_chain(model: Model) -> Model:
    """Return the model whose steps are those of its chain at T = 1: the model, or corruptions and reconstructions.

    Raises:
        ConfigurationError: See `there_and_back`.
    """
    return there_and_back(model, 1) if isinstance(model.process, Reconstructing) else model


@torch.no_grad()
def _require_heating(model: Model, level: Level) -> None:
    """Refuse, before any work, a process that cannot heat, or does not support the operator."""
    with model.evaluating():
        state = model.prior.sample(1, seeded(model.device, 0, "excursion"))
        if _jump(model.process, state, level) is None:
            process = require_stepwise(model.process, "a chain there and back")
            process.heating(model.operator(state, level), state, level, state)


def _jump(process: Process, origin: State, level: Level) -> Kernel | None:
    """Return q(s_j | s_0) at s_0 `(B, *E)`; None if it is not known."""
    if isinstance(process, Reconstructing):
        return process.corruption(origin, level)
    return process.marginal(origin, level) if isinstance(process, Jumping) else None


class _ThereAndBack(Wrapped, Compound):
    """An operator whose step is an excursion.

    Args:
        operator: Operator of single steps.
        process: The heating process.
        levels: Levels 1 … j.
    """

    def __init__(self, operator: TransitionOperator, process: Process, levels: Levels) -> None:
        super().__init__(operator)
        self.process = process
        self.levels = levels

    @property
    @final
    def single(self) -> TransitionOperator:
        """The operator of single steps."""
        return self.operator

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """Return the excursion from `state`; the network runs when it is drawn."""
        return _Excursion(self, state, context)

    @property
    @final
    def runs(self) -> int:
        """Number of runs of the network in one step."""
        if isinstance(self.process, Reconstructing):
            return 1
        return len(self.levels) * (1 if isinstance(self.process, Jumping) else 2)

    @final
    def cool(
        self, state: State, levels: Levels, generator: torch.Generator, context: Context
    ) -> Iterator[State]:
        """Cool by the operator of single steps; corrupt the state before each but the first if it reconstructs."""
        if not isinstance(self.process, Reconstructing):
            yield from cool(self.operator, state, levels, generator, context)
            return
        for number, level in enumerate(reversed(levels)):
            if number:
                state = self.process.corruption(state, level).sample(generator)
            state = last(steps(self.operator, state, (level,), generator, context))
            yield state

    @final
    def heated(self, state: State, level: Level, generator: torch.Generator, context: Context) -> Kernel:
        """Draw s_j at `level`, and return p_{T_j}(· | s_j)."""
        jump = _jump(self.process, state, level)
        if jump is not None:
            top = jump.sample(generator)
            require_like(top, state, jump, self.process)
            reverse: Kernel = self.operator(top, level, context).cooling(level)
            return reverse
        process = require_stepwise(self.process, "a chain there and back")
        way = walk(self.operator, process.heating, Start(state, context=context), self.levels, generator)
        return deque(way, maxlen=1).pop().reverse

    @final
    def cooled(self, kernel: Kernel, like: State, generator: torch.Generator, context: Context) -> State:
        """Draw from `kernel`, p_{T_j}(· | s_j), and return s'_0, a state like `like`."""
        state = kernel.sample(generator)
        require_like(state, like, kernel, self.operator)
        further = () if isinstance(self.process, Reconstructing) else self.levels[:-1]
        for colder in cool(self.operator, state, further, generator, context):
            state = colder
        return state


@final
class _Excursions(_ThereAndBack):
    """Excursions of an operator without latent units."""


@final
class _LatentExcursions(_ThereAndBack, WrappedLatent):
    """Excursions of an operator with latent units."""


@final
class _Excursion(Conditional):
    """An excursion from a state, in either direction of the chain."""

    def __init__(self, operator: _ThereAndBack, state: State, context: Context) -> None:
        self._operator = operator
        self._state = state
        self._context = context

    def cooling(self, level: Level) -> Kernel:
        """Return a step of the chain, which has no density; of one that reconstructs, at any temperature.

        Raises:
            ConfigurationError: The level is not at T = 1, and the operator does not reconstruct.
        """
        cold = not isinstance(level.temperature, float) or level.temperature == 1
        if not cold and isinstance(self._operator.process, Reconstructing):
            return StepKernel(partial(self._draw, level))
        if not cold:
            raise ConfigurationError(
                f"Got temperature {level.temperature:g}, expected 1: a chain there and back has the temperatures of "
                "the schedule."
            )
        return StepKernel(partial(self._draw, self._operator.levels[-1]))

    def heating(self, level: Level) -> Kernel:
        """Return the same kernel: the chain is its own reverse."""
        return self.cooling(level)

    def _draw(self, level: Level, generator: torch.Generator) -> State:
        operator, context = self._operator, self._context
        top = operator.heated(self._state, level, generator, context)
        return operator.cooled(top, self._state, generator, context)
