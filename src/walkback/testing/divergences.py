"""Laws of divergences in closed form, of the kernels of operators and of processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from walkback.kernels import Kernel, divergence
from walkback.processes import Jumping, Reconstructing, Stepwise
from walkback.schedules import Level
from walkback.state import State, map_state
from walkback.support.seeding import generator
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.kernels import COLD, HOT, Source
from walkback.testing.laws import LIMIT, repeated, z_score
from walkback.testing.operators import sources as operators
from walkback.testing.probes import require_rows
from walkback.testing.processes import heating, states_of, trials

OPERATOR_DIVERGENCES, PROCESS_DIVERGENCES = Suite(), Suite()

_NUM = 4096
_ROUNDING = 1e-3
_PROVES = "a divergence in closed form is the mean of log p - log p' over samples of p, and 0 between equals"


@OPERATOR_DIVERGENCES.check("divergence", _PROVES)
def _of_operators(case: Case) -> None:
    require_divergences(operators(case))


@PROCESS_DIVERGENCES.check("divergence", _PROVES)
def _of_processes(case: Case) -> None:
    require_divergences(_processes(case))


def _processes(case: Case) -> Iterator[Source]:
    """Yield the kernels of a process that the bound compares with the operator's."""
    for space, process, operator in trials(case):
        states = states_of(space)
        if isinstance(process, Jumping):

            def posterior(state: State, level: Level, process: Jumping = process) -> Kernel:
                later = Level(2, level.temperature, 1.0, 1.0)
                return process.posterior(state, later, map_state(lambda leaf: leaf.roll(1, -1), state))

            yield Source("marginal", space, states, process.marginal)
            yield Source("posterior", space, states, posterior)
        if isinstance(process, Reconstructing):
            yield Source("corruption", space, states, process.corruption)
        if isinstance(process, Stepwise):
            yield Source("heating", space, states, heating(process, operator))


@torch.no_grad()
def require_divergences(sources: Iterable[Source]) -> None:
    """Check divergences between kernels at two states, cold and hot.

    Raises:
        ConformanceError: A divergence is wrong.
        NotApplicable: No kernel reports one.
    """
    answers = [_require(source, level) for source in sources for level in (COLD, HOT)]
    if not any(answers):
        raise NotApplicable(
            "The kernels report no divergence: they do not derive from walkback.kernels.Divergent."
        )


def _require(source: Source, level: Level) -> bool:
    """Return whether the kernels report a divergence."""
    pair = source.states(2)
    rows = [map_state(lambda leaf, row=row: leaf[row : row + 1], pair) for row in (0, 1)]
    first, second = (source.kernel(repeated(row, _NUM), level) for row in rows)
    reported, own = divergence(first, second), divergence(first, first)
    if reported is None or own is None:
        return False
    name = f"the divergence of the {source.name} at T = {level.temperature}"
    value = float(require_rows(reported, _NUM, name)[0])
    state = first.sample(generator("cpu", 0, "divergence"))
    estimate = first.log_prob(state) - second.log_prob(state)
    tolerance = _ROUNDING * (1 + abs(value))
    if not abs(z_score(estimate, value)) <= LIMIT and abs(float(estimate.mean()) - value) > tolerance:
        raise ConformanceError(
            f"Got {value:.6g} nats as {name}, expected about {float(estimate.mean()):.6g}, the mean of log p - log p' "
            "over samples of p: `divergence_from(other)` returns KL(other ‖ self)."
        )
    if not (value >= -tolerance and float(own.abs().max()) <= _ROUNDING):
        raise ConformanceError(
            f"Got {value:.6g} nats as {name}, and {float(own.abs().max()):.3g} between equals, expected at least 0, "
            "and 0."
        )
    return True
