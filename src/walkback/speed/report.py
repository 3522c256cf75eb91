"""The report of a benchmark: ratios first, then seconds, and estimates for a long run.

    speed      seconds of the configured way / seconds of the alternative, in the same repeat
    walk       seconds / K of a repeat, times the mean K of the run's walks: K is random, since n at T = 1 is
    states     rows · K / seconds

Figures are medians over repeats.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from walkback.building.preparation import Prepared
from walkback.measuring.estimates import FEWEST, median_figure
from walkback.measuring.provenance import Provenance
from walkback.report import Figure, Report, Series
from walkback.speed.records import BenchmarkPlan, Timing, Timings, Way
from walkback.speed.scale import scale_figures
from walkback.speed.timings import clock_of
from walkback.training.trainer import levels_of_walk

CHAIN = 100_000
"""Number of steps of the chain whose duration is estimated."""

_WALKS = 1000  # number of walks of a run whose lengths are averaged
_MIB = 2**20


def benchmark_report(prepared: Prepared, plan: BenchmarkPlan, timings: Timings) -> Report:
    """Return the report of a benchmark.

    Args:
        prepared: The configuration that was measured.
        plan: The plan of the measurement.
        timings: Result of `time_configuration`.
    """
    length = _mean_length(prepared)
    figures = (
        *_speeds(timings),
        *scale_figures(prepared, timings),
        *_walks(prepared, timings, length),
        *_chains(prepared, plan, timings),
        *_estimates(prepared, plan, timings, length),
        *_memory(timings),
    )
    return Report(
        name="bench",
        headline="walk",
        figures=figures,
        series=tuple(_series(timings)),
        warnings=tuple(_warnings(prepared, plan, timings)),
        protocol=benchmark_protocol(prepared, plan),
    )


def _speeds(timings: Timings) -> Iterator[Figure]:
    """Yield the speed of alternatives, relative to the configured way."""
    for title, verb, measured in (("", "training", timings.walks), ("chain_", "sampling", timings.chain)):
        (configured, own), *others = measured.items()
        for way, timing in others:
            ratios = [base / other for base, other in zip(own.seconds, timing.seconds, strict=True)]
            meaning = f"speed relative to the configuration: {verb} with {_switch(way, configured)}"
            yield median_figure(f"{title}speed_{way.change}", ratios, "×", meaning)


def _walks(prepared: Prepared, timings: Timings, length: float) -> Iterator[Figure]:
    """Yield seconds of walks, and their parts."""
    rows, own = prepared.config.training.batch_size, timings.configured
    for way, timing in timings.walks.items():
        meaning = f"a walk with {_switch(way)}"
        if not way.change:
            meaning = f"a walk of {rows} rows as configured: {way.updates} updates, {way.precision}"
        yield median_figure(_name("walk", way), _per_step(timing, timings), "s", meaning, scale=length)
    speeds = [rows / seconds for seconds in _per_step(own, timings)]
    yield median_figure("states", speeds, "states/s", "rows times steps of training per second")
    shares = [alone / whole for alone, whole in zip(timings.heating.seconds, own.seconds, strict=True)]
    rest = "learning and the model's own chains" if prepared.config.training.chains.share else "learning"
    meaning = f"share of heating in the time of a walk; the rest is {rest}"
    yield median_figure("heating", shares, "%", meaning, scale=100)


def _chains(prepared: Prepared, plan: BenchmarkPlan, timings: Timings) -> Iterator[Figure]:
    """Yield seconds of steps at T = 1."""
    chains, step = prepared.config.samples.num, 1 / plan.chain_steps
    for way, timing in timings.chain.items():
        meaning = f"a step with {_switch(way)}"
        if not way.change:
            meaning = f"a step of {chains} chains at T = 1 as configured: {way.precision}"
        yield median_figure(_name("chain_step", way), timing.seconds, "s", meaning, scale=step)
    speeds = [plan.chain_steps / seconds for seconds in timings.configured_chain.seconds]
    yield median_figure("chain_steps", speeds, "steps/s", "steps of all these chains together")
    length = len(prepared.model.levels())
    samples = [chains * plan.chain_steps / seconds / length for seconds in timings.configured_chain.seconds]
    yield median_figure("samples", samples, "samples/s", f"annealed samples, of {length} steps each")


def _estimates(prepared: Prepared, plan: BenchmarkPlan, timings: Timings, length: float) -> Iterator[Figure]:
    """Yield the estimated duration of training and of a long chain."""
    steps = prepared.config.training.steps
    works = [
        (
            "training_time",
            _per_step(timings.configured, timings),
            length * steps,
            f"the {steps:,} walks of training.steps, without validation and pictures",
        ),
        (
            "chain_time",
            timings.configured_chain.seconds,
            CHAIN / plan.chain_steps,
            f"{CHAIN:,} steps at T = 1",
        ),
    ]
    for name, seconds, scale, what in works if steps else works[1:]:
        total = median_figure(name, seconds, "s", scale=scale)
        yield replace(total, meaning=f"{_in_words(total.value)} for {what}")


def _memory(timings: Timings) -> Iterator[Figure]:
    """Yield the peak memory of each way on a device that reports it, else that of the process."""
    found = [(way, timing.memory) for way, timing in timings.walks.items() if timing.memory is not None]
    for way, memory in found:
        words = f"with {_switch(way)}" if way.change else "as configured"
        meaning = f"peak memory of training {words} on the device"
        yield Figure(_name("memory", way), memory / _MIB, "MiB", meaning=meaning)
    if not found and timings.process_peak is not None:
        meaning = "peak memory of the process until the end of its first walks, including libraries and data"
        yield Figure("memory", timings.process_peak / _MIB, "MiB", meaning=meaning)


def _series(timings: Timings) -> Iterator[Series]:
    """Yield all times in order, which shows a drift of the machine."""
    for title, measured in (("walk", timings.walks), ("chain", timings.chain)):
        for way, timing in measured.items():
            numbers = tuple(float(number) for number in range(1, len(timing.seconds) + 1))
            yield Series(_name(f"{title}_seconds", way), numbers, timing.seconds, "repeat", f"{title} (s)")


def _warnings(prepared: Prepared, plan: BenchmarkPlan, timings: Timings) -> Iterator[str]:
    yield from timings.lost
    if plan.repeats < FEWEST:
        yield f"{plan.repeats} repeats have no standard error: measure at least {FEWEST}"
    if prepared.config.run.nproc > 1:
        yield (
            f"one process was measured, not run.nproc = {prepared.config.run.nproc}: their exchange of gradients "
            "comes on top"
        )


def benchmark_protocol(prepared: Prepared, plan: BenchmarkPlan) -> dict[str, Any]:
    """Return the protocol: what was measured, where and how."""
    config, device = prepared.config, prepared.device
    cuda = device.type == "cuda"
    details = {
        "recipe": config.recipe,
        "parameters": prepared.num_parameters,
        "objective": config.objective.name,
        "schedule": config.schedule.name,
        "mean_levels": _mean_length(prepared),
        "updates": config.training.updates,
        "rows": config.training.batch_size,
        "chains_share": config.training.chains.share,
        "steps": config.training.steps,
        "chains": config.samples.num,
        "chain_steps": plan.chain_steps,
        "repeats": plan.repeats,
        "clock": clock_of(prepared)[0],
        "compiled": config.run.compile,
        "threads": config.run.threads or torch.get_num_threads(),
        "device_name": torch.cuda.get_device_name(device)
        if cuda
        else platform.processor() or platform.machine(),
    }
    return Provenance(
        operator=config.operator.name,
        device=device,
        precision=prepared.precision,
        seed=config.run.seed,
        data=prepared.dataset.info,
        details=details,
    ).to_dict()


def _mean_length(prepared: Prepared) -> float:
    """Return the mean K of the first thousand walks of the run."""
    count, seed = max(1, min(prepared.config.training.steps, _WALKS)), prepared.config.run.seed
    return sum(len(levels_of_walk(prepared.model, seed, number)) for number in range(count)) / count


def _per_step(timing: Timing, timings: Timings) -> tuple[float, ...]:
    return tuple(seconds / steps for seconds, steps in zip(timing.seconds, timings.levels, strict=True))


def _name(figure: str, way: Way) -> str:
    return f"{figure}_{way.change}" if way.change else figure


def _switch(way: Way, configured: Way | None = None) -> str:
    """Return the option that a way changes, with its value."""
    by_precision = way.change == way.precision
    before = "" if configured is None else (configured.precision if by_precision else configured.updates)
    return f"{'run.precision' if by_precision else 'training.updates'} = {way.change}" + (
        f" instead of {before}" if before else ""
    )


def _in_words(seconds: float) -> str:
    """Format a duration in up to two units.

    >>> _in_words(0.25), _in_words(99.4), _in_words(7384), _in_words(200_000)
    ('0.25 s', '1 min 39 s', '2 h 3 min', '2 d 8 h')
    """
    whole = round(seconds)
    for size, unit, below, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rounded = round(seconds / below) * below
            return f"{rounded // size} {unit} {rounded % size // below} {smaller}"
    return f"{seconds:.2g} s" if seconds < 9.95 else f"{whole} s"
