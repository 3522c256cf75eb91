"""Heating processes q: how training gets from data to noise.

    tied     q_T(s_t | s_{t-1}) = p_T(s_t | s_{t-1})      the paper: the operator itself heats the data

The process is a separate component because the bound (eq. 5) holds for any q. Methods with fixed noise (denoising
autoencoders, NET) and infusion training differ from the paper only in q. A process also determines how a path is drawn:
step by step, in jumps if q(s_t | s_0) is known in closed form, or down from the prior.
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
from walkback.priors import Prior
from walkback.schedules import Level, Levels
from walkback.state import State
from walkback.walk import Start, Transition, walk


class Process(nn.Module, ABC):
    """Abstract source of the paths that an operator learns from, built as `cls(**options)`.

    Parameters and buffers are saved in the checkpoint, and averaged like those of the operator. Parameters are trained
    only by objectives that differentiate the whole walk; a local objective treats q as a constant. A process that
    sets buffers from the data also derives from `walkback.operators.DataAware`. A process with a kernel for each single
    step derives from `Stepwise`, which path objectives and heating persistent chains require. Bounds require `Stepwise`
    or `Bridged`.
    """

    @property
    @abstractmethod
    def max_temperature(self) -> float | None:
        """T_max, the temperature at which a step of q forgets the state; None to use the operator's."""

    @abstractmethod
    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Draw a path for each row of `start` and yield its transitions.

        Every process guarantees the following:

        - Each transition holds two neighboring states of a path, with the colder one as source. Both have B rows in
          the order of `start` and of its context, and are detached. `level` is the level of the hotter state, with one
          temperature per row if rows are at different levels.
        - `reverse` is p_T(· | target, context) with its graph. It is computed when the transition is requested, so
          weights may change between two transitions. `forward` is q_T(· | source, context); its graph may be freed.
        - There are K transitions, as many as `levels`, unless the process is `Abridged`.
        - A level that all rows share is an element of `levels` itself. s_K is the target at `levels[-1]`, and the
          prior observes it; where s_K was drawn from the prior, its level is a copy. Whether a path contains s_K is
          not random, so all ranks of a distributed run agree on it.

        Transitions need not be consecutive: levels may be missing or out of order, and a target need not be the next
        source. A path need not begin at s_0, and `forward` need not have drawn the target. Callers that need the whole
        path from s_0 to s_K require a `Stepwise` process and use `walk`.

        Args:
            operator: The operator, already in the mode and with the weights to use.
            start: s_0, with its anchor, context and prior.
            levels: T_1 … T_K, coldest first.
            generator: The only source of randomness.
        """


class Stepwise(ABC):
    """Capability of a process: it defines q one step at a time."""

    @abstractmethod
    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """Return q_{T_t}(· | s_{t-1}).

        Args:
            conditional: The operator's output at the source.
            source: s_{t-1}, `(B, *E)`.
            level: Level t.
            origin: s_0, `(B, *E)`, for processes whose steps depend on the start of the path.

        Raises:
            ConfigurationError: The process does not support this operator.
        """


class Jumping(ABC):
    """Capability of a process: its noise does not depend on the operator, and has closed forms (`walkback.noising`).

    Training can then draw any level in one jump, and terms of the bound are exact divergences.
    """

    @abstractmethod
    def marginal(self, origin: State, level: Level) -> Kernel:
        """Return q(s_t | s_0) at s_0 `(B, *E)`."""

    @abstractmethod
    def posterior(self, target: State, level: Level, origin: State) -> Kernel:
        """Return q(s_{t-1} | s_t, s_0) at s_t `(B, *E)`; at the first level, a kernel concentrated at s_0."""


class Bridged(ABC):
    """Capability of a process: it defines paths given their start from the hot end down.

    q(s_1 … s_K | s_0) = q(s_K | s_0) Π_{t=2}^K q(s_{t-1} | s_t, s_0)
    """

    @abstractmethod
    def end(self, origin: State, level: Level, prior: Prior) -> Kernel:
        """Return q(s_K | s_0) at s_0 `(B, *E)`; `level` is the last one."""

    @abstractmethod
    def bridge(
        self, conditional: Conditional, target: State, level: Level, origin: State, last: Level
    ) -> Kernel:
        """Return q(s_{t-1} | s_t, s_0) for t > 1.

        Args:
            conditional: The operator's output at the target.
            target: s_t, `(B, *E)`.
            level: Level t.
            origin: s_0, `(B, *E)`.
            last: Level K, for paths that depend on the way already walked.
        """


class Reconstructing(ABC):
    """Capability of a process: operators learn from it to return to s_0 in one step, p_T(s_0 | s_t).

    A step of its chain corrupts the state and reconstructs it, as in denoising autoencoders.
    """

    @abstractmethod
    def corruption(self, origin: State, level: Level) -> Kernel:
        """Return q(s_t | s_0) at s_0 `(B, *E)`."""


class Abridged(ABC):
    """Capability of a process: a path to learn from may have fewer transitions than levels."""

    @abstractmethod
    def num_transitions(self, levels: Levels) -> int:
        """Return the number of transitions of a path."""


class OperatorAware(ABC):
    """Capability of a process: it sets buffers from the operator before training."""

    @abstractmethod
    def fit_operator(self, operator: TransitionOperator) -> None:
        """Set buffers; called once, on a new instance, after operator and process were fitted to data.

        Raises:
            ConfigurationError: The process does not support this operator.
        """


class StepwiseProcess(Process, Stepwise):
    """A process whose paths are walks from data, step by step."""

    @final
    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Walk through all levels in order, with K + 1 runs of the network."""
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


def without_bound(process: Process) -> bool:
    """Return whether the likelihood has no bound: operators learn to reconstruct, and no path has a density."""
    return isinstance(process, Reconstructing) and not isinstance(process, Stepwise | Bridged)


def num_transitions(process: Process, levels: Levels) -> int:
    """Return the number of transitions that a path to learn from has."""
    return process.num_transitions(levels) if isinstance(process, Abridged) else len(levels)


def require_stepwise(process: Process, what: str) -> Stepwise:
    """Return the process as `Stepwise`.

    Args:
        process: The process of a model.
        what: The feature that needs single steps, for the error message, e.g. "a walk".

    Raises:
        ConfigurationError: The process is not `Stepwise`.
    """
    if not isinstance(process, Stepwise):
        raise ConfigurationError(
            f"Got the process {type(process).__name__}, whose paths are not told step by step, but {what} needs "
            "q_T(s_t | s_{t-1}) of every step: choose another process, as process.name = 'tied'."
        )
    return process
