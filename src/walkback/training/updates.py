"""How a walk is differentiated, and when the weights move.

    online    one update after every step, from loss_t
    batch     one update a walk, from mean_t loss_t
    stacked   the same update, from one forward over the K·B rows
    path      one update a walk, from the gradient of (1/K) of its path objective through all of its states

loss_t is the objective's mean over the rows. Losses are divided by the number of dimensions D before the backward
pass, so that gradient clipping means the same for digits and for faces. A path objective, a sum over the walk, is
divided by K as well, as the mean over steps is: rates and clipping that suit batch updates are of the size for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.kernels import StackedKernel
from walkback.model import Model
from walkback.objectives import AnyObjective, Objective, PathObjective
from walkback.schedules import Levels, stack_levels
from walkback.state import State, batch_size, concatenate, concatenate_contexts, device_of
from walkback.training.paths import path_loss
from walkback.walk import Start, Transition

Apply: TypeAlias = Callable[[Tensor], None]
"""Moves the weights by the gradients that are there; given the loss, a scalar, which must be finite."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a path leaves.

    Attributes:
        loss: Nats per step and example, a scalar on the device.
        final_state: s_K, `(B, *E)`; None where the path has not come to the last level.
    """

    loss: Tensor
    final_state: State | None


class Updates(ABC):
    """A way to learn from one path."""

    @abstractmethod
    def learn(self, start: Start, levels: Levels, noise: torch.Generator, apply: Apply) -> Learned:
        """Draw a path from `start` through `levels`, and have `apply` move the weights."""


def _steps(
    model: Model,
    objective: Objective,
    start: Start,
    levels: Levels,
    noise: torch.Generator,
    dimensions: int,
    share: int,
) -> Iterator[tuple[Tensor, State | None]]:
    """Draw a path, and differentiate loss_t / D / share when step t is there: yields loss_t, and s_K at its step."""
    for transition in model.path(start, levels, noise):
        loss = objective(transition).mean()
        (loss / dimensions / share).backward()  # type: ignore[no-untyped-call]
        yield loss.detach(), _final_state(transition, levels)


def _final_state(transition: Transition, levels: Levels) -> State | None:
    """s_K if this is the step to it."""
    return transition.target if transition.level is levels[-1] else None


@final
class OnlineUpdates(Updates):
    """One update after every step; the next step is drawn from the output of just before it.

    Args:
        model: The model in training.
        objective: The loss of one step.
        dimensions: D.
    """

    def __init__(self, model: Model, objective: Objective, dimensions: int) -> None:
        self._model = model
        self._objective = objective
        self._dimensions = dimensions

    def learn(self, start: Start, levels: Levels, noise: torch.Generator, apply: Apply) -> Learned:
        """K updates."""
        total = torch.zeros((), device=device_of(start.state))
        final_state = None
        for loss, state in _steps(self._model, self._objective, start, levels, noise, self._dimensions, 1):
            total += loss
            final_state = state if state is not None else final_state
            apply(loss)
        return Learned(total / len(levels), final_state)


@final
class BatchUpdates(Updates):
    """One update from the gradients of all steps, each of which is differentiated as soon as it is there.

    Args:
        model: The model in training.
        objective: The loss of one step.
        dimensions: D.
    """

    def __init__(self, model: Model, objective: Objective, dimensions: int) -> None:
        self._model = model
        self._objective = objective
        self._dimensions = dimensions

    def learn(self, start: Start, levels: Levels, noise: torch.Generator, apply: Apply) -> Learned:
        """One update, with the memory of one step."""
        total = torch.zeros((), device=device_of(start.state))
        final_state = None
        share = len(levels)
        for loss, state in _steps(
            self._model, self._objective, start, levels, noise, self._dimensions, share
        ):
            total += loss
            final_state = state if state is not None else final_state
        apply(total)
        return Learned(total / len(levels), final_state)


@final
class StackedUpdates(Updates):
    """The path without a graph, then one forward over its K·B rows.

    Args:
        model: The model in training; its operator accepts rows at different levels.
        objective: The loss of one step.
        dimensions: D.
    """

    def __init__(self, model: Model, objective: Objective, dimensions: int) -> None:
        self._model = model
        self._objective = objective
        self._dimensions = dimensions

    def learn(self, start: Start, levels: Levels, noise: torch.Generator, apply: Apply) -> Learned:
        """One update, with the memory of the whole walk."""
        operator = self._model.operator
        with torch.no_grad():
            steps = list(self._model.path(start, levels, noise))
        rows = batch_size(start.state)
        target = concatenate([step.target for step in steps])
        context = concatenate_contexts([start.context] * len(steps))
        level = stack_levels(tuple(step.level for step in steps), rows, device_of(start.state))
        stacked = Transition(
            source=concatenate([step.source for step in steps]),
            target=target,
            level=level,
            forward=StackedKernel([step.forward for step in steps], rows),
            reverse=operator(target, level, context).cooling(level),
            anchor=concatenate([start.state if start.anchor is None else start.anchor] * len(steps)),
            context=context,
        )
        loss = self._objective(stacked).mean()
        (loss / self._dimensions).backward()  # type: ignore[no-untyped-call]
        apply(loss.detach())
        ends = [step.target for step in steps if step.level is levels[-1]]
        return Learned(loss.detach(), ends[-1] if ends else None)


@final
class PathUpdates(Updates):
    """One update from the gradient through the whole walk, in the parameters of process and prior as well.

    Args:
        model: The model in training.
        objective: The loss of a walk.
        dimensions: D.
    """

    def __init__(self, model: Model, objective: PathObjective, dimensions: int) -> None:
        self._model = model
        self._objective = objective
        self._dimensions = dimensions

    def learn(self, start: Start, levels: Levels, noise: torch.Generator, apply: Apply) -> Learned:
        """One update, with the memory of the whole walk unless the objective computes steps again."""
        losses, final_state = path_loss(self._model, self._objective, start, levels, noise)
        loss = losses.mean() / len(levels)
        (loss / self._dimensions).backward()  # type: ignore[no-untyped-call]
        apply(loss.detach())
        return Learned(loss.detach(), final_state)


def require_fitting(settings: TrainingSettings, objective: AnyObjective) -> None:
    """Refuse ways to train that an objective has not got.

    Raises:
        ConfigurationError: An objective of whole walks is to make more than one update of a walk, or to judge walks
            that do not start from data.
    """
    if not isinstance(objective, PathObjective):
        return
    name = type(objective).__name__
    if settings.updates != "batch":
        raise ConfigurationError(
            f"Got training.updates = '{settings.updates}' with {name}, an objective of whole walks, expected 'batch': "
            "each state depends on the one before, so a walk has one gradient, for one update."
        )
    if settings.chains.share:
        raise ConfigurationError(
            f"Got training.chains.share = {settings.chains.share} with {name}, an objective of whole walks, expected "
            "0: it would raise the likelihood of the model's own states."
        )


def updates_for(
    settings: TrainingSettings, objective: AnyObjective, model: Model, dimensions: int
) -> Updates:
    """The way to learn that settings and objective ask for; raises as `require_fitting`."""
    require_fitting(settings, objective)
    if isinstance(objective, PathObjective):
        return PathUpdates(model, objective, dimensions)
    match settings.updates:
        case "online":
            return OnlineUpdates(model, objective, dimensions)
        case "batch":
            return BatchUpdates(model, objective, dimensions)
        case "stacked":
            return StackedUpdates(model, objective, dimensions)
