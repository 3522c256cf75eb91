"""Timings of a configuration on its device, and of alternatives with one option changed.

    training   walk number r in repeat r: all ways use the same data and levels
    heating    the same walk, without a graph and without learning
    chain      steps at T = 1
    by hand    the same training and sampling as a user would write them, switch by switch (`by_hand`)
    ceilings   one large product and one convolution in the configured precision (`ceilings`)

The timed code is that of training and sampling. Each way has its own copy of the model.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from walkback.building.devices import Precision, autocast
from walkback.building.preparation import Prepared
from walkback.data import batch_of
from walkback.levels import tensor_levels
from walkback.model import Model
from walkback.objectives import PathObjective
from walkback.operators import initial_state
from walkback.sampling import chain, last
from walkback.speed.by_hand import (
    VARIANTS,
    Variant,
    sampling_by_hand,
    training_by_hand,
    writable_by_hand,
)
from walkback.speed.ceilings import Anatomy, anatomy, convolution, product
from walkback.speed.race import Clock, Entrant, Work, race
from walkback.speed.records import BenchmarkPlan, Timing, Timings, UpdatesName, Way
from walkback.support.seeding import generator
from walkback.support.threads import cpu_threads
from walkback.support.watch import Watch
from walkback.training.batches import BatchOrder
from walkback.training.trainer import Trainer, levels_of_walk
from walkback.walk import Start

_Key = TypeVar("_Key")

WARMUP, COMPILED_WARMUP = 1, 3
"""Number of walks before measurements; a compiled operator is recompiled for other numbers of rows."""


def time_configuration(
    prepared: Prepared, plan: BenchmarkPlan, watch: Watch, clock: Clock | None = None
) -> Timings:
    """Measure a configuration, without changing files, `prepared` or global state.

    Args:
        prepared: Result of `prepare`.
        plan: The plan.
        watch: Receives progress.
        clock: Returns seconds; by default those of `clock_of`.

    Raises:
        WalkbackError: The loss of the configured way is not finite.
    """
    config, device, ways = prepared.config, prepared.device, _ways(prepared, plan.compare)
    walks = {
        way: Entrant(
            f"training with {way.updates} updates in {way.precision}",
            partial(_training, prepared, way, compiled=config.run.compile),
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
    scale = _scale(prepared, plan)
    entrants = [*walks.values(), heating, *chains.values(), *scale.entrants]
    warmup = COMPILED_WARMUP if config.run.compile else WARMUP
    with cpu_threads(config.run.threads), torch.random.fork_rng([device] if device.type == "cuda" else []):
        process_peak = race(
            entrants,
            warmup=warmup,
            repeats=plan.repeats,
            device=device,
            watch=watch,
            clock=clock or clock_of(prepared)[1],
        )
        inside = _anatomy(prepared, ways[0]) if plan.compare else None
    first = _first_walk(prepared) + warmup
    return Timings(
        walks=_timings(walks),
        heating=Timing(tuple(heating.seconds), heating.memory),
        chain=_timings(chains),
        by_hand=_timings(scale.walks),
        chain_by_hand=next(iter(_timings(scale.chain).values()), None),
        ceilings=_timings(scale.ceilings),
        anatomy=inside,
        levels=tuple(
            len(levels_of_walk(prepared.model, config.run.seed, number))
            for number in range(first, first + plan.repeats)
        ),
        process_peak=process_peak,
        lost=tuple(entrant.lost for entrant in entrants if entrant.lost),
    )


def clock_of(prepared: Prepared) -> tuple[str, Clock]:
    """Return the name of a clock and the clock: on one thread of a CPU its own time, which other jobs do not change."""
    own = prepared.device.type == "cpu" and (prepared.config.run.threads or torch.get_num_threads()) == 1
    return ("processor time", time.process_time) if own else ("elapsed time", time.perf_counter)


def _anatomy(prepared: Prepared, way: Way) -> Anatomy:
    """Return what a walk consists of; without compilation, which hides operations from the counters."""
    levels = len(levels_of_walk(prepared.model, prepared.config.run.seed, _first_walk(prepared)))
    return anatomy(_training(prepared, way, compiled=False), levels, prepared.device)


@dataclass(frozen=True, slots=True)
class _Scale:
    """What a configuration is compared with, by name."""

    walks: Mapping[Variant, Entrant]
    chain: Mapping[str, Entrant]
    ceilings: Mapping[str, Entrant]

    @property
    def entrants(self) -> tuple[Entrant, ...]:
        return (*self.walks.values(), *self.chain.values(), *self.ceilings.values())


def _scale(prepared: Prepared, plan: BenchmarkPlan) -> _Scale:
    """Return the loops by hand and the ceilings; none if alternatives are not measured."""
    if not plan.compare:
        return _Scale({}, {}, {})

    def walk(variant: Variant) -> Work:
        return training_by_hand(prepared, _copy(prepared.model, False), variant, _first_walk(prepared))

    def chain() -> Work:
        model, order = _copy(prepared.model, False), order_of(prepared, prepared.config.samples.num)
        noise = generator(prepared.device, prepared.config.run.seed, "bench")
        return sampling_by_hand(
            prepared.device, model, start_of(prepared, model, order.batch(0), noise), plan.chain_steps
        )

    names = VARIANTS if writable_by_hand(prepared) else ()
    kinds = {"product": product, "convolution": convolution}
    return _Scale(
        {name: Entrant(f"the {name} loop", partial(walk, name), optional=True) for name in names},
        {"reference": Entrant("sampling by hand", chain, optional=True)},
        {
            name: Entrant(f"the ceiling of a {name}", partial(kind, prepared.device, prepared.precision))
            for name, kind in kinds.items()
        },
    )


def _timings(entrants: Mapping[_Key, Entrant]) -> dict[_Key, Timing]:
    return {way: Timing(tuple(each.seconds), each.memory) for way, each in entrants.items() if not each.lost}


def _ways(prepared: Prepared, compare: bool) -> tuple[Way, ...]:
    """Return the configured way and its alternatives; objectives of whole walks support one kind of updates."""
    configured = Way("", prepared.config.training.updates, prepared.precision)
    if not compare:
        return (configured,)
    names: tuple[UpdatesName, ...] = ("online", "batch", "stacked")
    if isinstance(prepared.objective, PathObjective):
        names = (configured.updates,)
    other: Precision = "fp32" if configured.precision == "bf16" else "bf16"
    return (
        configured,
        *(replace(configured, change=name, updates=name) for name in names if name != configured.updates),
        replace(configured, change=other, precision=other),
    )


def _first_walk(prepared: Prepared) -> int:
    """Return the number of the first measured walk: one that uses persistent chains, if the run has any."""
    settings = prepared.config.training
    chains = settings.chains
    return chains.after if chains.share and chains.after < settings.steps else 0


def _training(prepared: Prepared, way: Way, *, compiled: bool) -> Work:
    """Return work that trains on walks, as in a run."""
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
    """Return work that takes the same walks without learning, all from data."""
    config, device, numbers = prepared.config, prepared.device, itertools.count(_first_walk(prepared))
    seed, model = config.run.seed, _copy(prepared.model, config.run.compile)
    order = order_of(prepared, config.training.batch_size)
    model.operator.train()

    @torch.no_grad()
    def work() -> None:
        number = next(numbers)
        noise = generator(device, seed, "noise", number)
        levels = levels_of_walk(model, seed, number)
        if config.run.compile:
            levels = tensor_levels(levels, device)
        with autocast(device, prepared.precision):
            for _ in model.path(start_of(prepared, model, order.batch(number), noise), levels, noise):
                pass

    return work


def _chain(prepared: Prepared, way: Way, steps: int) -> Work:
    """Return work that runs chains from data, as many as a run draws samples; not compiled, like sampling."""
    noise = generator(prepared.device, prepared.config.run.seed, "bench")
    model = _copy(prepared.model, compiled=False)
    start = start_of(prepared, model, order_of(prepared, prepared.config.samples.num).batch(0), noise)
    state = start.state

    def work() -> None:
        nonlocal state
        with model.evaluating(), autocast(prepared.device, way.precision):
            state = last(chain(model.operator, state, steps, noise, start.context, every=steps))

    return work


def _copy(model: Model, compiled: bool) -> Model:
    """Copy a model; `deepcopy` does not copy the compilation of an operator, so it is repeated if requested."""
    copy = replace(
        model,
        operator=deepcopy(model.operator),
        schedule=deepcopy(model.schedule),
        process=deepcopy(model.process),
        prior=deepcopy(model.prior),
    )
    if compiled:
        copy.operator.compile()
    return copy


def order_of(prepared: Prepared, rows: int) -> BatchOrder:
    """Return the order of the training examples in batches of `rows`."""
    return BatchOrder(len(prepared.dataset.examples("train")), rows, prepared.config.run.seed)


def start_of(prepared: Prepared, model: Model, rows: Tensor, noise: torch.Generator) -> Start:
    """Return the starts of walks from the training examples with indices `rows` `(N,)`, on the device."""
    data = batch_of(prepared.dataset, "train", rows, noise)
    state, _ = initial_state(model.operator, data.states, noise)
    return Start(state, context=data.context, prior=model.prior)
