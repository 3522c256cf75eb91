"""Differentiable heating walks: every state is a function of noise.

    s_t = τ(ε_t; q_{T_t}(· | s_{t-1})),   t = 1 … K
    loss = Σ_t step(s_{t-1}, s_t) + end(log p*(s_K))

As in `walk`, the network runs once per state, K + 1 times, and the states equal those that `walk` draws from the same
generator. With activation checkpointing, only states and kernels are stored, and the backward pass recomputes each step
with the same noise. This costs K + 1 more runs and stores the activations of one run instead of K + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeAlias, final

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, ProductKernel, Reparametrized
from walkback.model import Model
from walkback.objectives import PathObjective
from walkback.operators import Conditional
from walkback.processes import require_stepwise
from walkback.schedules import Level, Levels
from walkback.state import State, leaves, map_state
from walkback.walk import Start, Transition

OnStep: TypeAlias = Callable[[Level, State, Tensor], None]
"""Level of a step, s_t `(B, *E)`, mean loss of the step (a scalar)."""

_LONG_WALK = 20
"""Number of steps from which `checkpointing = "auto"` recomputes them in the backward pass."""


def path_loss(
    model: Model,
    objective: PathObjective,
    start: Start,
    levels: Levels,
    generator: torch.Generator,
    on_step: OnStep = lambda level, state, loss: None,
) -> tuple[Tensor, State]:
    """Compute the objective of one walk from each row of `start`: loss `(B,)`, nats, and s_K `(B, *E)`, detached.

    Args:
        model: The model.
        objective: The objective of whole walks.
        start: s_0 with its anchor and context.
        levels: T_1 … T_K, coldest first.
        generator: The only source of randomness.
        on_step: Called with each step; the loss of the last step includes the end of the walk.

    Raises:
        ConfigurationError: The process is not `Stepwise`, or a step cannot be differentiated.
    """
    source = map_state(torch.Tensor.detach, start.state)
    steps = _Steps(model, objective, replace(start, state=source), again=_again(objective, levels))
    conditional = steps.look(source, levels[0])
    parts = []
    for level in levels:
        # Draw the noise outside of the step, so that recomputation in the backward pass uses the same noise. The kernel
        # only determines its distribution, so it needs no graph.
        with torch.no_grad():
            _, moved = steps.heat(source, conditional, level)
            noise = moved.noise(generator)
        source, conditional, part = steps.take(source, conditional, level, noise)
        parts.append(part)
        if level is not levels[-1]:
            on_step(level, source, part.mean())
    end = objective.end(model.prior.log_prob(source))
    on_step(levels[-1], source, (parts[-1] + end).mean())
    loss = torch.stack(parts).sum(0) + end
    return loss, map_state(torch.Tensor.detach, source)


def _again(objective: PathObjective, levels: Levels) -> bool:
    """Return whether the steps of a walk are recomputed in the backward pass."""
    if objective.checkpointing == "auto":
        return len(levels) >= _LONG_WALK
    return objective.checkpointing == "always"


def reparametrized(kernel: Kernel) -> Reparametrized | None:
    """Return the kernel as a function of noise, or None if it is not one. A product is one if all of its parts are."""
    if isinstance(kernel, Reparametrized):
        return kernel
    if isinstance(kernel, ProductKernel):
        parts = [part for part in map(reparametrized, kernel.kernels) if part is not None]
        return _ReparametrizedProduct(parts) if len(parts) == len(kernel.kernels) else None
    return None


@final
class _ReparametrizedProduct(Reparametrized):
    """A product of reparametrized kernels."""

    def __init__(self, parts: Sequence[Reparametrized]) -> None:
        self._parts = tuple(parts)

    def noise(self, generator: torch.Generator) -> State:
        # In the order of the leaves, as `ProductKernel.sample` draws: both must consume the same random numbers.
        return tuple(leaf for part in self._parts for leaf in leaves(part.noise(generator)))

    def transport(self, noise: State) -> State:
        pairs = zip(self._parts, leaves(noise), strict=True)
        return tuple(leaf for part, epsilon in pairs for leaf in leaves(part.transport(epsilon)))


def require_reparametrized(kernel: Kernel) -> Reparametrized:
    """Return the kernel as a function of noise.

    Raises:
        ConfigurationError: It is not one; a Bernoulli sample, for instance, is not differentiable in its probability.
    """
    found = reparametrized(kernel)
    if found is None:
        raise ConfigurationError(
            f"Samples of {type(kernel).__name__} are not a differentiable function of noise, which an objective of "
            "whole walks needs: choose objective.name = 'walkback', or an operator with Gaussian kernels."
        )
    return found


@final
class _Steps:
    """The steps of a walk, optionally checkpointed: recomputed in the backward pass."""

    def __init__(self, model: Model, objective: PathObjective, start: Start, *, again: bool) -> None:
        self._operator = model.operator
        self._process = require_stepwise(model.process, "an objective of whole walks")
        self._objective = objective
        self._start = start
        self._checkpointed = again
        self._repeating = False

    def look(self, state: State, level: Level) -> Conditional:
        """Return the output of the operator at `state`."""
        conditional: Conditional = self._run(self._look, state, level)
        return conditional

    def heat(self, source: State, conditional: Conditional, level: Level) -> tuple[Kernel, Reparametrized]:
        """Return q_{T_t}(· | s_{t-1}), and the same kernel as a function of noise."""
        kernel = self._process.heating(conditional, source, level, self._start.state)
        return kernel, require_reparametrized(kernel)

    def take(
        self, source: State, conditional: Conditional, level: Level, noise: State
    ) -> tuple[State, Conditional, Tensor]:
        """Step from s_{t-1}; return s_t, the operator's output at s_t, and the loss of the step `(B,)`."""
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
            # Use copies of the buffers: layers with running statistics (batch norm) have already counted this batch.
            buffers = {name: buffer.clone() for name, buffer in operator.named_buffers()}
            conditional = functional_call(operator, buffers, (state, level, context))
        else:
            conditional = operator(state, level, context)
        return conditional

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not self._checkpointed:
            return function(*arguments)
        # Only the non-reentrant variant supports `context_fn`, and inputs that are not tensors but carry gradients.
        return checkpoint(function, *arguments, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the context managers of the forward computation and of the recomputation."""
        return nullcontext(), self._repeated()

    @contextmanager
    def _repeated(self) -> Iterator[None]:
        self._repeating = True
        try:
            yield
        finally:
            self._repeating = False
