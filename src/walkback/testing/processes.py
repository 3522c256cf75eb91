"""Laws of processes: paths to learn from and, for stepwise processes, the laws of kernels.

A process is tried on exactly known operators: an autoregressive one on points, flips on bits. A process that adapts to
data is fitted to synthetic data first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.operators import DataAware, TransitionOperator
from walkback.processes import OperatorAware, Process, Stepwise
from walkback.schedules import Level, levels_from
from walkback.state import Space, State, concatenate, map_state, spaces
from walkback.support.seeding import generator
from walkback.testing import kernels, operators
from walkback.testing.cases import SPACES, Case, ConformanceError, NotApplicable, Suite
from walkback.testing.kernels import Source
from walkback.testing.probes import (
    data_like,
    describe,
    drawn_from,
    require_close,
    require_rows,
    require_state,
    same,
    through_file,
    untouched,
)
from walkback.testing.reference import NoisyReversible, Reversible, Stationary
from walkback.walk import Start, Transition

PROCESSES = Suite()

_SINGLE = (Space((2,)), Space((4,), "binary"))
"""Spaces to try if the case names none."""

LEVELS = levels_from([1.0, 1.0, 2.0])
ROWS = 7
LABELS = torch.arange(ROWS) % 4 - 1


def built(case: Case, space: Space, operator: TransitionOperator | None = None, seed: int = 0) -> Process:
    """Return the process, fitted to synthetic data and to the operator, or not fitted without one."""
    process: Process = case.build("process", seed=seed)
    data = data_like(space, 256, "fit")
    if operator is not None and isinstance(process, DataAware) and isinstance(data, Tensor):
        process.fit_data(data)
    if operator is not None and isinstance(process, OperatorAware):
        process.fit_operator(operator)
    return process.eval()


def trials(case: Case) -> Iterator[tuple[Space, Process, TransitionOperator]]:
    """Yield the process and an operator on points and on bits; the process may refuse one of the two."""
    refusal: ConfigurationError | None = None
    works = False
    for space in _SINGLE if case.spaces == SPACES else (part for own in case.spaces for part in spaces(own)):
        for operator in _operators(case, replace(space, classes=3)):
            try:
                process = built(case, space, operator)
                path_of(process, operator, space)
            except ConfigurationError as error:
                refusal = error
                continue
            works = True
            yield space, process, operator
            break
    if not works:
        raise ConformanceError(
            f"Got no operator that {case.label!r} accepts (last refusal: {refusal}), expected it to accept Normal or "
            "Bernoulli kernels, or an operator of its own distribution with the options that it proposes."
        ) from refusal


def _operators(case: Case, space: Space) -> Iterator[TransitionOperator]:
    """Yield an operator that is known exactly, and those of the process's distribution with the options it proposes."""
    yield (NoisyReversible if space.support == "real" else Reversible)(space).eval()
    if case.registry is None or not isinstance(case.component, str):
        return
    own = case.registry.find("process", case.component)
    options = own.spec.defaults.get("operator")
    if options is None:
        return
    for other in case.registry.components("operator"):
        if other.distribution != own.distribution:
            continue
        try:
            operator = operators.built(Case.of(other.spec.name, options, registry=case.registry), space)
        except ConfigurationError:
            continue
        yield operator


def path_of(
    process: Process, operator: TransitionOperator, space: Space, noise: torch.Generator | None = None
) -> list[Transition]:
    """Return a path of `ROWS` rows with labels."""
    state = data_like(space, ROWS)
    start = Start(state, context=LABELS, prior=Stationary(space))
    return list(process.path(operator, start, LEVELS, noise or generator("cpu", 0, "path")))


def _sources(case: Case) -> Iterator[Source]:
    """Yield the heating kernels on points and on bits."""
    for space, process, operator in trials(case):
        if not isinstance(process, Stepwise):
            raise NotApplicable("The process is not stepwise.")
        yield Source("heating", space, states_of(space), heating(process, operator))


def states_of(space: Space) -> Callable[[int], State]:
    """Return what gives a number of synthetic states."""
    return lambda num: data_like(space, num)


def heating(process: Stepwise, operator: TransitionOperator) -> Callable[[State, Level], Kernel]:
    """Return what gives the heating kernel at a state and a level."""

    def kernel(state: State, level: Level) -> Kernel:
        # The origin of a row is a function of that row alone, so that a batch can be split into rows.
        origin = map_state(lambda leaf: leaf.roll(1, -1), state)
        return process.heating(operator(state, level), state, level, origin)

    return kernel


@PROCESSES.check("builds", "it is a process, built from its options, that heats points or bits")
def _builds(case: Case) -> None:
    for _ in trials(case):
        pass


