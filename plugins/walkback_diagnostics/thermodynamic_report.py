"""Figures and series of works and entropy productions; see `thermodynamics`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from walkback.measuring.estimates import Side, bracket_figure, mean_figure
from walkback.measuring.work import effective_sample_size, exponential_average
from walkback.report import Figure, Report, Series

_BINS = 30
_LEVEL, _PRODUCTION = "level (step of the schedule)", "entropy production (nats/step)"
_ALARM = 5.0
_MISSED = 0.025
"""Probability of having missed an overlap as large as the reported bound."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Works and entropy productions, nats, float64 on the CPU: N examples, P paths, K levels, C chains.

    Attributes:
        cooled_heating: W of heating from cooled s_0, `(N, P)`.
        cooled_cooling: W of the cooling paths that produced them, `(N,)`.
        heating_production: Δ_t of heating, mean over paths, `(N, K)`.
        cooling_production: Δ_t of cooling, `(N, K)`.
        bennett: F(s_0) by Bennett's ratio, `(N,)`; None if not computed.
        data_heating: W of heating from data, `(N', P)`; None if not computed.
        data_production: Δ_t of it, `(N', K)`.
        stationary: Entropy production per step of chains held at each level, `(C, K)`; None if not computed.
        dimensions: Number of dimensions of a state.
        data_dimensions: Number of dimensions of an example.
    """

    cooled_heating: Tensor
    cooled_cooling: Tensor
    heating_production: Tensor
    cooling_production: Tensor
    bennett: Tensor | None
    data_heating: Tensor | None
    data_production: Tensor | None
    stationary: Tensor | None
    dimensions: int
    data_dimensions: int

    @property
    def above(self) -> Tensor:
        """Returns Jarzynski's estimate of F(s_0), `(N,)`."""
        return exponential_average(self.cooled_heating)

    @property
    def below(self) -> Tensor:
        """Returns the same with the cooling path in place of one heating path, `(N,)`."""
        return exponential_average(torch.cat([self.cooled_cooling[:, None], self.cooled_heating[:, 1:]], 1))


def thermodynamic_report(measured: Measured) -> Report:
    """Returns all figures, series and warnings.

    Raises:
        WalkbackError: There are too few values for an error, or one is not finite.
    """
    theorem = _fluctuation_theorem(measured)
    figures = [
        *_of_work(measured),
        overlap_figure(measured.cooled_heating - measured.cooled_cooling[:, None]),
        *_of_free_energy(measured),
        *_split(measured),
        *_of_data(measured),
        theorem,
        mean_figure(
            "effective_sample_size",
            effective_sample_size(measured.cooled_heating),
            "paths",
            f"of the {measured.cooled_heating.shape[1]} heating paths from a cooled s_0, by their weights exp(-W)",
        ),
    ]
    series = [*_productions(measured), *_histograms(measured)]
    return Report(
        "thermodynamics", "hysteresis", tuple(figures), tuple(series), tuple(_warnings(measured, theorem))
    )


def overlap_figure(difference: Tensor) -> Figure:
    """Returns how much heating and cooling paths have in common, from D = W_heat - W_cool `(N, P)`; see
    `thermodynamics`.

    If the overlap is too small for N examples to show, the figure is an upper bound.

    Raises:
        WalkbackError: There are too few examples for an error.
    """
    values = 2 * (-difference).sigmoid().mean(1)
    meaning = (
        "2 E[1 / (1 + exp(D))], D = W_heat - W_cool: 1 where both directions are alike, 0 without overlap"
    )
    figure = mean_figure("overlap", values, "1", meaning)
    if float(values.sum()) >= 2:  # as much as one example with identical paths
        return figure
    # An event with probability s per example is missed by all N examples with probability (1 - s)^N.
    least = min(1.0, 2 * (1 - _MISSED ** (1 / len(values))))
    unseen = f"{meaning}; too small to be seen in {len(values)} examples"
    return Figure("overlap", least, "1", meaning=unseen, side="above")


