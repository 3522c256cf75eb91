"""Processes q: how training gets from data to noise.

    tied     q_T(s_t | s_{t-1}) = p_T(s_t | s_{t-1})      the paper: the operator destroys with itself

The process is a seam of its own because the bound (eq. 5) holds for any q: fixed noise (denoising autoencoders, NET)
and walks infused with the data differ from the paper in nothing else. A process owns how a path is drawn, too: one step
after another, or in jumps where q(s_t | s_0) is known, or down from the prior.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

import torch
from torch import nn

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.operators import Conditional, TransitionOperator
from walkback.schedules import Level, Levels
from walkback.state import State
from walkback.walk import Start, Transition, walk


class Process(nn.Module, ABC):
    """The paths that an operator learns from, built as `cls(**options)`.

    Parameters and buffers travel with the checkpoint and are averaged as those of the operator are. Parameters learn
    from objectives that differentiate the whole walk; to a local objective q is a constant. A process that sets
    something from the data also derives from `walkback.operators.DataAware`; one that can tell its kernel of a single
    step from `Stepwise`, which bounds, path objectives and persistent chains that heat ask for.
    """

    @property
    @abstractmethod
    def max_temperature(self) -> float | None:
        """T_max, the temperature at which a step of q forgets the state; None where that is the operator's."""

    @abstractmethod
    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Draw a path for each row of `start` and yield its transitions.

        Who consumes them may rely on this much:

        - Each holds two neighbouring states of a path, the colder one as source, B rows each, detached, in the order of
          `start`, whose context goes with them; `level` is that of the hotter one, with one temperature a row where
          rows are at different levels.
        - `reverse` is p_T(· | target, context) of the operator as it is when the transition is asked for, with its
          graph, so that weights may move between two transitions. `forward` is q_T(· | source, context); it may have no
          graph any more.
        - There are K of them, as many as `levels`.
        - A level that all rows share is an element of `levels` itself. s_K is the target at `levels[-1]`; whether there
          is one does not depend on chance, so that all ranks of a distributed run agree on it.

        Transitions need not follow one another: not every level must come up, nor in order, and a target need not be
        the next one's source. Nor need a path begin at s_0, or `forward` have drawn the target. Who needs the whole
        path from s_0 to s_K asks for a `Stepwise` process and takes `walk`.

        Args:
            operator: The operator, in the mode and with the weights that it is to be used with.
            start: s_0 and what goes with it.
            levels: T_1 … T_K, coldest first.
            generator: The only source of randomness.
        """


class Stepwise(ABC):
    """Capability of a process: it tells q one step at a time."""

    @abstractmethod
    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """q_{T_t}(· | s_{t-1}).

        Args:
            conditional: The operator at the source.
            source: s_{t-1}, `(B, *E)`.
            level: Level t.
            origin: s_0, `(B, *E)`, for walks that keep looking at where they came from.

        Raises:
            ConfigurationError: Such an operator cannot be heated.
        """


class StepwiseProcess(Process, Stepwise):
    """A process whose paths are walks from data, step by step."""

    @final
    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """The walk: all levels in order, K + 1 runs of the network."""
        return walk(operator, self.heating, start, levels, generator)


@final
class TiedProcess(StepwiseProcess):
    """The operator's own heating kernel (Algorithm 1)."""

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """The kernel that the operator offers for heating at this level."""
        return conditional.heating(level)


def require_stepwise(process: Process, what: str) -> Stepwise:
    """The process as one that tells its single steps.

    Args:
        process: Of a model.
        what: Who needs them, in words that begin a clause.

    Raises:
        ConfigurationError: It does not.
    """
    if not isinstance(process, Stepwise):
        raise ConfigurationError(
            f"Got the process {type(process).__name__}, whose paths are not told step by step, but {what} needs "
            "q_T(s_t | s_{t-1}) of every step: choose another process, as process.name = 'tied'."
        )
    return process
