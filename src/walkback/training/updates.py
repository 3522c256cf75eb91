"""How walks are differentiated, and when weights are updated.

    online    one update after every step, from loss_t
    batch     one update per walk, from mean_t loss_t
    stacked   the same update, from one forward pass over K·B rows
    path      one update per walk, from the gradient of the path objective divided by K, through all states

loss_t is the objective's mean over the rows. Losses are divided by the number of dimensions D before the backward pass,
so that gradient clipping has the same meaning for all data. A path objective, which is a sum over the walk, is also
divided by K, like the mean over steps: the same learning rates and clipping norms suit both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError, WalkbackError
from walkback.kernels import stacked
from walkback.levels import stack_levels
from walkback.model import Model
from walkback.objectives import AnyObjective, Objective, PathObjective
from walkback.processes import num_transitions
from walkback.schedules import Levels
from walkback.state import State, batch_size, concatenate, concatenate_contexts, device_of
from walkback.training.engines import Alone, Engine
from walkback.training.finite import Trail
from walkback.training.paths import path_loss
from walkback.walk import Start, Transition

Apply: TypeAlias = Callable[[Trail], None]
"""Updates the weights with the current gradients; checks that the numbers in the given trail are finite."""


@dataclass(frozen=True, slots=True)
class Path:
    """A path to learn from, before it is drawn.

    Attributes:
        start: Its start.
        levels: Its K levels.
        noise: Generator of its randomness.
    """

    start: Start
    levels: Levels
    noise: torch.Generator


@dataclass(frozen=True, slots=True)
class Learned:
    """The result of learning from a path.

    Attributes:
        loss: Loss in nats per step and example, a scalar on the device.
        final_state: s_K, `(B, *E)`; None if the path does not reach the last level.
    """

    loss: Tensor
    final_state: State | None


Learn: TypeAlias = Callable[[Path, Apply], Learned]
"""Draws a path, differentiates its losses, and calls `Apply` to update the weights."""


def updates_for(
    settings: TrainingSettings,
    objective: AnyObjective,
    model: Model,
    dimensions: int,
    engine: Engine | None = None,
) -> Learn:
    """Return the function that learns from a path, as determined by settings and objective.

    Args:
        settings: Settings with the kind of updates.
        objective: Loss of one step, or of a whole walk.
        model: The model in training.
        dimensions: Number of dimensions, D.
        engine: Averages gradients over processes; None for a single process.

    Raises:
        ConfigurationError: See `require_fitting`.
    """
    require_fitting(settings, objective)
    engine = engine or Alone()
    if isinstance(objective, PathObjective):
        return partial(_learn_path, model, objective, dimensions, engine)
    if settings.updates == "stacked":
        return partial(_learn_stacked, model, objective, dimensions, engine)
    return partial(_learn_steps, model, objective, dimensions, engine, settings.updates == "online")


def trained_besides(model: Model, objective: AnyObjective) -> list[nn.Module]:
    """Return the modules that are trained besides the operator."""
    # Only the gradient through a whole walk reaches parameters of the prior and of the process.
    return [model.prior, model.process] if isinstance(objective, PathObjective) else []


def require_fitting(settings: TrainingSettings, objective: AnyObjective) -> None:
    """Check that an objective supports the settings.

    Raises:
        ConfigurationError: An objective of whole walks is used with more than one update per walk, or with walks that
            do not start from data.
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
    model: Model,
    objective: Objective,
    dimensions: int,
    engine: Engine,
    online: bool,
    path: Path,
    apply: Apply,
) -> Learned:
    """Make online or batch updates: differentiate each step as soon as it is drawn, with the memory of one step.

    After an online update, the next state is still drawn from the output at s_t computed with the old weights, but its
    loss uses the new weights; see `walk`.
    """
    count = num_transitions(model.process, path.levels)
    share = 1 if online else count
    total = torch.zeros((), device=device_of(path.start.state))
    trail = Trail(path.start.state, count)
    final_state = None
    transitions = model.path(path.start, path.levels, path.noise)
    for number in range(count):
        with engine.averaging(online or number == count - 1):
            loss, transition = engine(_step_loss, objective, transitions)
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


def _step_loss(objective: Objective, transitions: Iterator[Transition]) -> tuple[Tensor, Transition]:
    """Draw the next step and return its mean loss, nats."""
    transition = next(transitions, None)
    if transition is None:
        raise WalkbackError(
            "Got fewer transitions from the process than it announced, expected one for each level, or as many as its "
            "`num_transitions` says."
        )
    return objective(transition).mean(), transition


def _learn_stacked(
    model: Model, objective: Objective, dimensions: int, engine: Engine, path: Path, apply: Apply
) -> Learned:
    """Make one update with the memory of the whole walk: draw the path without a graph, then run its K·B rows at once.

    The operator must accept rows at different levels.
    """
    with torch.no_grad():
        steps: list[Transition] = engine(list, model.path(path.start, path.levels, path.noise))
    losses = engine(_stacked_losses, model, objective, path.start, steps)
    loss = losses.mean()
    (loss / dimensions).backward()  # type: ignore[no-untyped-call]
    trail = Trail(path.start.state, len(steps))
    rows = batch_size(path.start.state)
    for step, part in zip(steps, torch.split(losses.detach(), rows), strict=True):
        trail.add(step.level, step.target, part.mean())
    apply(trail)
    ends = [step.target for step in steps if step.level is path.levels[-1]]
    return Learned(loss.detach(), ends[-1] if ends else None)


def _stacked_losses(model: Model, objective: Objective, start: Start, steps: Sequence[Transition]) -> Tensor:
    """Return the losses of all steps from one forward pass, `(K·B,)`, nats."""
    rows = batch_size(start.state)
    target = concatenate([step.target for step in steps])
    context = concatenate_contexts([start.context] * len(steps))
    level = stack_levels(tuple(step.level for step in steps), rows, device_of(start.state))
    known = [step.posterior for step in steps if step.posterior is not None]
    together = Transition(
        source=concatenate([step.source for step in steps]),
        target=target,
        level=level,
        # The kernels that the states were drawn from are constants: only the reverse kernels are learned.
        forward=stacked([step.forward for step in steps], rows),
        reverse=model.operator(target, level, context).cooling(level),
        anchor=concatenate([start.state if start.anchor is None else start.anchor] * len(steps)),
        context=context,
        posterior=stacked(known, rows) if len(known) == len(steps) else None,
        noise=steps[0].noise,
    )
    return objective(together)


def _learn_path(
    model: Model, objective: PathObjective, dimensions: int, engine: Engine, path: Path, apply: Apply
) -> Learned:
    """Make one update from the gradient through the whole walk, which also reaches parameters of process and prior.

    Needs the memory of the whole walk unless the objective recomputes steps.
    """
    trail = Trail(path.start.state, len(path.levels))
    losses, final_state = engine(path_loss, model, objective, path.start, path.levels, path.noise, trail.add)
    loss = losses.mean() / len(path.levels)
    (loss / dimensions).backward()  # type: ignore[no-untyped-call]
    apply(trail)
    return Learned(loss.detach(), final_state)
