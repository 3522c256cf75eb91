"""Inpainting there and back: the kept part of each state has the noise of its level (RePaint, Lugmayr et al. 2022).

    back    s_{t-1} ~ p_{T_t}(· | s_t),  and its kept part ~ q(s_{t-1} | s_0 = known)         t = K … 1
    there   s_t ~ q_{T_t}(· | s_{t-1})                                                        t up by J

Annealing goes J levels up again, and back, `times` times at every J-th level; each extra step is an excursion from s_0,
J levels up and back. Where q(s_t | s_0) is not known, the kept part of every state is the known part itself.

Law: each step draws the missing part given the kept part of s_t, a noisy one, before that is replaced. A single pass is
therefore biased: it has not yet seen what it must fit to. Excursions repeat the steps with new noise in the kept part.
What they converge to is still not p(missing | known) where noise is large, but the error is of the order of the noise's
variance at level J: low excursions remove it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.model import Model
from walkback.operators import Conditional, TransitionOperator
from walkback.processes import Jumping, Reconstructing, require_stepwise
from walkback.schedules import Level, Levels
from walkback.state import Context, State
from walkback.support.shapes import require_like

Place: TypeAlias = Callable[[State, Tensor], State]
"""A state `(B, *E)`, values `(B, *E)` → the state with its kept part set to these values."""


@final
@dataclass(frozen=True, slots=True)
class Returns:
    """How annealing returns to hotter levels.

    Attributes:
        levels: J.
        times: How often it goes up again from each J-th level.
    """

    levels: int = 1
    times: int = 0

    def moves(self, num_levels: int, extra: int) -> Iterator[int]:
        """Yield the number t of the level of each step, negative on the way up, for annealing and `extra` excursions.

        >>> list(Returns(2, 1).moves(4, 1))
        [4, 3, 2, 1, -1, -2, 2, 1, -1, -2, 2, 1]
        """
        left = dict.fromkeys(range(0, num_levels - self.levels, self.levels), self.times)
        place = num_levels
        while place:
            yield place
            place -= 1
            if left.get(place, 0):
                left[place] -= 1
                yield from range(-place - 1, -place - self.levels - 1, -1)
                place += self.levels
        for _ in range(extra):
            yield from range(-1, -self.levels - 1, -1)
            yield from range(self.levels, 0, -1)


def returns_of(model: Model, excursion: int | None, times: int) -> Returns | None:
    """Return how inpainting by a model returns; None if every step is at the next level, with the known part itself.

    Args:
        model: The model.
        excursion: J; None takes 1 where noise is known, whose steps at T = 1 are not a chain of data.
        times: See `Returns`.

    Raises:
        ConfigurationError: There are fewer than J levels, or the process reconstructs, or cannot heat.
    """
    if excursion is None and not times:
        return Returns() if isinstance(model.process, Jumping) else None
    if isinstance(model.process, Reconstructing):
        raise ConfigurationError(
            f"Got an excursion or returns with {type(model.process).__name__}, each of whose steps corrupts and "
            "reconstructs already: leave them out."
        )
    found, count = Returns(excursion or 1, times), len(model.levels())
    if not 1 <= found.levels <= count:
        raise ConfigurationError(
            f"Got an excursion of {found.levels} levels, expected 1 to {count}, the number of levels of the schedule."
        )
    require_stepwise(model.process, "inpainting there and back")
    return found


@torch.no_grad()
def repaint(
    model: Model,
    known: Tensor,
    place: Place,
    generator: torch.Generator,
    context: Context,
    *,
    returns: Returns,
    annealed: bool,
    extra: int,
) -> Iterator[State]:
    """Yield the first state and that after each move, see `Returns.moves`.

    Args:
        model: The model in evaluation mode.
        known: Data `(B, *E)`.
        place: Sets the kept part.
        generator: The only source of randomness.
        context: Context that rows are conditioned on.
        returns: How to return.
        annealed: Whether to cool from the prior, else to start at s_0 from the known part and noise.
        extra: Number of excursions.
    """
    levels, process = model.levels(), require_stepwise(model.process, "inpainting there and back")
    jumping = process if isinstance(process, Jumping) else None

    def keep(state: State, number: int) -> State:
        if jumping is None or number == 0:
            return place(state, known)
        return place(state, _drawn(jumping.marginal(known, levels[number - 1]), generator))

    state = keep(model.prior.sample(len(known), generator), len(levels) if annealed else 0)
    yield state
    for move in returns.moves(len(levels) if annealed else 0, extra):
        level = levels[abs(move) - 1]
        seen = _Later(model.operator, state, level, context)
        kernel = seen.cooling(level) if move > 0 else process.heating(seen, state, level, state)
        target = kernel.sample(generator)
        require_like(target, state, kernel, process, model.operator)
        state = keep(target, move - 1 if move > 0 else -move)
        yield state


def _drawn(kernel: Kernel, generator: torch.Generator) -> Tensor:
    drawn = kernel.sample(generator)
    if not isinstance(drawn, Tensor):
        raise TypeError("Got several tensors, expected the one that data are.")
    return drawn


@final
class _Later(Conditional):
    """The operator's output at a state; the network runs when a kernel is asked for, which known noise does not do."""

    def __init__(self, operator: TransitionOperator, state: State, level: Level, context: Context) -> None:
        self._arguments = operator, state, level, context

    def cooling(self, level: Level) -> Kernel:
        """Return p_T(· | s)."""
        operator, *arguments = self._arguments
        kernel: Kernel = operator(*arguments).cooling(level)
        return kernel

    def heating(self, level: Level) -> Kernel:
        """Return the operator's heating kernel."""
        operator, *arguments = self._arguments
        kernel: Kernel = operator(*arguments).heating(level)
        return kernel


def levels_of_moves(levels: Levels, moves: Iterator[int]) -> Levels:
    """Return the level of each move."""
    return tuple(levels[abs(move) - 1] for move in moves)
