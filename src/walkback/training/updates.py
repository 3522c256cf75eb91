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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.kernels import StackedKernel
from walkback.model import Model
from walkback.objectives import AnyObjective, Objective, PathObjective
from walkback.schedules import Levels
from walkback.state import State, batch_size, concatenate, concatenate_contexts, device_of
from walkback.training.finite import Trail
from walkback.training.levels import stack_levels
from walkback.training.paths import path_loss
from walkback.walk import Start, Transition

Apply: TypeAlias = Callable[[Trail], None]
"""Moves the weights by the current gradients; given the numbers of the steps behind them, which must be finite."""


@dataclass(frozen=True, slots=True)
class Path:
    """A path to learn from, not drawn yet.

    Attributes:
        start: Where it starts.
        levels: Its K levels.
        noise: Source of its randomness.
    """

    start: Start
    levels: Levels
    noise: torch.Generator


@dataclass(frozen=True, slots=True)
class Learned:
    """What a path leaves.

    Attributes:
        loss: Nats per step and example, a scalar on the device.
        final_state: s_K, `(B, *E)`; None if the path does not reach the last level.
    """

    loss: Tensor
    final_state: State | None


Learn: TypeAlias = Callable[[Path, Apply], Learned]
"""Draws a path, differentiates its losses, and has `Apply` move the weights."""


def updates_for(settings: TrainingSettings, objective: AnyObjective, model: Model, dimensions: int) -> Learn:
    """Return the way to learn that settings and objective ask for.

    Args:
        settings: Say which updates.
        objective: The loss of one step, or of a whole walk.
        model: The model in training.
        dimensions: D.

    Raises:
        ConfigurationError: See `require_fitting`.
    """
    require_fitting(settings, objective)
    if isinstance(objective, PathObjective):
        return partial(_learn_path, model, objective, dimensions)
    if settings.updates == "stacked":
        return partial(_learn_stacked, model, objective, dimensions)
    return partial(_learn_steps, model, objective, dimensions, settings.updates == "online")


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


def _learn_steps(
    model: Model, objective: Objective, dimensions: int, online: bool, path: Path, apply: Apply
) -> Learned:
    """Online and batch updates: each step is differentiated as soon as it is drawn, with the memory of one step.

    After an online update the next state is still drawn from the output at s_t that the old weights computed, but
    its loss is that of the new weights; see `walk`.
    """
    count = len(path.levels)
    share = 1 if online else count
    total = torch.zeros((), device=device_of(path.start.state))
    trail = Trail(path.start.state, count)
    final_state = None
    for transition in model.path(path.start, path.levels, path.noise):
        loss = objective(transition).mean()
        (loss / dimensions / share).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        trail.add(transition.level, transition.target, loss)
        if transition.level is path.levels[-1]:
            final_state = transition.target
        if online:
            apply(trail)
            trail = trail.following()
    if not online:
        apply(trail)
    return Learned(total / count, final_state)


def _learn_stacked(model: Model, objective: Objective, dimensions: int, path: Path, apply: Apply) -> Learned:
    """One update, with the memory of the whole walk: the path without a graph, then one forward over its K·B rows.

    The model's operator accepts rows at different levels.
    """
    start = path.start
    with torch.no_grad():
        steps = list(model.path(start, path.levels, path.noise))
    rows = batch_size(start.state)
    target = concatenate([step.target for step in steps])
    context = concatenate_contexts([start.context] * len(steps))
    level = stack_levels(tuple(step.level for step in steps), rows, device_of(start.state))
    stacked = Transition(
        source=concatenate([step.source for step in steps]),
        target=target,
        level=level,
        # The kernels that the states were drawn from are constants: only the way back is learned.
        forward=StackedKernel([step.forward for step in steps], rows),
        reverse=model.operator(target, level, context).cooling(level),
        anchor=concatenate([start.state if start.anchor is None else start.anchor] * len(steps)),
        context=context,
    )
    losses = objective(stacked)
    loss = losses.mean()
    (loss / dimensions).backward()  # type: ignore[no-untyped-call]
    trail = Trail(start.state, len(path.levels))
    for step, part in zip(steps, torch.split(losses.detach(), rows), strict=True):
        trail.add(step.level, step.target, part.mean())
    apply(trail)
    ends = [step.target for step in steps if step.level is path.levels[-1]]
    return Learned(loss.detach(), ends[-1] if ends else None)


def _learn_path(model: Model, objective: PathObjective, dimensions: int, path: Path, apply: Apply) -> Learned:
    """One update from the gradient through the whole walk, in the parameters of process and prior as well.

    Takes the memory of the whole walk unless the objective computes steps again.
    """
    trail = Trail(path.start.state, len(path.levels))
    losses, final_state = path_loss(model, objective, path.start, path.levels, path.noise, trail.add)
    loss = losses.mean() / len(path.levels)
    (loss / dimensions).backward()  # type: ignore[no-untyped-call]
    apply(trail)
    return Learned(loss.detach(), final_state)
