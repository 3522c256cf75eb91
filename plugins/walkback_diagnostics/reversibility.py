"""Detailed balance of the chain: entropy production and entropy rate (appendix H of the paper).

    e = 1/K Σ_t log p(s_{t+1} | s_t) - log p(s_t | s_{t+1})        0 if and only if p obeys detailed balance
    h = 1/K Σ_t -log p(s_{t+1} | s_t)                              irreversibility = e / h

after a burn-in, as means over independent chains. For continuous states h is a differential entropy, which has no
absolute zero: the ratio is given only if h is clearly positive, and compares operators on the same data only.

For a chain that is not stationary, e contains (log π(s_K) - log π(s_0)) / K even if p is reversible. Both halves of the
chain are reported for this reason, and if they differ, their difference is added to the error of e.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, final

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from walkback.diagnostics import ChainStart, Diagnostic, Subject
from walkback.errors import WalkbackError
from walkback.known import has_density, require_density
from walkback.measuring.estimates import mean_figure, ratio_figure, require_enough
from walkback.measuring.traces import cold_level, settle, trace
from walkback.measuring.work import ClippingCheck
from walkback.report import Figure, Report, Series
from walkback.schedules import Level
from walkback.state import dimensions, spaces
from walkback.walk import Start, Transition
from walkback_diagnostics.rank_test import RankTest, rank_test, require_enough_chains

_DOUBT = 3.0
"""Difference of the halves of a chain, in standard errors, that triggers a warning (by chance in 0.3 %)."""

_PRODUCTION = "log p(s'|s) - log p(s|s'), mean over steps and chains: 0 for a reversible chain"
_IRREVERSIBILITY = (
    "entropy production / entropy rate: 0 for a reversible chain; the paper has 3.6 % on MNIST (appendix H)"
)
_RATE = "-log p(s'|s), mean over steps and chains"


@final
class Reversibility(Diagnostic):
    """Entropy production of chains at one temperature, and the rank test of detailed balance.

    Args:
        chains: Number of independent chains; standard errors come from the spread between them.
        burn_in: Steps before recording.
        steps: Steps recorded.
        temperature: Temperature of the kernel.
        start: Where chains begin, "annealed" or "data".
        rank_chains: Further chains for the rank test, with the same burn-in; 0 skips the test.
        rank_steps: Steps of each of them; there is one more rank than steps.
        rank_tests: Number of random projections whose ranks are tested, in addition to mean, squared norm and
            direction.
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
        require_enough(chains, "chains", "--set chains=…")
        self._chains = chains
        self._burn_in = burn_in
        self._steps = steps
        self._temperature = temperature
        self._start: ChainStart = start
        self._rank = (rank_chains, rank_steps, rank_tests)
        if rank_chains:
            require_enough_chains(rank_chains, rank_steps)

    def measure(self, subject: Subject) -> Report:
        """Returns figures over independent chains; see `Diagnostic.measure`."""
        level = cold_level(subject, self._temperature)
        start = subject.start(self._start, self._chains)
        if not has_density(subject.model.operator(start.state, level, start.context).cooling(level)):
            return self._without_density(subject, start, level)
        start = settle(subject, start, level, self._burn_in)
        ways = _BothWays(subject)
        found = trace(subject, start, level, self._steps, ways, name="entropy-production", check=ways.require)
        production, rate = found.values.unbind(-1)
        kinds = {space.support for space in spaces(subject.model.prior.space)}
        figures, warnings = _figures(production, rate, dimensions(subject.model.prior.space))
        ratios, further = _ratios(subject, production.mean(0), rate.mean(0), "real" in kinds)
        figures, warnings = figures + ratios, warnings + further
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
            "reversibility", "entropy_production", tuple(figures), tuple(series), tuple(warnings), protocol
        )

    def _without_density(self, subject: Subject, start: Start, level: Level) -> Report:
        """Returns the rank test alone, which needs states only."""
        if not self._rank[0]:
            require_density(subject.model.operator, start.state, "an entropy production")
        tested = self._test(subject, level)
        protocol = {
            "burn_in": self._burn_in,
            "temperature": self._temperature,
            "start": self._start,
            "rank_chains, rank_steps, rank_tests": list(self._rank),
        }
        warning = "The kernel has no density, so entropy production is undefined; only the rank test was run."
        return Report(
            "reversibility",
            "rank_test_p",
            (_rank_figure(tested),),
            (_rank_series(tested),),
            (warning,),
            protocol,
        )

    def _test(self, subject: Subject, level: Level) -> RankTest:
        num, steps, projections = self._rank
        start = subject.start(self._start, num)
        start = settle(subject, start, level, self._burn_in, name="burn-in-of-the-rank-test")
        return rank_test(subject, start, level, steps, projections)


