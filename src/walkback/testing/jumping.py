"""Laws of processes whose noise has closed forms (`walkback.processes.Jumping`).

marginals     composed steps and jumps follow q(s_t | s_0)
posteriors    q(s_{t-1} | s_t, s_0) is that of Bayes' rule, and returns s_0 at the first level
jumps         the states of paths have the law of walks
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from walkback.operators import TransitionOperator
from walkback.processes import Jumping, Process, Stepwise
from walkback.schedules import Level
from walkback.state import Space, State, batch_size, leaves
from walkback.support.seeding import generator
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.laws import Law, repeated, require_law
from walkback.testing.probes import data_like, describe, flat, require_close
from walkback.testing.processes import LEVELS, ROWS, path_of, trials
from walkback.testing.reference import Stationary
from walkback.walk import Start

JUMPING = Suite()

_MOST_PATHS = 100


@final
@dataclass(frozen=True, slots=True)
class _Trial:
    """A process on one space, and one s_0 `(1, *E)` that all rows start from."""

    space: Space
    process: Process
    jumping: Jumping
    operator: TransitionOperator
    origin: State

    def jumped(self, level: Level, num: int, noise: torch.Generator) -> State:
        """Draw s_t in one jump."""
        return self.jumping.marginal(repeated(self.origin, num), level).sample(noise)

    def marginal(self, level: Level, state: State) -> Tensor:
        """Return log q(s_t | s_0)."""
        return self.jumping.marginal(repeated(self.origin, batch_size(state)), level).log_prob(state)

    def walked(self, process: Stepwise, count: int, num: int, noise: torch.Generator) -> State:
        """Draw s_t, t = `count`, step by step."""
        state = start = repeated(self.origin, num)
        for level in LEVELS[:count]:
            state = process.heating(self.operator(state, level), state, level, start).sample(noise)
        return state

    def returned(self, level: Level, num: int, noise: torch.Generator) -> State:
        """Draw s_{t-1} by a jump to s_t and its posterior."""
        target = self.jumped(level, num, noise)
        return self.jumping.posterior(target, level, repeated(self.origin, num)).sample(noise)

    def pair(self, process: Stepwise, before: Level, level: Level, state: State) -> Tensor:
        """Return log q(s_{t-1}, s_t | s_0)."""
        source, target = leaves(state)
        start = repeated(self.origin, len(source))
        step = process.heating(self.operator(source, level), source, level, start)
        return self.marginal(before, source) + step.log_prob(target)

    def pairs(self, step: int, num: int, noise: torch.Generator) -> State:
        """Return (s_{t-1}, s_t) of `num` rows that paths have at level t = `step`."""
        start = Start(repeated(self.origin, num), prior=Stationary(self.space))
        found: list[Tensor] = []
        for _ in range(_MOST_PATHS):
            for each in self.process.path(self.operator, start, LEVELS, noise):
                here = torch.as_tensor(each.level.step).expand(num) == step
                found.append(torch.stack([leaves(each.source)[0][here], leaves(each.target)[0][here]]))
            if sum(part.shape[1] for part in found) >= num:
                source, target = torch.cat(found, 1)[:, :num]
                return source, target
        raise ConformanceError(
            f"Got fewer than {num} rows at level {step} in {_MOST_PATHS} paths of {num} rows, expected some in each."
        )


def _trials(case: Case) -> Iterator[_Trial]:
    for space, process, operator in trials(case):
        if not isinstance(process, Jumping):
            raise NotApplicable("The process is not Jumping.")
        yield _Trial(space, process, process, operator, data_like(space, 1, "origin"))


@JUMPING.check("marginals", "the marginal of a level is a density, which jumps and composed steps follow")
@torch.no_grad()
def _marginals(case: Case) -> None:
    for trial in _trials(case):
        for count, level in enumerate(LEVELS, start=1):
            density, name = partial(trial.marginal, level), f"level {count} on {describe(trial.space)}"
            require_law(Law(f"jump to {name}", (trial.space,), partial(trial.jumped, level), density))
            if isinstance(trial.process, Stepwise):
                walked = partial(trial.walked, trial.process, count)
                require_law(Law(f"walk to {name}", (trial.space,), walked, density))


@JUMPING.check(
    "posteriors",
    "posteriors follow from steps and marginals by Bayes' rule, and return s_0 at the first level",
)
@torch.no_grad()
def _posteriors(case: Case) -> None:
    for trial in _trials(case):
        first, noise = repeated(trial.origin, ROWS), generator("cpu", 0, "posteriors")
        target = trial.jumped(LEVELS[0], ROWS, noise)
        back = trial.jumping.posterior(target, LEVELS[0], first).sample(noise)
        require_close(flat(back), flat(first), "at the first level the posterior must return s_0")
        for before, level in pairwise(LEVELS):
            name = f"state before level {level.step} by the posterior on {describe(trial.space)}"
            density = partial(trial.marginal, before)
            require_law(Law(name, (trial.space,), partial(trial.returned, level), density))
            if isinstance(trial.process, Stepwise):
                _require_bayes(trial, trial.process, before, level)


def _require_bayes(trial: _Trial, process: Stepwise, before: Level, level: Level) -> None:
    """Compare log-posteriors with those of steps and marginals, at states that are drawn."""
    noise, origin = generator("cpu", 0, "bayes"), data_like(trial.space, ROWS, "origin")
    source = trial.jumping.marginal(origin, before).sample(noise)
    step = process.heating(trial.operator(source, level), source, level, origin)
    target = step.sample(noise)
    wanted = (
        step.log_prob(target)
        + trial.jumping.marginal(origin, before).log_prob(source)
        - trial.jumping.marginal(origin, level).log_prob(target)
    )
    found = trial.jumping.posterior(target, level, origin).log_prob(source)
    require_close(
        found, wanted, "log q(s_{t-1} | s_t, s_0) must follow from steps and marginals by Bayes' rule"
    )


@JUMPING.check("jumps", "states of a path have the law of a walk, and its posteriors are the process's")
@torch.no_grad()
def _jumps(case: Case) -> None:
    for trial in _trials(case):
        _require_posteriors(trial)
        if not isinstance(trial.process, Stepwise):
            raise NotApplicable("The process is not stepwise.")
        for before, level in pairwise(LEVELS):
            name = f"states of a path at level {level.step} on {describe(trial.space)}"
            density = partial(trial.pair, trial.process, before, level)
            pairs = partial(trial.pairs, int(level.step))
            require_law(Law(name, (trial.space, trial.space), pairs, density))


def _require_posteriors(trial: _Trial) -> None:
    """Compare the posteriors of transitions with the process's, in rows above the first level."""
    origin = data_like(trial.space, ROWS)
    for step in path_of(trial.process, trial.operator, trial.space):
        if step.posterior is None:
            continue
        later = torch.as_tensor(step.level.step).expand(ROWS) > 1
        wanted = trial.jumping.posterior(step.target, step.level, origin).log_prob(step.source)
        found = step.posterior.log_prob(step.source)
        require_close(found[later], wanted[later], "the posterior of a transition must be the process's own")
