"""Mixing: how fast a chain forgets its start, and whether it visits all of the distribution.

    autocorrelation time    τ = 1 + 2 Σ_k ρ_k       of a statistic f with autocorrelation ρ_k after k steps
    effective sample size   ESS = C N / τ            of C chains of N steps
    R-hat                   √(variance of all chains together / mean variance within chains); 1 if chains mix
    implied timescale       t = -lag / log σ         σ the largest singular value of the propagator (VAMP)
    spectral gap            1 - exp(-1/t)

Statistics are projections on the principal axes of the data (the first coordinates where there are no data), squared
distance to their mean, and log p(s' | s) if the kernel has a density. τ and ESS are Geyer's estimates over split
chains, and R-hat is rank-normalized (Vehtari et al. 2021), both from arviz-stats. Burn-in maximizes the number of
effective samples left (Chodera 2016), from pymbar; VAMP is deeptime's.

R-hat of mixed chains is above 1, by √(1 + 2 τ / N) on average, so a test that accounts for chance decides whether
chains have mixed (`walkback_diagnostics.correlation`). What chains cannot determine is given as a bound: τ of chains
that have not mixed or are shorter than 10 τ, or of antithetic ones.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from walkback.data import has_classes
from walkback.diagnostics import ChainStart, Diagnostic, Subject
from walkback.errors import ConfigurationError
from walkback.known import has_density
from walkback.measuring.estimates import require_enough
from walkback.measuring.recordings import MeasuresRecordings, Recording
from walkback.measuring.traces import cold_level, settle, trace
from walkback.operators import visible
from walkback.report import Figure, Report, Series
from walkback.walk import Transition
from walkback_diagnostics.correlation import burn_in, require_libraries
from walkback_diagnostics.mixing_report import (
    figures_of_classes,
    figures_of_statistics,
    figures_of_timescales,
)
from walkback_diagnostics.neighbours import Neighbours, neighbours

_FOR_AXES = 1000
"""Number of training states from which principal axes are computed."""

_FEWEST = 40
"""Minimum number of recorded steps for any estimate."""


@final
class Mixing(Diagnostic, MeasuresRecordings):
    """Autocorrelation time, effective sample size, R-hat and switching between classes.

    Args:
        chains: Number of independent chains.
        steps: Steps per chain.
        burn_in: Steps discarded before `steps`, or "auto": the first of `steps`, at most half of them, that look like
            relaxation.
        frames: Maximum number of recorded steps: longer chains record every second, third, … step; memory grows with
            it.
        axes: Number of principal axes of the data on which states are projected.
        start: Where chains begin, "annealed" or "data".
        temperature: Temperature of the kernel.
        timescales: Whether to estimate implied timescales (deeptime, `walkback[kinetics]`).
        lag: Recorded steps between the two states from which timescales are estimated.
    """

    def __init__(
        self,
        *,
        chains: PositiveInt = 20,
        steps: PositiveInt = 5000,
        burn_in: Literal["auto"] | NonNegativeInt = "auto",
        frames: Annotated[int, Field(ge=_FEWEST)] = 5000,
        axes: PositiveInt = 4,
        start: ChainStart = "annealed",
        temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0,
        timescales: bool = False,
        lag: PositiveInt = 1,
    ) -> None:
        if steps < _FEWEST:
            raise ConfigurationError(f"Got {steps} steps, expected at least {_FEWEST}: raise --set steps=….")
        require_enough(chains, "chains", "--set chains=…")
        self._chains = chains
        self._steps = steps
        self._burn_in: Literal["auto"] | int = burn_in
        self._frames = frames
        self._axes = axes
        self._start: ChainStart = start
        self._temperature = temperature
        self._timescales = timescales
        self._lag = lag

    def measure(self, subject: Subject) -> Report:
        """Returns figures over independent chains; see `Diagnostic.measure`."""
        require_libraries(timescales=self._timescales)
        values, names, num_classes, every = self._run(subject)
        figures, series, warnings, first = self._found(values, names, num_classes, every)
        protocol = {
            "chains": self._chains,
            "steps": len(values) * every,
            "burn_in": first * every if self._burn_in == "auto" else self._burn_in,
            "every": every,
            "axes": _num_axes(names),
            "start": self._start,
            "temperature": self._temperature,
            "lag": self._lag if self._timescales else None,
        }
        return Report(
            "mixing", "autocorrelation_time", tuple(figures), tuple(series), tuple(warnings), protocol
        )

    def measure_recording(self, recording: Recording) -> Report:
        """Returns figures of recorded chains, whose draws are the steps; axes are those of their own states."""
        require_libraries(timescales=self._timescales)
        pooled = recording.values.flatten(0, 1)
        mean, axes = _axes_of(pooled[:: -(-len(pooled) // _FOR_AXES)], self._axes)
        rows = recording.values.swapaxes(0, 1) - mean
        values = torch.cat([rows @ axes, rows.square().sum(-1, keepdim=True)], -1)
        names = (*(f"axis_{i + 1}" for i in range(axes.shape[1])), "squared_norm")
        if isinstance(self._burn_in, int):
            values = values[self._burn_in :]
        if len(values) < _FEWEST:
            raise ConfigurationError(f"Got {len(values)} draws after burn-in, expected at least {_FEWEST}.")
        figures, series, warnings, first = self._found(values, names, 0, 1)
        protocol = {"burn_in": first if self._burn_in == "auto" else self._burn_in, "axes": axes.shape[1]}
        return Report(
            "mixing", "autocorrelation_time", tuple(figures), tuple(series), tuple(warnings), protocol
        )

    def _found(
        self, values: Tensor, names: tuple[str, ...], num_classes: int, every: int
    ) -> tuple[list[Figure], list[Series], list[str], int]:
        """Returns figures, series and warnings of records `(N, C, S)`, and how many were left out as burn-in."""
        looks = burn_in(values[..., : len(names)]) if self._burn_in == "auto" else 0
        first = min(looks, len(values) // 2)
        kept = values[first:]
        figures, series, warnings = figures_of_statistics(kept[..., : len(names)], names, every)
        if self._burn_in == "auto":
            figures.append(_figure_of_burn_in(first * every))
            if looks > first:
                warnings.append(
                    "More than half of the steps look like burn-in, half were left out: chains still relax, or are too "
                    "short to tell; raise --set steps=…."
                )
        if self._timescales:
            figures += figures_of_timescales(kept[..., : _num_axes(names)], self._lag, every)
        if num_classes:
            further, lines = figures_of_classes(kept[..., -1].long(), num_classes, every)
            figures += further
            series += lines
        return figures, series, warnings, first

    def _run(self, subject: Subject) -> tuple[Tensor, tuple[str, ...], int, int]:
        """Returns statistics `(N, C, S)`, the class last if any; names; classes; steps between records."""
        level, operator = cold_level(subject, self._temperature), subject.model.operator
        mean, axes = principal_axes(subject, self._axes)
        known: Neighbours | None = neighbours(subject) if has_classes(subject.data()) else None
        start = subject.start(self._start, self._chains)
        density = has_density(operator(start.state, level, start.context).cooling(level))

        def statistics(step: Transition) -> Tensor:
            states = visible(operator, step.target)
            rows = states.double().flatten(1) - mean
            columns = [rows @ axes, rows.square().sum(1, keepdim=True)]
            if density:
                columns.append(step.log_q.double()[:, None])
            if known is not None:
                columns.append(known.nearest(states)[1].double()[:, None])
            return torch.cat(columns, 1)

        if self._burn_in != "auto":
            start = settle(subject, start, level, self._burn_in)
        ran = trace(
            subject, start, level, self._steps, statistics, name="mixing", blocks=self._frames, reduce="last"
        )
        names = (*(f"axis_{i + 1}" for i in range(axes.shape[1])), "squared_norm")
        names = (*names, "log_probability") if density else names
        return ran.values, names, 0 if known is None else known.num_classes, ran.block


def principal_axes(subject: Subject, num: int) -> tuple[Tensor, Tensor]:
    """Returns mean `(D,)` and leading principal axes `(D, num)` of training states, float64; fewer if D < num.

    Without data, these are 0 and the first coordinates.
    """
    if not len(subject.data().examples("train")):
        every = torch.eye(subject.info.space.size, dtype=torch.float64, device=subject.device)
        return torch.zeros_like(every[0]), every[:, :num]
    return _axes_of(subject.training(_FOR_AXES, "axes")[1].double().flatten(1), num)


def _axes_of(states: Tensor, num: int) -> tuple[Tensor, Tensor]:
    mean = states.mean(0)
    axes: Tensor = torch.linalg.svd(states - mean, full_matrices=False)[2].T
    return mean, axes[:, :num].contiguous()


def _num_axes(names: tuple[str, ...]) -> int:
    return sum(name.startswith("axis_") for name in names)


def _figure_of_burn_in(steps: int) -> Figure:
    return Figure(
        "burn_in",
        float(steps),
        "steps",
        meaning="steps left out at the beginning, after which most effective samples are left (pymbar); no error",
    )
