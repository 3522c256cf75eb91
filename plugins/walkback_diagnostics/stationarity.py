"""Stationarity: whether a chain at T = 1 stays on the data, and when it leaves.

    drift       z = mean over chains of (mean of f over the last fifth - over the second fifth) / its standard error
    on data     |mean of f over chains - mean of f over data after one step| < 4.5 errors + tolerance · std of f

for statistics f of single states: mean and variance of the entries, distance to the nearest training state, and the
class of that state if the data have classes. A single entry has no variance: its squared deviation from the mean of the
training states is used instead. A change is given as the z of a normal distribution with the same p-value as its
Student's t. The fair reference is held-out data after one step of the same operator, because a chain's states contain
the noise of their last step and data do not. MMD² to held-out data compares the whole distributions.
"""

from __future__ import annotations

import math
from typing import Annotated, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from walkback.data import Batch
from walkback.diagnostics import ChainStart, Diagnostic, Subject
from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring.estimates import require_enough, require_error_of_mean
from walkback.measuring.quality.mmd import mmd_squared
from walkback.measuring.recordings import MeasuresRecordings, Recording
from walkback.measuring.traces import cold_level, trace
from walkback.operators import initial_state, visible
from walkback.report import Report, Series
from walkback.schedules import Level
from walkback.state import State
from walkback.walk import Transition
from walkback_diagnostics.neighbours import Neighbours, neighbours
from walkback_diagnostics.stationarity_report import (
    OUT,
    UNLIKELY,
    Measured,
    drift_figures,
    figures_of,
    moving,
    p_values,
    plain_names,
    series_of,
    warnings_of,
)


