"""One point of a scaling measurement, in a process of its own: `python -m walkback.speed.point < request.json`.

Only a new process has a peak of memory of its own. It prepares the configuration, so that libraries and data are
present, and then measures what the work adds.

    batch, levels, size, processes    walks of training
    chain                             steps at T = 1 of the run's samples, every tenth recorded to a file
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from walkback.building.devices import autocast
from walkback.building.preparation import Instances, Prepared, prepare
from walkback.configuration.config import RunConfig
from walkback.data.tensors import TensorData
from walkback.extensions.loader import chosen
from walkback.extensions.registry import Registry
from walkback.model import Model
from walkback.operators import visible
from walkback.pictures.frames import open_sink
from walkback.sampling import chain
from walkback.schedules import Levels, Schedule, levels_from
from walkback.speed.timings import clock_of, order_of, start_of
from walkback.support.memory_growth import added_by
from walkback.support.processes import talks
from walkback.support.seeding import generator
from walkback.support.threads import cpu_threads
from walkback.support.world import joined_world, local_device
from walkback.training.trainer import Trainer

Axis: TypeAlias = Literal["batch", "levels", "size", "chain", "processes"]

RECORD_EVERY = 10
"""Steps between two recorded frames of a chain."""

_EXAMPLES = 256  # resized


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure.

    Attributes:
        config: `RunConfig.to_dict`.
        axis: What is varied.
        value: Its value.
        levels: K, unless it is varied: all points take walks of the same length.
        repeats: Number of timed walks.
    """

    config: Mapping[str, Any]
    axis: Axis
    value: int
    levels: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured.

    Attributes:
        seconds: Of each walk, or of the whole chain.
        memory: Bytes that the work added to the process at its peak, or to the device.
        clock: What `seconds` are: processor or elapsed time.
    """

    seconds: tuple[float, ...]
    memory: int
    clock: str


@final
class _Resampled(Schedule):
    """K levels with temperatures of another schedule, some left out or repeated.

    Args:
        schedule: The other one.
        length: K.
    """

    def __init__(self, schedule: Schedule, length: int) -> None:
        self._schedule, self._length = schedule, length

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        """The same levels always."""
        return self.levels_of_length(max_temperature, self._length)

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """`num_steps` levels."""
        own = self._schedule.levels(max_temperature)
        return levels_from([float(own[i * len(own) // num_steps].temperature) for i in range(num_steps)])


def measure(request: Request) -> Point:
    """Measure a point; raises the errors of `prepare` and of the work."""
    registry = Registry.discover(chosen())
    config = RunConfig.from_dict(request.config, registry)
    if request.axis == "batch":
        config = replace(config, training=config.training.model_copy(update={"batch_size": request.value}))
    prepared = prepare(config, registry, local_device(config.run.device))
    if request.axis == "size":
        data = TensorData(_resized(prepared, request.value), "resized examples")
        prepared = prepare(config, registry, local_device(config.run.device), Instances(data=data))
    length = request.value if request.axis == "levels" else request.levels
    schedule = _Resampled(prepared.model.schedule, length)
    prepared = replace(prepared, model=replace(prepared.model, schedule=schedule))
    with cpu_threads(config.run.threads):
        work = _chain if request.axis == "chain" else _walks
        return work(prepared, request)


def _walks(prepared: Prepared, request: Request) -> Point:
    config, device = prepared.config, prepared.device
    name, clock = clock_of(prepared)
    if request.axis == "processes":  # waiting for others is part of the work
        name, clock = "elapsed time", time.perf_counter
    with joined_world(device) as world:
        trainer = Trainer(
            prepared.model,
            prepared.objective,
            prepared.dataset,
            config.training,
            seed=config.run.seed,
            device=device,
            precision=prepared.precision,
            world=world,
        )

        def walk() -> None:
            trainer.walk()
            trainer.settle()

        memory = added_by(walk, device)
        seconds = tuple(_timed(walk, clock) for _ in range(request.repeats))
    return Point(seconds, memory, name)


def _chain(prepared: Prepared, request: Request) -> Point:
    device, info, steps = prepared.device, prepared.dataset.info, request.value
    model: Model = prepared.model
    name, clock = clock_of(prepared)
    noise = generator(device, prepared.config.run.seed, "bench")
    num, frames = prepared.config.samples.num, steps // RECORD_EVERY
    start = start_of(prepared, model, order_of(prepared, num).batch(0), noise)

    def work() -> None:
        with (
            TemporaryDirectory(prefix="walkback-") as place,
            model.evaluating(),
            autocast(device, prepared.precision),
        ):
            path = Path(place) / "chain.safetensors"
            with open_sink(path, info, num_frames=frames, num_chains=num) as sink:
                states = chain(model.operator, start.state, steps, noise, start.context, every=RECORD_EVERY)
                for number, state in enumerate(states, start=1):
                    sink.add(RECORD_EVERY * number, info.values(visible(model.operator, state)))

    seconds: list[float] = []
    memory = added_by(lambda: seconds.append(_timed(work, clock)), device)
    return Point(tuple(seconds), memory, name)


def _timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def _resized(prepared: Prepared, size: int) -> Tensor:
    """Return some examples `(N, C, size, size)` as uint8, or bool if the data are binary."""
    rows = prepared.dataset.examples("train")[:_EXAMPLES]
    pixels = interpolate(rows.float(), size=(size, size))
    if prepared.dataset.info.support == "binary":
        return pixels > pixels.mean()
    return pixels.to(rows.dtype)


def main() -> None:
    """Read a request from stdin and write its point to stdout, both as JSON; only the first of several processes."""
    point = measure(Request(**json.load(sys.stdin)))
    if talks():
        sys.stdout.write(json.dumps({"seconds": point.seconds, "memory": point.memory, "clock": point.clock}))


if __name__ == "__main__":
    main()