def per_dimension(figure: Figure, dimensions: int) -> Figure:
    """Returns the figure in nats per dimension."""
    return replace(
        figure,
        name=f"{figure.name}_per_dimension",
        value=figure.value / dimensions,
        unit="nats/dim",
        error=None if figure.error is None else figure.error / dimensions,
        interval=None
        if figure.interval is None
        else (figure.interval[0] / dimensions, figure.interval[1] / dimensions),
        meaning=f"{figure.name} over {dimensions} dimensions",
    )


def _nats(name: str, values: Tensor, dimensions: int, meaning: str, side: Side = None) -> Iterator[Figure]:
    figure = mean_figure(name, values, "nats", meaning, side=side)
    yield from (figure, per_dimension(figure, dimensions))


def _between(name: str, low: Tensor, high: Tensor, dimensions: int, meaning: str) -> Iterator[Figure]:
    figure = bracket_figure(
        name, low, high, "nats", f"{meaning}; half the width of the bracket is in its error"
    )
    yield from (figure, per_dimension(figure, dimensions))


def _of_work(measured: Measured) -> Iterator[Figure]:
    heating, cooling, size = measured.cooled_heating.mean(1), measured.cooled_cooling, measured.dimensions
    yield from _nats(
        "hysteresis",
        heating - cooling,
        size,
        "work of heating less work of cooling: KL(heating ‖ cooling) + KL(cooling ‖ heating) of paths, 0 at best",
    )
    yield from _nats("work_heating", heating, size, "-log p(s_0) of cooled s_0 is below it (eq. 5)")
    yield from _nats("work_cooling", cooling, size, "-log p(s_0) of cooled s_0 is above it")


def _of_free_energy(measured: Measured) -> Iterator[Figure]:
    heating, cooling, size = measured.cooled_heating.mean(1), measured.cooled_cooling, measured.dimensions
    above, below = measured.above, measured.below
    yield from _nats(
        "free_energy_above",
        above,
        size,
        "Jarzynski's estimate of E[-log p(s_0)] of cooled s_0, too high by the finite number of paths",
        "above",
    )
    yield from _nats(
        "free_energy_below",
        below,
        size,
        "the same with the cooling path in place of one heating path: too low",
        "below",
    )
    yield from _between(
        "free_energy",
        below,
        above,
        size,
        "the middle of both, E[-log p(s_0)] of cooled s_0: the model's entropy",
    )
    if measured.bennett is not None:
        figure = _bennett_figure(measured.bennett, below, above)
        yield from (figure, per_dimension(figure, size))
    yield from _between(
        "dissipated_heating",
        heating - above,
        heating - below,
        size,
        "work of heating less free energy: the gap of the bound on cooled s_0 (eq. 6)",
    )
    yield from _between(
        "dissipated_cooling", below - cooling, above - cooling, size, "free energy less work of cooling"
    )


def _bennett_figure(bennett: Tensor, below: Tensor, above: Tensor) -> Figure:
    """Returns Bennett's estimate; its bias is unknown, so its error extends to the farther end of the bracket."""
    bracket = bracket_figure("free_energy", below, above, "nats")
    low, high = bracket.interval or (bracket.value, bracket.value)
    figure = mean_figure("free_energy_bennett", bennett, "nats")
    own = figure.interval or (figure.value, figure.value)
    far = max(abs(figure.value - below.mean().item()), abs(figure.value - above.mean().item()))
    return replace(
        figure,
        error=math.hypot(figure.error or 0.0, far),
        interval=(min(low, own[0]), max(high, own[1])),
        meaning="the same by Bennett's ratio, of unknown bias: its error reaches to the farther end of the bracket",
    )