@final
class Stationarity(Diagnostic, MeasuresRecordings):
    """Compares statistics of long chains with those of held-out data.

    Args:
        chains: Number of independent chains; standard errors come from the spread between them.
        steps: Steps per chain.
        frames: Number of evenly spaced times at which chains are recorded.
        start: Where chains begin, "annealed" or "data".
        reference: Number of held-out examples to compare with; the whole test split if it has fewer.
        temperature: Temperature of the kernel.
        tolerance: Difference to the data that is ignored, in standard deviations of the statistic over data.
    """

    def __init__(
        self,
        *,
        chains: PositiveInt = 100,
        steps: PositiveInt = 10_000,
        frames: Annotated[int, Field(ge=10)] = 50,
        start: ChainStart = "annealed",
        reference: Annotated[int, Field(ge=4)] = 1000,
        temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0,
        tolerance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.1,
    ) -> None:
        if steps < frames:
            raise ConfigurationError(
                f"Got {steps} steps and {frames} frames, expected a step for each frame: raise --set steps=…."
            )
        require_enough(chains, "chains", "--set chains=…")
        self._chains = chains
        self._steps = steps
        self._frames = frames
        self._start: ChainStart = start
        self._reference = reference
        self._temperature = temperature
        self._tolerance = tolerance

    def measure(self, subject: Subject) -> Report:
        """Returns figures over independent chains; see `Diagnostic.measure`."""
        require_error_of_mean(subject.data(), "test", self._reference, "--set reference", None)
        level = cold_level(subject, self._temperature)
        found = self._run(subject, level)
        fifth = max(1, (len(found.steps) - 1) // 5)
        t = drifts(found.chains[1 + fifth : 1 + 2 * fifth], found.chains[-fifth:])
        if not bool(moving(found.chains[1:]).any()):
            raise WalkbackError("Got chains on which no statistic ever changes, expected chains that move.")
        # Data do not contain the noise of a step yet, so the frame before the first step is not judged.
        left = 1 + departures(found.chains[1:], found.stepped, self._tolerance)
        moved = departures(found.stepped[None], found.data, self._tolerance) == 0
        protocol = {
            "chains": self._chains,
            "steps": int(found.steps[-1]),
            "frames": len(found.steps) - 1,
            "start": self._start,
            "reference": len(found.data),
            "temperature": self._temperature,
            "tolerance": self._tolerance,
        }
        return Report(
            "stationarity",
            "drift",
            figures_of(found, t, left),
            series_of(found),
            warnings_of(found, t, left, moved),
            protocol,
        )

    def measure_recording(self, recording: Recording) -> Report:
        """Returns the drift of recorded chains; whether they are on data cannot be told without any."""
        rows = recording.values.swapaxes(0, 1)
        centre = rows.flatten(0, 1).mean(0)
        spread = rows.var(-1, correction=0) if rows.shape[-1] > 1 else (rows - centre).square().sum(-1)
        values = torch.stack([rows.mean(-1), spread], -1)
        kept = moving(values)
        if not bool(kept.any()):
            raise WalkbackError("Got chains on which no statistic ever changes, expected chains that move.")
        names = tuple(name for name, moves in zip(("mean", "variance"), kept.tolist(), strict=True) if moves)
        return drift_of_recording(values[..., kept], names)

    def _run(self, subject: Subject, level: Level) -> Measured:
        known = neighbours(subject)
        held_out, spare = self._held_out(subject)
        bandwidth = _median_distance(held_out.states)
        stepped = _one_step(subject, held_out, level, 0)

        def far(states: Tensor) -> float:
            return mmd_squared(states, held_out.states, bandwidth)

        def look(state: State) -> Tensor:
            return statistics(visible(subject.model.operator, state), known)

        def frame(step: Transition) -> Tensor:
            rows = look(step.target)
            distance = far(visible(subject.model.operator, step.target))
            return torch.cat([rows, rows.new_full((len(rows), 1), distance)], 1)

        start = subject.start(self._start, self._chains)
        first = look(start.state).cpu()
        ran = trace(
            subject, start, level, self._steps, frame, name="long-chain", blocks=self._frames, reduce="last"
        )
        enough = len(spare) == self._chains
        chance = (far(_one_step(subject, spare, level, 1)), far(spare.states)) if enough else None
        return Measured(
            torch.arange(len(ran.values) + 1) * ran.block,
            torch.cat([first[None], ran.values[..., :-1]]),
            ran.values[:, 0, -1],
            statistics(held_out.states, known).cpu(),
            statistics(stepped, known).cpu(),
            chance,
            (
                *plain_names(held_out.states[0].numel()),
                *(f"share_of_class_{i}" for i in range(known.num_classes)),
            ),
        )

    def _held_out(self, subject: Subject) -> tuple[Batch, Batch]:
        """Returns examples to compare with, and as many others as there are chains; fewer or none if data are few."""
        there = len(subject.data().examples("test"))
        rows = subject.held_out("test", min(there, self._reference + self._chains))
        return rows[: self._reference], rows[self._reference :]


def statistics(states: Tensor, known: Neighbours) -> Tensor:
    """Returns mean and variance of the entries, distance to the nearest training state, and its class (one-hot).

    For a single entry, the variance is replaced by the squared deviation from the mean of the training states.

    Returns:
        `(C, 3 + K)`, float64, of states `(C, *E)`.
    """
    rows = states.double().flatten(1)
    distance, kind = known.nearest(states)
    kinds = torch.nn.functional.one_hot(kind, max(known.num_classes, 1))[:, : known.num_classes]
    spread = rows.var(1, correction=0) if rows.shape[1] > 1 else (rows - known.mean).square().sum(1)
    plain = torch.stack([rows.mean(1), spread, distance.double()], 1)
    return torch.cat([plain, kinds.double()], 1)


def drifts(early: Tensor, late: Tensor) -> Tensor:
    """Returns Student's t of the change from the frames `early` to the frames `late`, both `(F, C, S)`: `(S,)`."""
    change = late.mean(0) - early.mean(0)
    error = change.std(0) / math.sqrt(len(change))
    return torch.where(change.mean(0) == 0, 0.0, change.mean(0) / error)


def drift_of_recording(values: Tensor, names: tuple[str, ...]) -> Report:
    """Returns the report on statistics `(N, C, S)` of all draws of recorded chains."""
    fifth = len(values) // 5
    t = drifts(values[fifth : 2 * fifth], values[-fifth:])
    figures = drift_figures(t, names, p_values(t, values.shape[1]))
    draws = tuple(map(float, range(len(values))))
    series = [
        Series(
            name,
            draws,
            tuple(values[..., column].mean(1).tolist()),
            "draws",
            f"{name} (data units)",
            tuple((values[..., column].std(1) / math.sqrt(values.shape[1])).tolist()),
        )
        for column, name in enumerate(names)
    ]
    changed = [
        name for name, p in zip(names, p_values(t, values.shape[1]).tolist(), strict=True) if p < UNLIKELY
    ]
    warnings = (f"The chain drifts: {', '.join(changed)} changed from its second to its last fifth.",)
    return Report("stationarity", "drift", tuple(figures), tuple(series), warnings if changed else (), {})


def departures(chains: Tensor, data: Tensor, tolerance: float) -> Tensor:
    """Returns the first frame from which on each statistic differs from the data, `(S,)`, or F if it agrees at the end.

    Args:
        chains: `(F, C, S)`.
        data: `(N, S)`.
        tolerance: Difference that is ignored, in standard deviations over data.
    """
    spread = data.std(0)
    # Use the larger spread of the two: a class that no chain is in would have an error of 0.
    own = torch.maximum(chains.std(1), spread)
    error = (own.square() / chains.shape[1] + spread.square() / len(data)).sqrt()
    outside = (chains.mean(1) - data.mean(0)).abs() > OUT * error + tolerance * spread
    stays = outside.flip(0).long().cumprod(0)
    return len(chains) - stays.sum(0)


@torch.no_grad()
def _one_step(subject: Subject, data: Batch, level: Level, number: int) -> Tensor:
    operator, draw = subject.model.operator, subject.generator("one-step", number)
    state, _ = initial_state(operator, data.states, draw)
    return visible(operator, operator(state, level, data.context).cooling(level).sample(draw))


def _median_distance(states: Tensor) -> float:
    """Returns the median distance over all pairs of `(N, *E)`: a bandwidth at the scale of the data."""
    rows = states.double().flatten(1)
    median = float(torch.pdist(rows).median())
    if not median > 0:
        raise WalkbackError(
            "Got held-out examples of which most are equal, expected different ones: MMD² has no bandwidth."
        )
    return median