@PROCESSES.check(
    "path", "a path has K transitions of B rows, with their context; reverse is the operator at the target"
)
def _paths(case: Case) -> None:
    for space, process, operator in trials(case):
        path = path_of(process, operator, space)
        if len(path) != len(LEVELS):
            raise ConformanceError(
                f"Got a path of {len(path)} transitions through {len(LEVELS)} levels, expected one for each."
            )
        for step in path:
            require_state(step.source, space, ROWS, "the source of a transition")
            require_state(step.target, space, ROWS, "the target of a transition")
            if any(state.requires_grad for state in (step.source, step.target) if isinstance(state, Tensor)):
                raise ConformanceError("Got states with a graph in a transition, expected them detached.")
            require_rows(step.log_q, ROWS, "log_q of a transition")
            reverse = operator(step.target, step.level, LABELS).cooling(step.level)
            require_close(
                step.log_p,
                reverse.log_prob(step.source),
                "`reverse` must be the operator's cooling kernel at the target, given the context of the start",
            )
            if step.context is not LABELS:
                raise ConformanceError(
                    "Got a transition without the context of the start, expected the same object."
                )
            if not step.log_p.requires_grad:
                raise ConformanceError(
                    "Got log_p without gradient, expected one with respect to the operator's parameters."
                )


@PROCESSES.check("max-temperature", "max_temperature is None, or a finite number of at least 1")
def _max_temperature(case: Case) -> None:
    for space, process, _ in trials(case):
        found = process.max_temperature
        if found is not None and not (isinstance(found, float | int) and math.isfinite(found) and found >= 1):
            raise ConformanceError(
                f"Got max_temperature = {found!r} on {describe(space)}, expected a finite number of at least 1, the "
                "temperature at which one step forgets the state, or None for the operator's."
            )


@PROCESSES.check("state-dict", "parameters and buffers hold everything learned: paths repeat bit for bit")
@torch.no_grad()
def _state_dict(case: Case) -> None:
    for space, process, operator in trials(case):
        new = built(case, space, seed=1)
        through_file(process, new)
        ends = [_ends(path_of(part, operator, space)) for part in (process, new)]
        if not same(*ends) or process.max_temperature != new.max_temperature:
            raise ConformanceError(
                f"Got a different path on {describe(space)} after saving and loading the state_dict, expected the same "
                "bits: keep what is learned or fitted in parameters and (persistent) buffers."
            )


def _ends(path: list[Transition]) -> State:
    """Return all targets of a path."""
    return concatenate([step.target for step in path])


@PROCESSES.check("shapes", "samples are (B, *E), detached, and log_prob is (B,), for every B, in float32")
def _shapes(case: Case) -> None:
    for source in _sources(case):
        kernels.shapes(source)


@PROCESSES.check("normalized", "log_prob is a normalized density, cold and hot")
def _normalized(case: Case) -> None:
    kernels.normalized(_sources(case))


@PROCESSES.check("samples", "samples follow the density of log_prob, cold and hot")
def _samples(case: Case) -> None:
    for source in _sources(case):
        kernels.samples(source)


@PROCESSES.check("temperature", "a hotter kernel is wider")
def _temperature(case: Case) -> None:
    for source in _sources(case):
        kernels.hotter_is_wider(source)


@PROCESSES.check("row-levels", "rows at different levels have the same kernels as on their own")
def _row_levels(case: Case) -> None:
    for source in _sources(case):
        kernels.row_levels(source)


@PROCESSES.check("rows-alone", "the kernel of a row does not depend on other rows")
def _rows_alone(case: Case) -> None:
    for source in _sources(case):
        kernels.rows_alone(source)


@PROCESSES.check(
    "generator", "paths depend on the generator only, and global randomness is neither read nor changed"
)
@torch.no_grad()
def _generator(case: Case) -> None:
    for space, process, operator in trials(case):

        def draw(
            noise: torch.Generator,
            space: Space = space,
            process: Process = process,
            operator: TransitionOperator = operator,
        ) -> State:
            return _ends(path_of(process, operator, space, noise))

        drawn_from(draw, "a path of the process")


@PROCESSES.check("repeats", "the same state gives the same kernel")
def _repeats(case: Case) -> None:
    for source in _sources(case):
        kernels.repeats(source)


@PROCESSES.check("untouched", "no state is changed in place")
def _untouched(case: Case) -> None:
    for space, process, operator in trials(case):
        state = data_like(space, ROWS)
        with untouched(state, "the process"):
            start = Start(state, context=LABELS, prior=Stationary(space))
            list(process.path(operator, start, LEVELS, generator("cpu", 0, "path")))
        if isinstance(process, Stepwise):
            kernels.mutations(Source("heating", space, states_of(space), heating(process, operator)))