def _split(measured: Measured) -> Iterator[Figure]:
    """Splits the gap as in eq. 8, with stationary chains in place of the heated path."""
    if measured.stationary is None:
        return
    produced = mean_figure(
        "irreversibility",
        measured.stationary.sum(1),
        "nats",
        "entropy that one step of a stationary chain at each T_t produces, summed over levels; stands in for the first "
        "term of eq. 8, whose average is over the heated path: 0 under detailed balance",
    )
    yield from (produced, per_dimension(produced, measured.dimensions))
    heating = measured.cooled_heating.mean(1)
    gap = bracket_figure("gap", heating - measured.above, heating - measured.below, "nats")
    ends = [
        end - centre
        for figure, centre in ((gap, gap.value), (produced, produced.value))
        for end in figure.interval or ()
    ]
    value = gap.value - produced.value
    excess = Figure(
        "excess_heat",
        value,
        "nats",
        math.hypot(gap.error or 0.0, produced.error or 0.0),
        (value - math.hypot(ends[0], ends[3]), value + math.hypot(ends[1], ends[2])),
        "dissipated work of heating less irreversibility, the second term of eq. 8: levels too far apart, and where "
        "heating has a kernel of its own, how it differs from the cooling kernel",
    )
    yield from (excess, per_dimension(excess, measured.dimensions))


def _of_data(measured: Measured) -> Iterator[Figure]:
    if measured.data_heating is None:
        return
    size = measured.data_dimensions
    yield from _nats(
        "work_data",
        measured.data_heating.mean(1),
        size,
        "of heating held-out data: the negative bound (eq. 5)",
    )
    yield from _nats(
        "free_energy_above_data",
        exponential_average(measured.data_heating),
        size,
        "Jarzynski's estimate of E[-log p] of held-out data (eq. 10), too high by the finite number of paths",
        "above",
    )


def _fluctuation_theorem(measured: Measured) -> Figure:
    """Tests E[tanh(D/2) / (1 + exp(D))] = 0: Crooks' theorem ρ(D) = exp(D) ρ(-D) in a bounded form, smooth at D = 0.

    exp(-D/2) ρ(D) is even, so exp(-D/2) k(D) averages to 0 for every odd k; here k = tanh(D/2) / (2 cosh(D/2)).
    """
    difference = measured.cooled_heating - measured.cooled_cooling[:, None]
    values = (difference / 2).tanh() * (-difference).sigmoid()
    return mean_figure(
        "fluctuation_theorem",
        values.mean(1),
        "1",
        "E[tanh(D/2) / (1 + exp(D))], D = W_heat - W_cool: 0 for every model whose samples follow its densities",
    )


def _productions(measured: Measured) -> Iterator[Series]:
    rows = {
        "production_heating": measured.heating_production,
        "production_cooling": measured.cooling_production,
        "production_data": measured.data_production,
        "production_stationary": measured.stationary,
    }
    for name, values in rows.items():
        if values is not None:
            error = values.std(0) / math.sqrt(len(values))
            yield Series(
                name,
                tuple(float(step) for step in range(1, values.shape[1] + 1)),
                tuple(values.mean(0).tolist()),
                _LEVEL,
                _PRODUCTION,
                tuple(error.tolist()),
            )


def _histograms(measured: Measured) -> Iterator[Series]:
    rows = {
        "histogram_heating": measured.cooled_heating,
        "histogram_cooling": measured.cooled_cooling,
        "histogram_data": measured.data_heating,
    }
    works = {name: values.flatten().numpy() for name, values in rows.items() if values is not None}
    edges = np.histogram_bin_edges(np.concatenate(list(works.values())), _BINS)
    centres = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    for name, values in works.items():
        density, _ = np.histogram(values, edges, density=True)
        yield Series(name, centres, tuple(density.tolist()), "work (nats)", "density (1/nats)")


def _warnings(measured: Measured, theorem: Figure) -> Iterator[str]:
    for what, works in (("cooled states", measured.cooled_heating), ("held-out data", measured.data_heating)):
        if works is None:
            continue
        dominated = int((effective_sample_size(works) < 2).sum())
        if dominated:
            yield (
                f"One of the {works.shape[1]} heating paths outweighs the others at {dominated} of {len(works)} "
                f"{what} (effective sample size below 2): free energies are only bounded from both sides; raise paths."
            )
    # By chance alone, this happens once in a million measurements.
    if abs(theorem.value) > _ALARM * (theorem.error or 0.0) and abs(theorem.value) > 1e-6:
        yield (
            f"Work of heating and of cooling break Crooks' theorem ({theorem.value:.3g} ± {theorem.error:.1g}, "
            "expected 0): samples do not follow the densities that the model gives for them."
        )