@final
class _BothWays:
    """Records log p(s'|s) - log p(s|s') and -log p(s'|s), `(C, 2)`; `require` raises if they are not finite."""

    def __init__(self, subject: Subject) -> None:
        self._clipping = ClippingCheck(subject.model)
        self._faults: list[Tensor] = []
        self._chains = 0

    def __call__(self, step: Transition) -> Tensor:
        there, back = step.log_q.double(), step.log_p.double()
        self._clipping.look(step.target)
        self._chains = len(there)
        self._faults.append(torch.stack([(~there.isfinite()).sum(), (back == -math.inf).sum()]))
        return torch.stack([there - back, -there], 1)

    def require(self) -> None:
        faults, self._faults = torch.stack(self._faults).tolist(), []
        for lost, impossible in faults:
            if lost:
                raise WalkbackError(
                    f"Got {lost} of {self._chains} steps whose log-density is not finite, "
                    "expected finite ones: the kernel is deterministic (its variance is 0) or diverges."
                )
            if impossible:
                raise WalkbackError(
                    f"Got {impossible} of {self._chains} steps whose step back is impossible (its probability is 0), "
                    "expected a kernel that can go back: the entropy production is infinite."
                )
        self._clipping.require()


def _figures(production: Tensor, rate: Tensor, size: int) -> tuple[list[Figure], list[str]]:
    """Returns all figures of `(blocks, C)`, and a warning if the two halves differ."""
    of_chain, rate_of_chain = production.mean(0), rate.mean(0)
    halves, change = _halves(production)
    produced = mean_figure("entropy_production", of_chain, "nats/step", _PRODUCTION)
    doubtful = change is not None and abs(change.value) > _DOUBT * (change.error or 0.0) + 1e-12 * abs(
        produced.value
    )
    if change is not None and doubtful:
        produced = _widened(produced, abs(change.value))
    per_dimension = replace(
        produced,
        name="entropy_production_per_dimension",
        value=produced.value / size,
        unit="nats/step/dim",
        error=None if produced.error is None else produced.error / size,
        interval=None
        if produced.interval is None
        else (produced.interval[0] / size, produced.interval[1] / size),
        meaning="entropy_production / number of dimensions of the state",
    )
    figures = [
        produced,
        per_dimension,
        mean_figure("entropy_rate", rate_of_chain, "nats/step", _RATE),
        mean_figure(
            "entropy_rate_per_dimension",
            rate_of_chain,
            "nats/step/dim",
            "entropy_rate / number of dimensions of the state",
            scale=1 / size,
        ),
        *halves,
    ]
    if change is None or not doubtful:
        return figures, []
    return figures, [
        f"The entropy production of the second half of the chains differs from that of the first by "
        f"{change.value:+.4g} ± {change.error:.2g} nats/step, more than {_DOUBT:g} standard errors: the chain is not "
        "stationary, and the entropy production holds a change of log π beside what is irreversible (the difference "
        "is in its error); raise --set burn_in=…."
    ]


def _halves(production: Tensor) -> tuple[list[Figure], Figure | None]:
    """Returns the entropy production of both halves of `(blocks, C)`, and its change; nothing for a single block."""
    half = len(production) // 2
    if not half:
        return [], None
    early, late = production[:half].mean(0), production[-half:].mean(0)
    meaning = "should equal that of the other half: else the chain is not stationary"
    return [
        mean_figure("entropy_production_first_half", early, "nats/step", meaning),
        mean_figure("entropy_production_second_half", late, "nats/step", meaning),
    ], mean_figure("change", late - early, "nats/step")


def _widened(figure: Figure, bias: float) -> Figure:
    """Returns the figure with a possible bias included in its error and at both ends of its interval."""
    low, high = figure.interval or (figure.value, figure.value)
    return replace(figure, error=math.hypot(figure.error or 0.0, bias), interval=(low - bias, high + bias))


def _ratios(
    subject: Subject, production: Tensor, rate: Tensor, continuous: bool
) -> tuple[list[Figure], list[str]]:
    """Returns entropy production over entropy rate of chains `(C,)` if the rate is clearly positive; and what is
    omitted.

    For data that were gray levels, also relative to the entropy rate of the gray levels, as bits/dim are.
    """
    figures = []
    space, bins = subject.model.prior.space, subject.info.bins
    if _is_positive(rate):
        figures.append(ratio_figure("irreversibility", production, rate, "%", _IRREVERSIBILITY, scale=100.0))
    if bins is not None and not isinstance(space, tuple):
        entropy = rate + dimensions(space) * math.log(bins)
        if _is_positive(entropy):
            meaning = (
                f"entropy production / (entropy rate + D log {bins}): the rate of states rounded to the gray levels of "
                "the data, as far as these are finer than the noise of a step"
            )
            figures.append(
                ratio_figure("irreversibility_of_grey_levels", production, entropy, "%", meaning, scale=100.0)
            )
    if not _is_positive(rate):
        figure = mean_figure("entropy_rate", rate, "nats/step")
        return figures, [
            f"The entropy rate is {figure.value:.4g} ± {figure.error:.2g} nats/step, not clearly positive, so the "
            "ratio to it is meaningless and is omitted."
        ]
    if continuous:
        return figures, [
            "The entropy rate of continuous states is a differential entropy, which depends on their scale: compare "
            "irreversibility between operators on the same data only, or read entropy_production."
        ]
    return figures, []


def _is_positive(rate: Tensor) -> bool:
    """Returns whether the mean rate of chains exceeds 0 by three errors and by Student's 95 % interval."""
    figure = mean_figure("entropy_rate", rate, "nats/step")
    return figure.value > 3 * (figure.error or 0.0) and (figure.interval or (0.0,))[0] > 0


def _series(production: Tensor, block: int) -> list[Series]:
    """Returns entropy production along the chain and over chains."""
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
