"""Does the chain obey detailed balance? Entropy production, beside the entropy rate (appendix H of the paper).

    e = 1/K Σ_t log p(s_{t+1} | s_t) - log p(s_t | s_{t+1})        0 if and only if p obeys detailed balance
    h = 1/K Σ_t -log p(s_{t+1} | s_t)                              irreversibility = e / h

after a burn-in, as means over independent chains. On a chain that is not stationary e has (log π(s_K) - log π(s_0)) / K
in it even where p is reversible: both halves of the chain are given for this reason.
"""

from __future__ import annotations

import math
from typing import Annotated, final

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from walkback.diagnostics import ChainStart, Diagnostic, Subject
from walkback.errors import WalkbackError
from walkback.measuring.estimates import mean_figure, ratio_figure, require_enough
from walkback.measuring.traces import Statistics, cold_level, settle, trace
from walkback.report import Figure, Report, Series
from walkback.schedules import Level
from walkback.state import dimensions, spaces
from walkback.walk import Transition
from walkback.work import refuse_clipped
from walkback_diagnostics.rank_test import RankTest, rank_test, require_enough_chains

_DOUBT = 3.0
"""Difference of the halves of a chain, in standard errors, that a reader is warned of (by chance in 0.3 %)."""

_PRODUCTION = "log p(s'|s) - log p(s|s'), mean over steps and chains: 0 for a reversible chain"
_IRREVERSIBILITY = (
    "entropy production / entropy rate: 0 for a reversible chain; the paper has 3.6 % on MNIST (appendix H)"
)
_RATE = "-log p(s'|s), mean over steps and chains"


@final
class Reversibility(Diagnostic):
    """Entropy production of chains at one temperature, and the rank test of detailed balance.

    Args:
        chains: Independent chains; standard errors are from the scatter between them.
        burn_in: Steps before anything is recorded.
        steps: Steps recorded.
        temperature: Of the kernel.
        start: Where chains begin, "annealed" or "data".
        rank_chains: Further chains for the rank test, burnt in alike; 0 leaves the test out.
        rank_steps: Steps of each of them, so that there is one rank more.
        rank_tests: Random projections whose ranks are tested, beside mean, squared norm and direction.
    """

    def __init__(
        self,
        *,
        chains: PositiveInt = 100,
        burn_in: NonNegativeInt = 50,
        steps: PositiveInt = 1000,
        temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0,
        start: ChainStart = "annealed",
        rank_chains: NonNegativeInt = 400,
        rank_steps: PositiveInt = 15,
        rank_tests: PositiveInt = 3,
    ) -> None:
        self._chains = chains
        self._burn_in = burn_in
        self._steps = steps
        self._temperature = temperature
        self._start: ChainStart = start
        self._rank = (rank_chains, rank_steps, rank_tests)
        if rank_chains:
            require_enough_chains(rank_chains, rank_steps)

    def measure(self, subject: Subject) -> Report:
        """Figures over independent chains; see `Diagnostic.measure`."""
        require_enough(self._chains, "chains", "--set chains=…")
        level = cold_level(subject, self._temperature)
        start = subject.start(self._start, self._chains)
        start = settle(subject, start, level, self._burn_in)
        found = trace(subject, start, level, self._steps, _both_ways(subject), name="entropy-production")
        production, rate = found.values.unbind(-1)
        kinds = {space.support for space in spaces(subject.model.prior.space)}
        figures, warnings = _figures(production, rate, dimensions(subject.model.prior.space))
        warnings += _warnings_of_rate(figures[2], "real" in kinds)
        figures += _of_bins(subject, production, rate)
        series = _series(production, found.block)
        if self._rank[0]:
            tested = self._test(subject, level)
            figures.append(_rank_figure(tested))
            series.append(_rank_series(tested))
        protocol = {
            "chains": self._chains,
            "burn_in": self._burn_in,
            "steps": len(found.values) * found.block,
            "temperature": self._temperature,
            "start": self._start,
            "rank_chains, rank_steps, rank_tests": list(self._rank),
        }
        return Report(
            "reversibility", "irreversibility", tuple(figures), tuple(series), tuple(warnings), protocol
        )

    def _test(self, subject: Subject, level: Level) -> RankTest:
        num, steps, projections = self._rank
        start = subject.start(self._start, num)
        start = settle(subject, start, level, self._burn_in, name="burn-in-of-the-rank-test")
        return rank_test(subject, start, level, steps, projections)


def _both_ways(subject: Subject) -> Statistics:
    """log p(s'|s) - log p(s|s') and -log p(s'|s), `(C, 2)`, both checked."""

    def statistics(step: Transition) -> Tensor:
        there, back = step.log_q.double(), step.log_p.double()
        if not bool(there.isfinite().all()):
            raise WalkbackError(
                f"Got {int((~there.isfinite()).sum())} of {len(there)} steps whose log-density is not finite, "
                "expected finite ones: the kernel is deterministic (its variance is 0) or diverges."
            )
        impossible = int((back == -math.inf).sum())
        if impossible:
            raise WalkbackError(
                f"Got {impossible} of {len(back)} steps whose step back is impossible (its probability is 0), "
                "expected a kernel that can go back: the entropy production is infinite."
            )
        refuse_clipped(subject.model, step.target)
        return torch.stack([there - back, -there], 1)

    return statistics


