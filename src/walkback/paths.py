"""Heating walks that are differentiated: every state is a function of noise.

    s_t = τ(ε_t; q_{T_t}(· | s_{t-1})),   t = 1 … K
    loss = Σ_t step(s_{t-1}, s_t) + end(log p*(s_K))

As in `walk`, the network runs once per state, K + 1 times, and the states are those that `walk` would draw from the
same generator. A walk may be checkpointed: states and kernels are kept, and the backward pass computes each step again
with the same noise, which costs K + 1 more runs and keeps the activations of one network instead of K + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, Reparametrized, reparametrized
from walkback.model import Model
from walkback.objectives import PathObjective
from walkback.operators import Conditional
from walkback.processes import require_stepwise
from walkback.schedules import Level, Levels
from walkback.state import State, map_state
from walkback.walk import Start, Transition

LONG_WALK = 20
"""Number of steps from which on `checkpointing = "auto"` computes them again in the backward pass."""


def path_loss(
    model: Model, objective: PathObjective, start: Start, levels: Levels, generator: torch.Generator
) -> tuple[Tensor, State]:
    """The objective of one walk from each row of `start`: loss `(B,)`, nats, and s_K `(B, *E)`, detached.

    Raises:
        ConfigurationError: The process does not tell its single steps, or one cannot be differentiated through.
    """
    source = map_state(torch.Tensor.detach, start.state)
    steps = _Steps(model, objective, replace(start, state=source), again=_again(objective, levels))
    conditional = steps.look(source, levels[0])
    parts = []
    for level in levels:
        with torch.no_grad():  # here and not inside the step, so that computing it again sees the same noise
            _, moved = steps.heat(source, conditional, level)
            noise = moved.noise(generator)
        source, conditional, part = steps.take(source, conditional, level, noise)
        parts.append(part)
    loss = torch.stack(parts).sum(0) + objective.end(model.prior.log_prob(source))
    return loss, map_state(torch.Tensor.detach, source)


def _again(objective: PathObjective, levels: Levels) -> bool:
    """Whether the steps of a walk are computed again in the backward pass."""
    if objective.checkpointing == "auto":
        return len(levels) >= LONG_WALK
    return objective.checkpointing == "always"


def require_reparametrized(kernel: Kernel) -> Reparametrized:
    """The kernel as a function of noise.

    Raises:
        ConfigurationError: It is none: bits, for instance, do not move with their probabilities.
    """
    found = reparametrized(kernel)
    if found is None:
        raise ConfigurationError(
            f"Got a heating {type(kernel).__name__}, expected a kernel whose samples are a differentiable function of "
            "noise, as Gaussian ones are: an objective of whole walks needs that; choose objective.name = "
            "'walkback' or another operator."
        )
    return found


@final
class _Steps:
    """What a walk asks of the operator, each time computed again in the backward pass where that is wanted."""

    def __init__(self, model: Model, objective: PathObjective, start: Start, *, again: bool) -> None:
        self._operator = model.operator
        self._process = require_stepwise(model.process, "an objective of whole walks")
        self._objective = objective
        self._start = start
        self._checkpointed = again
        self._repeating = False

    def look(self, state: State, level: Level) -> Conditional:
        """The operator at `state`."""
        conditional: Conditional = self._run(self._look, state, level)
        return conditional

    def heat(self, source: State, conditional: Conditional, level: Level) -> tuple[Kernel, Reparametrized]:
        """q_{T_t}(· | s_{t-1}), and the same as a function of noise."""
        kernel = self._process.heating(conditional, source, level, self._start.state)
        return kernel, require_reparametrized(kernel)

    def take(
        self, source: State, conditional: Conditional, level: Level, noise: State
    ) -> tuple[State, Conditional, Tensor]:
        """From s_{t-1}: s_t, the operator there, and the objective's part `(B,)`."""
        taken: tuple[State, Conditional, Tensor] = self._run(self._take, source, conditional, level, noise)
        return taken

    def _take(
        self, source: State, conditional: Conditional, level: Level, noise: State
    ) -> tuple[State, Conditional, Tensor]:
        forward, moved = self.heat(source, conditional, level)
        target = moved.transport(noise)
        following = self._look(target, level)
        reverse, start = following.cooling(level), self._start
        transition = Transition(source, target, level, forward, reverse, start.anchor, start.context)
        return target, following, self._objective.step(transition)

    def _look(self, state: State, level: Level) -> Conditional:
        operator, context = self._operator, self._start.context
        conditional: Conditional
        if self._repeating:
            # On copies of the buffers: layers that keep statistics, as batch norm does, have counted this batch.
            buffers = {name: buffer.clone() for name, buffer in operator.named_buffers()}
            conditional = functional_call(operator, buffers, (state, level, context))
        else:
            conditional = operator(state, level, context)
        return conditional

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not self._checkpointed:
            return function(*arguments)
        return checkpoint(function, *arguments, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Contexts of the first computation and of the second."""
        return nullcontext(), self._repeated()

    @contextmanager
    def _repeated(self) -> Iterator[None]:
        self._repeating = True
        try:
            yield
        finally:
            self._repeating = False
