"""Timings of a configuration on its device, and of variants with one switch changed.

    training   walk number r, in every repeat r: all ways have its data and its levels
    heating    the same walk alone, without a graph and without learning
    chain      some further steps at T = 1

The code that is timed is that of training and sampling; only the model is a copy, a new one for each variant.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from walkback.building.devices import Precision, autocast
from walkback.building.preparation import Prepared
from walkback.data import batch_of
from walkback.model import Model
from walkback.objectives import PathObjective
from walkback.operators import initial_state
from walkback.sampling import chain, last
from walkback.schedules import tensor_levels
from walkback.speed.clock import Clock, Meter
from walkback.speed.race import Entrant, Work, race
from walkback.support.seeding import generator
from walkback.support.threads import cpu_threads
from walkback.support.watch import Watch
from walkback.training.batches import BatchOrder
from walkback.training.trainer import Trainer, levels_of_walk
from walkback.walk import Start

_UpdatesName: TypeAlias = Literal["online", "batch", "stacked"]

WARMUP, COMPILED_WARMUP = 1, 3
"""Walks before time is taken; a compiled operator meets other numbers of rows, and compiles again."""


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """What to measure.

    Attributes:
        repeats: Times that each way is measured.
        compare: Whether other ways than the configured one are measured too.
        chain_steps: Steps of the chain at T = 1 that are timed at once.
    """

    repeats: int = 9
    compare: bool = True
    chain_steps: int = 20


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute: the configured one, or it with one switch changed.

    Attributes:
        change: The value of that switch; "" for the configured way.
        updates: As `training.updates`.
        precision: Of the networks.
    """

    change: str
    updates: _UpdatesName
    precision: Precision


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each repeat, in order; and the bytes that the way needs, None where the device does not tell."""

    seconds: tuple[float, ...]
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """What was measured; of ways, those that worked, the configured one first.

    Attributes:
        walks: Of one walk each.
        heating: Of the walk alone.
        chain: Of `BenchmarkPlan.chain_steps` steps each.
        levels: K of the walk of each repeat.
        process_peak: Bytes of main memory of this process when only the configured way had trained; None where the
            system does not tell.
        lost: Ways that did not work, and why, a sentence each.
    """

    walks: Mapping[Way, Timing]
    heating: Timing
    chain: Mapping[Way, Timing]
    levels: tuple[int, ...]
    process_peak: int | None = None
    lost: tuple[str, ...] = ()


def time_configuration(
    prepared: Prepared, plan: BenchmarkPlan, watch: Watch, clock: Clock = time.perf_counter
) -> Timings:
    """Measure a configuration; neither files nor `prepared` nor global state change.

    Args:
        prepared: From `prepare`.
        plan: What to measure.
        watch: Is told of progress.
        clock: Seconds.

    Raises:
        WalkbackError: The configured way cannot train: its loss is not finite.
    """
    bench, compiled = _Bench(prepared, plan), prepared.config.run.compile
    ways = _ways_to_train(prepared, plan.compare)
    walks = {
        way: Entrant(_words(way), partial(bench.training, way), optional=bool(way.change)) for way in ways
    }
    heating = Entrant("the walk alone", bench.heating)
    chains = {
        way: Entrant(
            f"sampling in {way.precision}",
            partial(bench.chain, way),
            optional=bool(way.change),
        )
        for way in ways
        if way.updates == ways[0].updates
    }
    warmup = COMPILED_WARMUP if compiled else WARMUP
    cuda = [prepared.device] if prepared.device.type == "cuda" else []
    with cpu_threads(prepared.config.run.threads), torch.random.fork_rng(cuda):
        outcome = race(
            [*walks.values(), heating, *chains.values()],
            warmup=warmup,
            repeats=plan.repeats,
            meter=Meter(prepared.device, clock),
            watch=watch,
        )

    def arrived(entrants: Mapping[Way, Entrant]) -> dict[Way, Timing]:
        return {
            way: Timing(each.seconds, each.memory)
            for way, each in entrants.items()
            if each in outcome.arrived
        }

    measured = range(bench.first + warmup, bench.first + warmup + plan.repeats)
    seed = prepared.config.run.seed
    return Timings(
        walks=arrived(walks),
        heating=Timing(heating.seconds, heating.memory),
        chain=arrived(chains),
        levels=tuple(len(levels_of_walk(prepared.model, seed, number)) for number in measured),
        process_peak=outcome.process_peak,
        lost=outcome.lost,
    )


def _ways_to_train(prepared: Prepared, compare: bool) -> tuple[Way, ...]:
    """The configured way first; an objective of whole walks has only one kind of updates."""
    configured = Way("", prepared.config.training.updates, prepared.precision)
    if not compare:
        return (configured,)
    names: tuple[_UpdatesName, ...] = ("online", "batch", "stacked")
    if isinstance(prepared.objective, PathObjective):
        names = (configured.updates,)
    other: Precision = "fp32" if configured.precision == "bf16" else "bf16"
    return (
        configured,
        *(replace(configured, change=name, updates=name) for name in names if name != configured.updates),
        replace(configured, change=other, precision=other),
    )


def _words(way: Way) -> str:
    return f"training with {way.updates} updates in {way.precision}"


@final
class _Bench:
    """Makes the works of a prepared configuration.

    Attributes:
        first: Number of the first walk: one that the model's own chains take part in, if they ever do.
    """

    def __init__(self, prepared: Prepared, plan: BenchmarkPlan) -> None:
        self._prepared = prepared
        self._plan = plan
        self._seed = prepared.config.run.seed
        self._compiled = prepared.config.run.compile
        settings = prepared.config.training
        chains = settings.chains
        self.first = chains.after if chains.share and chains.after < settings.steps else 0

    def training(self, way: Way) -> Work:
        """Walks of a trainer as a run has it."""
        prepared = self._prepared
        trainer = Trainer(
            self._model(self._compiled),
            prepared.objective,
            prepared.dataset,
            prepared.config.training.model_copy(update={"updates": way.updates}),
            seed=self._seed,
            device=prepared.device,
            precision=way.precision,
            compiled=self._compiled,
        )
        trainer.progress = replace(trainer.progress, walks=self.first)
        return trainer.walk

    def heating(self) -> Work:
        """The same walks from data alone."""
        prepared, model, numbers = self._prepared, self._model(self._compiled), itertools.count(self.first)
        order = self._order(prepared.config.training.batch_size)
        model.operator.train()

        @torch.no_grad()
        def work() -> None:
            number = next(numbers)
            noise = generator(prepared.device, self._seed, "noise", number)
            levels = levels_of_walk(model, self._seed, number)
            if self._compiled:
                levels = tensor_levels(levels, prepared.device)
            with autocast(prepared.device, prepared.precision):
                for _ in model.path(self._start(model, order.batch(number), noise), levels, noise):
                    pass

        return work

    def chain(self, way: Way) -> Work:
        """Chains from data, as many as a run draws samples; compiled they are nowhere in the program."""
        prepared, model, steps = self._prepared, self._model(compiled=False), self._plan.chain_steps
        noise = generator(prepared.device, self._seed, "bench")
        start = self._start(model, self._order(prepared.config.samples.num).batch(0), noise)
        state = start.state

        def work() -> None:
            nonlocal state
            with model.evaluating(), autocast(prepared.device, way.precision):
                state = last(chain(model.operator, state, steps, noise, start.context, every=steps))

        return work

    def _model(self, compiled: bool) -> Model:
        """A copy of what learns in the prepared model; the copy of a compiled operator is not compiled."""
        model = self._prepared.model
        copy = replace(
            model,
            operator=deepcopy(model.operator),
            process=deepcopy(model.process),
            prior=deepcopy(model.prior),
        )
        if compiled:
            copy.operator.compile()
        return copy

    def _order(self, rows: int) -> BatchOrder:
        return BatchOrder(len(self._prepared.dataset.examples("train")), rows, self._seed)

    def _start(self, model: Model, rows: Tensor, noise: torch.Generator) -> Start:
        """Where walks from the training examples numbered `rows` `(N,)` start, on the device."""
        data = batch_of(self._prepared.dataset, "train", rows, noise)
        state, _ = initial_state(model.operator, data.states, noise)
        return Start(state, context=data.context, prior=model.prior)
