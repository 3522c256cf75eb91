"""Timings of a configuration on its device, and of ways to compute with one switch changed.

    training   walk number r in every repeat r: all ways have its data and its levels
    heating    the same walk without a graph and without learning
    chain      further steps at T = 1

The code that is timed is that of training and sampling. Each way has its own copy of the model.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from walkback.building.devices import Precision, autocast
from walkback.building.preparation import Prepared
from walkback.data import batch_of
from walkback.model import Model
from walkback.objectives import PathObjective
from walkback.operators import initial_state
from walkback.sampling import chain, last
from walkback.speed.race import Clock, Entrant, Work, race
from walkback.support.seeding import generator
from walkback.support.threads import cpu_threads
from walkback.support.watch import Watch
from walkback.training.batches import BatchOrder
from walkback.training.levels import tensor_levels
from walkback.training.trainer import Trainer, levels_of_walk
from walkback.walk import Start

_UpdatesName: TypeAlias = Literal["online", "batch", "stacked"]

WARMUP, COMPILED_WARMUP = 1, 3
"""Walks before time is taken; a compiled operator is compiled again for other numbers of rows."""


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
    """Seconds of each repeat, in order; and the bytes that the way needs, None if the device does not report them."""

    seconds: tuple[float, ...]
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Measurements of the ways that worked, the configured one first.

    Attributes:
        walks: Of one walk each.
        heating: Of the walk without learning.
        chain: Of `BenchmarkPlan.chain_steps` steps each.
        levels: K of the walk of each repeat.
        process_peak: Peak main memory of this process in bytes when only the configured way had trained; None if the
            system does not report it.
        lost: For each way that did not work a sentence that says why.
    """

    walks: Mapping[Way, Timing]
    heating: Timing
    chain: Mapping[Way, Timing]
    levels: tuple[int, ...]
    process_peak: int | None = None
    lost: tuple[str, ...] = ()

    @property
    def configured(self) -> Timing:
        """Of walks as configured."""
        return next(iter(self.walks.values()))

    @property
    def configured_chain(self) -> Timing:
        """Of chains as configured."""
        return next(iter(self.chain.values()))


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
    config, device, ways = prepared.config, prepared.device, _ways(prepared, plan.compare)
    walks = {
        way: Entrant(
            f"training with {way.updates} updates in {way.precision}",
            partial(_training, prepared, way),
            optional=bool(way.change),
        )
        for way in ways
    }
    heating = Entrant("the walk alone", partial(_heating, prepared))
    chains = {
        way: Entrant(
            f"sampling in {way.precision}",
            partial(_chain, prepared, way, plan.chain_steps),
            optional=bool(way.change),
        )
        for way in ways
        if way.updates == ways[0].updates
    }
    entrants = [*walks.values(), heating, *chains.values()]
    warmup = COMPILED_WARMUP if config.run.compile else WARMUP
    with cpu_threads(config.run.threads), torch.random.fork_rng([device] if device.type == "cuda" else []):
        process_peak = race(
            entrants, warmup=warmup, repeats=plan.repeats, device=device, watch=watch, clock=clock
        )
    first = _first_walk(prepared) + warmup
    return Timings(
        walks=_timings(walks),
        heating=Timing(tuple(heating.seconds), heating.memory),
        chain=_timings(chains),
        levels=tuple(
            len(levels_of_walk(prepared.model, config.run.seed, number))
            for number in range(first, first + plan.repeats)
        ),
        process_peak=process_peak,
        lost=tuple(entrant.lost for entrant in entrants if entrant.lost),
    )


def _timings(entrants: Mapping[Way, Entrant]) -> dict[Way, Timing]:
    return {way: Timing(tuple(each.seconds), each.memory) for way, each in entrants.items() if not each.lost}


def _ways(prepared: Prepared, compare: bool) -> tuple[Way, ...]:
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


def _first_walk(prepared: Prepared) -> int:
    """Number of the first walk: one with starts from persistent chains, if there ever are any."""
    settings = prepared.config.training
    chains = settings.chains
    return chains.after if chains.share and chains.after < settings.steps else 0


def _training(prepared: Prepared, way: Way) -> Work:
    """Walks of a trainer as in a run."""
    compiled = prepared.config.run.compile
    trainer = Trainer(
        _copy(prepared.model, compiled),
        prepared.objective,
        prepared.dataset,
        prepared.config.training.model_copy(update={"updates": way.updates}),
        seed=prepared.config.run.seed,
        device=prepared.device,
        precision=way.precision,
        compiled=compiled,
    )
    trainer.progress = replace(trainer.progress, walks=_first_walk(prepared))
    return trainer.walk


def _heating(prepared: Prepared) -> Work:
    """The same walks, all from data."""
    config, device, numbers = prepared.config, prepared.device, itertools.count(_first_walk(prepared))
    seed, model = config.run.seed, _copy(prepared.model, config.run.compile)
    order = _order(prepared, config.training.batch_size)
    model.operator.train()

    @torch.no_grad()
    def work() -> None:
        number = next(numbers)
        noise = generator(device, seed, "noise", number)
        levels = levels_of_walk(model, seed, number)
        if config.run.compile:
            levels = tensor_levels(levels, device)
        with autocast(device, prepared.precision):
            for _ in model.path(_start(prepared, model, order.batch(number), noise), levels, noise):
                pass

    return work


def _chain(prepared: Prepared, way: Way, steps: int) -> Work:
    """Chains from data, as many as a run draws samples; never compiled, since sampling does not compile."""
    noise = generator(prepared.device, prepared.config.run.seed, "bench")
    model = _copy(prepared.model, compiled=False)
    start = _start(prepared, model, _order(prepared, prepared.config.samples.num).batch(0), noise)
    state = start.state

    def work() -> None:
        nonlocal state
        with model.evaluating(), autocast(prepared.device, way.precision):
            state = last(chain(model.operator, state, steps, noise, start.context, every=steps))

    return work


def _copy(model: Model, compiled: bool) -> Model:
    """A copy of what learns; the copy of a compiled operator is not compiled."""
    copy = replace(
        model,
        operator=deepcopy(model.operator),
        process=deepcopy(model.process),
        prior=deepcopy(model.prior),
    )
    if compiled:
        copy.operator.compile()
    return copy


def _order(prepared: Prepared, rows: int) -> BatchOrder:
    return BatchOrder(len(prepared.dataset.examples("train")), rows, prepared.config.run.seed)


def _start(prepared: Prepared, model: Model, rows: Tensor, noise: torch.Generator) -> Start:
    """Where walks from the training examples numbered `rows` `(N,)` start, on the device."""
    data = batch_of(prepared.dataset, "train", rows, noise)
    state, _ = initial_state(model.operator, data.states, noise)
    return Start(state, context=data.context, prior=model.prior)
