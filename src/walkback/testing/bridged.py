"""Laws of processes that define their paths from the hot end (`walkback.processes.Bridged`).

bridge          q(s_K | s_0) and q(s_{t-1} | s_t, s_0) are densities of their samples
bridged-path    paths are drawn from them
bridged-work    E[exp(-W) | s_0] = p(s_0)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from walkback.kernels import Kernel
from walkback.measuring.work import heating_work
from walkback.model import Model
from walkback.operators import TransitionOperator
from walkback.processes import Bridged, Process, Stepwise
from walkback.schedules import Level
from walkback.state import Space, State, batch_size, leaves, map_state
from walkback.support.seeding import generator
from walkback.testing import kernels
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.kernels import Source
from walkback.testing.laws import LIMIT, Law, repeated, require_law, z_score
from walkback.testing.probes import data_like, describe
from walkback.testing.processes import LEVELS, states_of, trials
from walkback.testing.reference import Listed, Stationary
from walkback.walk import Start

BRIDGED = Suite()

_LAST = LEVELS[-1]
_WORKS = 4096
_LEAST_EFFECTIVE = 100.0


@final
@dataclass(frozen=True, slots=True)
class _Trial:
    """A process on one space, the prior of its paths, and one s_0 `(1, *E)` that all rows start from."""

    space: Space
    process: Process
    bridged: Bridged
    operator: TransitionOperator
    prior: Stationary
    origin: State

    def bridge(self, state: State, level: Level) -> Kernel:
        """Return a bridge from `state`, above the first level whatever that of the kit's kernels."""
        above = Level(level.step + 1, level.temperature, level.colder, level.elapsed)
        origin = map_state(lambda leaf: leaf.roll(1, -1), state)
        return self.bridged.bridge(self.operator(state, above), state, above, origin, Level(5, 4.0))

    def ended(self, num: int, noise: torch.Generator) -> State:
        """Draw s_K."""
        return self.bridged.end(repeated(self.origin, num), _LAST, self.prior).sample(noise)

    def end(self, state: State) -> Tensor:
        """Return log q(s_K | s_0)."""
        return self.bridged.end(repeated(self.origin, batch_size(state)), _LAST, self.prior).log_prob(state)

    def targets(self, num: int, noise: torch.Generator) -> State:
        """Return (s_{K-1}, s_K) of a path."""
        start = Start(repeated(self.origin, num), prior=self.prior)
        path = self.process.path(self.operator, start, LEVELS, noise)
        found = {int(step.level.step): leaves(step.target)[0] for step in path}
        return found[len(LEVELS) - 1], found[len(LEVELS)]

    def pair(self, state: State) -> Tensor:
        """Return log q(s_{K-1}, s_K | s_0)."""
        colder, last = leaves(state)
        origin, output = repeated(self.origin, len(last)), self.operator(last, _LAST)
        return self.end(last) + self.bridged.bridge(output, last, _LAST, origin, _LAST).log_prob(colder)


def _trials(case: Case) -> Iterator[_Trial]:
    for space, process, operator in trials(case):
        if not isinstance(process, Bridged):
            raise NotApplicable("The process is not Bridged.")
        yield _Trial(space, process, process, operator, Stationary(space), data_like(space, 1, "origin"))


@BRIDGED.check("bridge", "bridges and the end of a path are normalized densities of their samples")
@torch.no_grad()
def _bridge(case: Case) -> None:
    for trial in _trials(case):
        source = Source("bridge", trial.space, states_of(trial.space), trial.bridge)
        kernels.shapes(source)
        kernels.normalized([source])
        for law in (kernels.samples, kernels.row_levels, kernels.rows_alone, kernels.repeats):
            law(source)
        require_law(Law(f"end on {describe(trial.space)}", (trial.space,), trial.ended, trial.end))


@BRIDGED.check("bridged-path", "targets of a path follow its end and its bridges")
@torch.no_grad()
def _bridged_path(case: Case) -> None:
    for trial in _trials(case):
        if isinstance(trial.process, Stepwise):
            raise NotApplicable("Paths are drawn step by step.")
        name = f"last two states of a path on {describe(trial.space)}"
        require_law(Law(name, (trial.space, trial.space), trial.targets, trial.pair))


@BRIDGED.check("bridged-work", "E[exp(-W)] over paths from s_0 is p(s_0)")
@torch.no_grad()
def _bridged_work(case: Case) -> None:
    # At T = 1 the operator keeps the law of the prior, so cooling ends in it after any number of levels.
    for trial in _trials(case):
        model, data = (
            Model(trial.operator, Listed(), trial.process, trial.prior),
            data_like(trial.space, _WORKS),
        )
        path = heating_work(model, leaves(data)[0], model.levels(), generator("cpu", 0, "work"))
        weights = (-path.work - trial.prior.log_prob(data)).double().exp()
        if float(weights.sum()) ** 2 < _LEAST_EFFECTIVE * float(weights.square().sum()):
            raise NotApplicable("The works of paths differ too much for their exponential average.")
        score = z_score(weights, 1.0)
        if not abs(score) <= LIMIT:
            raise ConformanceError(
                f"Got exp(-W) with a mean of {float(weights.mean()):.3g} p(s_0) on {describe(trial.space)} "
                f"(z = {score:.1f}), expected p(s_0): the densities of `end` and `bridge` must be normalized."
            )
