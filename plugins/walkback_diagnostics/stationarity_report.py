"""Figures, series and warnings of `stationarity` for the recorded frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor

from walkback.measuring.estimates import Side, mean_figure
from walkback.report import Figure, Series
from walkback_diagnostics.neighbours import entropy

PLAIN = 3
"""Number of statistics that are always present, see `plain_names`."""

OUT = 4.5
"""Deviation in standard errors beyond which a statistic differs from the data."""

_LEAST_P = 1e-300
"""p-value below which z is given as a bound."""

UNLIKELY = 1e-3
"""Corrected p-value below which a warning says that the chain drifts."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All frames of the chains and their references.

    Attributes:
        steps: Steps taken at each frame, starting with 0: `(F,)`.
        chains: Statistics at each frame, `(F, C, S)`.
        discrepancy: MMD² of the chains to held-out data at each frame except the first, `(F - 1,)`.
        data: Statistics of held-out examples, `(N, S)`.
        stepped: The same after one step, `(N, S)`.
        by_chance: MMD² of as many other held-out examples, after one step and unchanged; None if there are too few.
        names: Names of the statistics.
    """

    steps: Tensor
    chains: Tensor
    discrepancy: Tensor
    data: Tensor
    stepped: Tensor
    by_chance: tuple[float, float] | None
    names: tuple[str, ...]


def plain_names(size: int) -> tuple[str, ...]:
    """Returns the names of the class-independent statistics of states with `size` entries."""
    return ("mean", "variance" if size > 1 else "squared_deviation", "nearest")


def moving(chains: Tensor) -> Tensor:
    """Returns which statistics of `(F, C, S)` change in any chain: `(S,)`."""
    return (chains != chains[:1]).any(0).any(0)


def figures_of(found: Measured, t: Tensor, left: Tensor) -> tuple[Figure, ...]:
    """Returns all figures.

    Args:
        found: The recorded frames and references.
        t: Change of each statistic in its standard errors, `(S,)`.
        left: The frame from which on each differs from the data, `(S,)`, at least 1.
    """
    kept = moving(found.chains[1:])
    names = tuple(name for name, moves in zip(found.names, kept.tolist(), strict=True) if moves)
    p = p_values(t[kept], found.chains.shape[1])
    fifth = max(1, (len(found.steps) - 1) // 5)
    return (*drift_figures(t[kept], names, p), _of_departure(left, found), *_of_states(found, fifth))


def drift_figures(t: Tensor, names: tuple[str, ...], p: Tensor) -> list[Figure]:
    """Returns the largest change, its p-value, and the change of each statistic, of `(S,)`."""
    worst, single = int(t.abs().argmax()), p / len(p)
    z = torch.from_numpy(norm.isf(single.clamp(min=_LEAST_P).numpy() / 2))
    sides: list[Side] = ["below" if value <= _LEAST_P else None for value in single.tolist()]
    return [
        Figure(
            "drift",
            float(z[worst]),
            "standard errors",
            meaning=f"largest change of {len(z)} statistics from the second to the last fifth of the chain "
            f"({names[worst]}), in its standard errors over chains; below about 3 where nothing drifts",
            side=sides[worst],
        ),
        Figure(
            "drift_p",
            min(1.0, float(p.min())),
            "1",
            meaning="p-value of no drift, corrected for the number of statistics (Bonferroni): small means drift",
        ),
        *(
            Figure(
                f"drift_of_{name}",
                float(value.copysign(change)),
                "standard errors",
                meaning="standard normal without drift",
            )
            for name, value, change in zip(names, z, t, strict=True)
            if name in _MEANINGS
        ),
    ]


def _of_departure(left: Tensor, found: Measured) -> Figure:
    frame, which = int(left.min()), found.names[int(left.argmin())]
    margin = f"more than {OUT} standard errors and the tolerance from held-out data after one step"
    if frame == len(found.steps):
        return Figure(
            "steps_on_data",
            float(found.steps[-1]),
            "steps",
            meaning=f"the chain did not leave the data in all steps run: no statistic ended {margin}",
            side="below",
        )
    return Figure(
        "steps_on_data",
        float(found.steps[frame - 1]),
        "steps",
        meaning="the last time at which the chain was seen on the data: from "
        f"{int(found.steps[frame])} steps to the end {which} was {margin}",
    )


def _of_states(found: Measured, fifth: int) -> list[Figure]:
    last, figures = found.chains[-fifth:].mean(0), []
    for column, name in enumerate(found.names[:PLAIN]):
        figures += [
            mean_figure(
                name,
                last[:, column],
                _UNITS.get(name, "data units"),
                f"{_MEANINGS[name]}: chains, last fifth",
            ),
            mean_figure(
                f"{name}_after_one_step",
                found.stepped[:, column],
                _UNITS.get(name, "data units"),
                "data after one step",
            ),
            mean_figure(
                f"{name}_of_data",
                found.data[:, column],
                _UNITS.get(name, "data units"),
                "held-out data",
            ),
        ]
    by_chance = "" if found.by_chance is None else ", to be read together with mmd_squared_after_one_step"
    figures.append(
        Figure(
            "mmd_squared",
            float(found.discrepancy[-1]),
            "1",
            meaning="of the chains at the end to held-out data, whose median distance is the bandwidth; one value, "
            f"without error{by_chance}",
        )
    )
    if found.by_chance is not None:
        figures += [
            Figure(f"mmd_squared_{name}", value, "1", meaning=f"{meaning}; one value, without error")
            for name, value, meaning in zip(
                ("after_one_step", "of_data"),
                found.by_chance,
                ("of as many other held-out examples after one step", "of as many other held-out examples"),
                strict=True,
            )
        ]
    if len(found.names) > PLAIN:
        figures += [
            entropy_figure("class_entropy", last[:, PLAIN:]),
            entropy_figure("class_entropy_after_one_step", found.stepped[:, PLAIN:]),
        ]
    return figures


def entropy_figure(name: str, rows: Tensor) -> Figure:
    """Returns the entropy of the mean of shares `(n, K)`; its error includes error and bias of the jackknife."""
    num = len(rows)
    meaning = "entropy of the shares of classes, by the nearest training state; its bias, downwards, is in its error"
    total, value = rows.sum(0), entropy(rows.mean(0))
    if int((total > 0).sum()) == 1:
        return Figure(
            name, 0.0, "nats", meaning=f"{meaning}; one class was seen in {num} values", side="below"
        )
    without = torch.tensor(
        [entropy((total - row).clamp(min=0) / (num - 1)) for row in rows], dtype=torch.float64
    )
    bias = (num - 1) * float(without.mean() - value)
    error = math.sqrt((num - 1) * float(without.var(correction=0)))
    return Figure(name, value, "nats", math.hypot(error, bias), meaning=meaning)


_UNITS = {"variance": "data units²", "squared_deviation": "data units²"}
_MEANINGS = {
    "mean": "mean of a state's entries",
    "variance": "variance of a state's entries",
    "squared_deviation": "squared deviation from the mean of the training states",
    "nearest": "distance to the nearest training state",
}


def series_of(found: Measured) -> tuple[Series, ...]:
    """Returns every statistic along the chain, with its value after one step from data as a horizontal line."""
    times = tuple(found.steps.double().tolist())
    ends, label = (times[0], times[-1]), "steps"
    series = []
    for column, name in enumerate(found.names):
        rows = found.chains[..., column]
        error = rows.std(1) / math.sqrt(rows.shape[1])
        kind = name if column < PLAIN else "share of class"
        y_label = f"{kind} ({'1' if column >= PLAIN else _UNITS.get(name, 'data units')})"
        means = tuple(rows.mean(1).tolist())
        series.append(Series(name, times, means, label, y_label, tuple(error.tolist())))
        if column < PLAIN:
            height = float(found.stepped[:, column].mean())
            series.append(Series(f"{name}_after_one_step", ends, (height, height), label, y_label))
    distances = tuple(found.discrepancy.tolist())
    series.append(Series("mmd_squared", times[1:], distances, label, "MMD² to held-out data (1)"))
    return tuple(series)


def warnings_of(found: Measured, t: Tensor, left: Tensor, moved: Tensor) -> tuple[str, ...]:
    """Returns warnings on changes and differences from the data; `moved`: statistics that a step changes, `(S,)`."""
    warnings = []
    away = [name for name, value in zip(found.names[:2], moved.tolist(), strict=False) if value]
    if away:
        warnings.append(
            f"One step takes held-out data off the data ({', '.join(away)}), so that data after one step are no fair "
            "reference: compare with the figures of_data."
        )
    kept = moving(found.chains[1:])
    if not bool(kept.all()):
        still = [name for name, moves in zip(found.names, kept.tolist(), strict=True) if not moves]
        warnings.append(f"No drift is given for statistics that never change: {', '.join(still)}.")
    p = p_values(t[kept], found.chains.shape[1]).tolist()
    names = [name for name, moves in zip(found.names, kept.tolist(), strict=True) if moves]
    changed = [name for name, value in zip(names, p, strict=True) if value < UNLIKELY]
    if changed:
        warnings.append(f"The chain drifts: {', '.join(changed)} changed from its second to its last fifth.")
    off = [name for name, frame in zip(found.names, left.tolist(), strict=True) if frame < len(found.steps)]
    if off:
        warnings.append(f"The chain is not on the data at its end: {', '.join(off)}.")
    return tuple(warnings)


def p_values(t: Tensor, chains: int) -> Tensor:
    """Returns two-sided p-values times the number of statistics (Bonferroni): `(S,)`."""
    p = torch.from_numpy(student_t.sf(t.abs().numpy(), chains - 1))
    return 2 * len(t) * p
