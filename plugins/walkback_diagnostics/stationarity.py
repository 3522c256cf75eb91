"""Does a chain at T = 1 stay on the data, and when does it leave?

    drift       z = mean over chains of (mean of f over the last fifth - over the second fifth) / its standard error
    on data     |mean of f over chains - mean of f over data after one step| < 4.5 errors + tolerance · std of f

for statistics f of single states: mean and variance of the entries, distance to the nearest training state, and the
class of that state where the data have classes. A single entry has no variance: its squared deviation from the mean of
the training states stands in. A change is given as the z of a normal law with the p of its Student's t. The fair
reference is held-out data after one step of the same operator: a chain's states carry the noise of their last step,
data do not. MMD² to held-out data sees the whole law.
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
from walkback.measuring.traces import cold_level, trace
from walkback.operators import initial_state, visible
from walkback.report import Report
from walkback.schedules import Level
from walkback.state import State
from walkback.walk import Transition
from walkback_diagnostics.neighbours import Neighbours, neighbours
from walkback_diagnostics.stationarity_report import (
    OUT,
    Measured,
    figures_of,
    moving,
    plain_names,
    series_of,
    warnings_of,
)


@final
class Stationarity(Diagnostic):
    """Statistics of long chains beside those of held-out data.

    Args:
        chains: Independent chains; standard errors are from the scatter between them.
        steps: Of each chain.
        frames: Times at which chains are looked at, evenly spaced.
        start: Where chains begin, "annealed" or "data".
        reference: Held-out examples to compare with; all of the test split where it has fewer.
        temperature: Of the kernel.
        tolerance: Difference to data that counts as none, in standard deviations of the statistic over data.
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
        """Figures over independent chains; see `Diagnostic.measure`."""
        require_error_of_mean(subject.data(), "test", self._reference, "--set reference", None)
        level = cold_level(subject, self._temperature)
        found = self._run(subject, level)
        fifth = max(1, (len(found.steps) - 1) // 5)
        t = drifts(found.chains[1 + fifth : 1 + 2 * fifth], found.chains[-fifth:])
        if not bool(moving(found.chains[1:]).any()):
            raise WalkbackError("Got chains on which no statistic ever changes, expected chains that move.")
        # Data have no noise of a step in them yet, so the frame before the first step is not judged.
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
        """Examples to compare with, and as many others as there are chains; fewer or none where data are few."""
        there = len(subject.data().examples("test"))
        rows = subject.held_out("test", min(there, self._reference + self._chains))
        return rows[: self._reference], rows[self._reference :]


def statistics(states: Tensor, known: Neighbours) -> Tensor:
    """Mean and variance of the entries, distance to the nearest training state, its class as 0 and 1.

    In the place of the variance of a single entry stands its squared deviation from the mean of the training states.

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
    """Student's t of the change from the frames `early` to the frames `late`, both `(F, C, S)`: `(S,)`."""
    change = late.mean(0) - early.mean(0)
    error = change.std(0) / math.sqrt(len(change))
    return torch.where(change.mean(0) == 0, 0.0, change.mean(0) / error)


def departures(chains: Tensor, data: Tensor, tolerance: float) -> Tensor:
    """The first frame from which on each statistic is not that of the data: `(S,)`, or F where it is at the end.

    Args:
        chains: `(F, C, S)`.
        data: `(N, S)`.
        tolerance: Difference that counts as none, in standard deviations over data.
    """
    spread = data.std(0)
    # The larger scatter of the two: a class that no chain is in would have no error of its own.
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
    """Of all pairs of `(N, *E)`: a bandwidth at the scale of the data."""
    rows = states.double().flatten(1)
    median = float(torch.pdist(rows).median())
    if not median > 0:
        raise WalkbackError(
            "Got held-out examples of which most are equal, expected different ones: MMD² has no bandwidth."
        )
    return median
