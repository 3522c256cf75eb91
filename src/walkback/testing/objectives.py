"""Laws of objectives: one number per row, a function of that row alone, with gradients only where they are allowed.

A local objective scores one transition between known kernels. Its gradient flows through log_p, the reverse kernel. The
graph of the forward kernel has been freed with the previous step, so log_q is a constant. A path objective is
differentiated through a whole walk, and its steps may be recomputed.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from walkback.kernels import NormalKernel
from walkback.model import Model
from walkback.noising import GaussianNoise
from walkback.objectives import AnyObjective, Checkpointing, Objective, PathObjective
from walkback.processes import TiedProcess
from walkback.schedules import levels_from
from walkback.state import Space, State, leaves
from walkback.support.seeding import generator
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.probes import data_like, drawn_from, require_close, require_rows, untouched
from walkback.testing.reference import Listed, Reversible, Stationary
from walkback.training.paths import path_loss
from walkback.walk import Start, Transition

OBJECTIVES = Suite()

_SPACE = Space((2,))
_ROWS = 6


def _built(case: Case) -> AnyObjective:
    objective: AnyObjective = case.build("objective")
    return objective


def _states() -> tuple[Tensor, Tensor]:
    source, target = (leaves(data_like(_SPACE, _ROWS, stream))[0] for stream in ("source", "target"))
    return source, target


def _transition(source: Tensor, target: Tensor, forward: Tensor, reverse: Tensor) -> Transition:
    """Return a step whose kernels have means of `forward` and `reverse` times the state, and a known posterior."""
    _, level = levels_from([1.0, 2.0])
    variance = torch.full((1, *_SPACE.shape), 0.04)
    kernels = NormalKernel(forward * source, variance), NormalKernel(reverse * target, variance)
    noise, anchor = GaussianNoise("exploding", 0.02), 0.5 * source
    posterior = noise.posterior(target, anchor, level)
    return Transition(source, target, level, *kernels, anchor=anchor, posterior=posterior, noise=noise)


def _slopes(*, forward: bool) -> tuple[Tensor, Tensor]:
    return torch.tensor(0.8, requires_grad=forward), torch.tensor(0.7, requires_grad=True)


def _parts(objective: AnyObjective, transition: Transition) -> Tensor:
    return objective(transition) if isinstance(objective, Objective) else objective.step(transition)


@OBJECTIVES.check("builds", "it is an objective, built from its options")
def _builds(case: Case) -> None:
    objective = _built(case)
    if isinstance(objective, PathObjective) and objective.checkpointing not in get_args(Checkpointing):
        raise ConformanceError(
            f"Got checkpointing = {objective.checkpointing!r}, expected one of {', '.join(get_args(Checkpointing))}."
        )


@OBJECTIVES.check("shapes", "the loss is one finite number per row, (B,)")
def _shapes(case: Case) -> None:
    objective = _built(case)
    transition = _transition(*_states(), *_slopes(forward=True))
    require_rows(_parts(objective, transition), _ROWS, "the loss of a step")
    if isinstance(objective, PathObjective):
        require_rows(objective.end(torch.linspace(-2, 1, _ROWS)), _ROWS, "the loss of the end")


@OBJECTIVES.check("rows-alone", "the loss of a row does not depend on other rows: no mean over the batch")
def _rows_alone(case: Case) -> None:
    objective = _built(case)
    (source, target), slopes = _states(), _slopes(forward=True)
    together = _parts(objective, _transition(source, target, *slopes))
    for row in range(_ROWS):
        own = slice(row, row + 1)
        alone = _parts(objective, _transition(source[own], target[own], *slopes))
        require_close(
            together[own],
            alone,
            "the loss of a row must not depend on other rows: the trainer takes the mean over the batch, an "
            "objective does not",
        )


@OBJECTIVES.check(
    "gradient", "its gradient reaches the reverse kernel, and the forward one only through a path"
)
def _gradient(case: Case) -> None:
    objective = _built(case)
    forward, reverse = _slopes(forward=True)
    loss = _parts(objective, _transition(*_states(), forward, reverse)).sum()
    if not loss.requires_grad:
        raise ConformanceError("Got a loss without gradient, expected one through log_p: do not detach it.")
    torch.autograd.backward(loss)
    if reverse.grad is None or not bool(reverse.grad.isfinite()) or float(reverse.grad) == 0:
        raise ConformanceError(
            f"Got the gradient {reverse.grad} through log_p, expected a finite number other than 0: the operator "
            "learns through the reverse kernel."
        )
    if isinstance(objective, Objective) and forward.grad is not None and float(forward.grad) != 0:
        raise ConformanceError(
            "Got a gradient through log_q, the forward kernel, expected none: the graph of the previous step has been "
            "freed; use transition.log_q.detach()."
        )


@OBJECTIVES.check("repeats", "equal steps have equal losses, independent of global randomness")
def _repeats(case: Case) -> None:
    objective = _built(case)
    transition = _transition(*_states(), *_slopes(forward=True))
    drawn_from(lambda _: _parts(objective, transition).detach(), "objective of one step")


@OBJECTIVES.check("untouched", "no state is changed in place")
def _untouched(case: Case) -> None:
    objective = _built(case)
    transition = _transition(*_states(), *_slopes(forward=True))
    states: State = (*leaves(transition.source), *leaves(transition.target))
    with untouched(states, "the objective"):
        _parts(objective, transition)


@OBJECTIVES.check("path", "the loss of a whole walk is finite, and its gradient is reproducible")
def _path(case: Case) -> None:
    objective = _built(case)
    if not isinstance(objective, PathObjective):
        raise NotApplicable("The objective scores single steps.")
    found = []
    for _ in range(2):
        operator = Reversible(_SPACE)
        model = Model(operator, Listed(), TiedProcess(), Stationary(_SPACE))
        loss, _ = path_loss(
            model,
            objective,
            Start(data_like(_SPACE, _ROWS)),
            levels_from([1.0, 2.0]),
            generator("cpu", 0, "path"),
        )
        require_rows(loss, _ROWS, "the loss of a walk")
        torch.autograd.backward(loss.mean())
        found.append(operator.memory.grad)
    first, second = found
    if first is None or second is None or not bool(first.isfinite()) or not bool(first):
        raise ConformanceError(
            f"Got the gradient {first} with respect to the operator, expected a finite number other than 0."
        )
    require_close(first[None], second[None], "equal walks must have equal gradients")