def _figures(production: Tensor, rate: Tensor, size: int) -> tuple[list[Figure], list[str]]:
    """All of `(blocks, C)`, and a warning where the two halves differ."""
    of_chain, rate_of_chain = production.mean(0), rate.mean(0)
    per_dimension = 1 / size
    figures = [
        ratio_figure("irreversibility", of_chain, rate_of_chain, "%", _IRREVERSIBILITY, scale=100.0),
        mean_figure("entropy_production", of_chain, "nats/step", _PRODUCTION),
        mean_figure("entropy_rate", rate_of_chain, "nats/step", _RATE),
        mean_figure(
            "entropy_production_per_dimension",
            of_chain,
            "nats/step/dim",
            "entropy_production / number of dimensions of the state",
            scale=per_dimension,
        ),
        mean_figure(
            "entropy_rate_per_dimension",
            rate_of_chain,
            "nats/step/dim",
            "entropy_rate / number of dimensions of the state",
            scale=per_dimension,
        ),
    ]
    half = len(production) // 2
    if not half:
        return figures, []
    early, late = production[:half].mean(0), production[-half:].mean(0)
    meaning = "should equal that of the other half: else the chain is not stationary"
    figures += [
        mean_figure("entropy_production_first_half", early, "nats/step", meaning),
        mean_figure("entropy_production_second_half", late, "nats/step", meaning),
    ]
    change = mean_figure("change", late - early, "nats/step")
    if abs(change.value) <= _DOUBT * (change.error or 0.0) + 1e-12 * abs(figures[1].value):
        return figures, []
    return figures, [
        f"The entropy production of the second half of the chains differs from that of the first by "
        f"{change.value:+.4g} ± {change.error:.2g} nats/step, more than {_DOUBT:g} standard errors: the chain is not "
        "stationary, and the entropy production holds a change of log π beside what is irreversible; raise "
        "--set burn_in=…."
    ]


def _of_bins(subject: Subject, production: Tensor, rate: Tensor) -> list[Figure]:
    """The ratio for data that were grey levels: of the entropy of these, as bits/dim are."""
    space = subject.model.prior.space
    if subject.info.bins is None or isinstance(space, tuple):
        return []
    entropy = rate.mean(0) + dimensions(space) * math.log(subject.info.bins)
    return [
        ratio_figure(
            "irreversibility_of_grey_levels",
            production.mean(0),
            entropy,
            "%",
            f"entropy production / (entropy rate + D log {subject.info.bins}): the rate of states rounded to the grey "
            "levels of the data, as far as these are finer than the noise of a step",
            scale=100.0,
        )
    ]


def _warnings_of_rate(rate: Figure, continuous: bool) -> list[str]:
    """What is wrong with the ratio."""
    if rate.value <= 3 * (rate.error or 0.0):
        return [
            f"The entropy rate is {rate.value:.4g} ± {rate.error:.2g} nats/step, not clearly positive, so "
            "irreversibility, which divides by it, means nothing: read entropy_production."
        ]
    if continuous:
        return [
            "The entropy rate of continuous states is a differential entropy, which depends on their scale: compare "
            "irreversibility between operators on the same data only, or read entropy_production."
        ]
    return []


def _series(production: Tensor, block: int) -> list[Series]:
    """Along the chain, and over chains."""
    ends = torch.arange(1, len(production) + 1) * block
    error = production.std(1) / math.sqrt(production.shape[1])
    along = Series(
        "entropy_production_along_the_chain",
        tuple(map(float, ends)),
        tuple(production.mean(1).tolist()),
        "after burn-in (steps)",
        "entropy production (nats/step)",
        tuple(error.tolist()),
    )
    counts, edges = np.histogram(production.mean(0).numpy(), bins=20)
    centres = (edges[:-1] + edges[1:]) / 2
    chains = Series(
        "entropy_production_of_chains",
        tuple(centres.tolist()),
        tuple(counts.astype(float).tolist()),
        "entropy production of a chain (nats/step)",
        "chains",
        marks=True,
    )
    return [along, chains]


def _rank_figure(tested: RankTest) -> Figure:
    return Figure(
        "rank_test_p",
        tested.corrected,
        "1",
        meaning="p-value of detailed balance (Gandy & Scott 2020), corrected for the number of functions ranked; "
        f"small: not reversible, or not yet stationary; smallest for {tested.names[tested.worst]}",
    )


def _rank_series(tested: RankTest) -> Series:
    counts = tested.counts[tested.worst].double()
    expected = float(counts.mean())
    return Series(
        "ranks",
        tuple(map(float, range(1, len(counts) + 1))),
        tuple(counts.tolist()),
        f"rank of {tested.names[tested.worst]} (1)",
        "chains at the rank (uniform if reversible)",
        (math.sqrt(expected * (1 - 1 / len(counts))),) * len(counts),
        marks=True,
    )
