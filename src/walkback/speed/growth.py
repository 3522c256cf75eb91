"""How time and memory grow with batch, K, image size, chain length and number of processes.

    seconds ∝ x^e       e: least squares of log(median seconds) on log x; 1 means proportional, 0 constant
    added memory ∝ x^f  with at least 1 MiB, below which the steps of the allocator are seen

Each point is measured in a process of its own (`speed.point`), so that no point sees the memory of another one.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from walkback.building.preparation import Prepared
from walkback.errors import WalkbackError
from walkback.measuring.estimates import median_figure
from walkback.report import Figure, Report, Series
from walkback.speed.point import Axis, Point, Request
from walkback.support.watch import Watch

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class _Words:
    """How an axis is described: what `x` is, and what a point at `{}` measures."""

    label: str
    point: str


_WORDS: Mapping[Axis, _Words] = {
    "batch": _Words("rows of a batch", "a walk of {} rows"),
    "levels": _Words("steps of a walk, K", "a walk of {} steps"),
    "size": _Words("image size (pixels)", "a walk of images of {0}×{0}"),
    "chain": _Words("steps of a chain", "a chain of {} steps, every tenth written to a file"),
    "processes": _Words("processes", "a walk in each of {} processes"),
}

_FACTORS = (0.25, 0.5, 1.0, 2.0)
_SIZE_FACTORS = (0.5, 1.0, 2.0)
_CHAIN_STEPS = (20, 80, 320)


def growth_report(prepared: Prepared, repeats: int, protocol: Mapping[str, object], watch: Watch) -> Report:
    """Measure all points and return a report with the exponents and the points.

    Args:
        prepared: The configuration, made of named components.
        repeats: Number of walks of each point.
        protocol: Of the report.
        watch: Receives progress.

    Raises:
        WalkbackError: No axis has two points that could be measured.
    """
    requests = list(_requests(prepared, repeats))
    watch.stage("Measuring, each point in a process of its own", len(requests))
    points: dict[Axis, dict[int, Point]] = {}
    lost: list[str] = []
    for number, request in enumerate(requests, start=1):
        try:
            points.setdefault(request.axis, {})[request.value] = measured(request)
        except WalkbackError as error:
            lost.append(f"{_WORDS[request.axis].point.format(request.value)} is left out: {error}")
        watch.advance(number, {})
    grown = {axis: found for axis, found in points.items() if len(found) > 1}
    if not grown:
        raise WalkbackError("; ".join(lost) or "Got one point on every axis, expected at least two.")
    return Report(
        name="scaling",
        headline=f"{next(iter(grown))}_time_exponent",
        figures=(*_exponents(grown), *_points(points)),
        series=tuple(_series(grown)),
        warnings=tuple(lost),
        protocol={**protocol, "levels": requests[0].levels, "clocks": _clocks(points)},
    )


def measured(request: Request) -> Point:
    """Measure a point in new processes; raises WalkbackError with the last line of their messages if one fails."""
    count = request.value if request.axis == "processes" else 1
    with ExitStack() as ending, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        free.close()
        processes = []
        for rank in range(count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            process = subprocess.Popen(
                [sys.executable, "-m", "walkback.speed.point"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **address, **(place if count > 1 else {})},
            )
            ending.callback(process.kill)  # does nothing to a process that has ended
            processes.append(process)
        for process in processes[1:]:
            if process.stdin is not None:
                process.stdin.write(json.dumps(asdict(request)))
                process.stdin.close()
                process.stdin = None
        answer, errors = processes[0].communicate(json.dumps(asdict(request)))
        if processes[0].wait():
            raise WalkbackError((errors.strip().splitlines() or ["its process failed"])[-1])
        for process in processes[1:]:
            process.communicate()
    found = json.loads(answer)
    return Point(tuple(found["seconds"]), found["memory"], found["clock"])


def _requests(prepared: Prepared, repeats: int) -> Iterator[Request]:
    config, info = prepared.config, prepared.dataset.info
    levels = len(prepared.model.levels())
    values: dict[Axis, Sequence[int]] = {
        "batch": [round(config.training.batch_size * factor) for factor in _FACTORS],
        "levels": [round(levels * factor) for factor in _FACTORS],
        "chain": _CHAIN_STEPS,
    }
    square = len(info.shape) == 3 and info.shape[1] == info.shape[2]
    if info.is_image and square and not info.classes:
        values["size"] = [round(info.shape[1] * factor) for factor in _SIZE_FACTORS]
    devices = torch.cuda.device_count() if prepared.device.type == "cuda" else _processors()
    values["processes"] = [count for count in (1, 2, 4, 8, 16) if count <= devices]
    request = Request(config.to_dict(), "batch", 0, levels, repeats)
    for axis, chosen in values.items():
        for value in sorted({value for value in chosen if value > 0}):
            yield replace(request, axis=axis, value=value)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _exponents(points: Mapping[Axis, Mapping[int, Point]]) -> Iterator[Figure]:
    for axis, found in points.items():
        seconds = [statistics.median(point.seconds) for point in found.values()]
        memory = [max(point.memory / _MIB, 1.0) for point in found.values()]
        span = f"from {min(found):,} to {max(found):,} {_WORDS[axis].label}"
        for name, values in (("time", seconds), ("memory", memory)):
            slope = float(np.polyfit(np.log(list(found)), np.log(values), 1)[0])
            what = name if name == "time" else "the memory added to a process with libraries, data and model"
            yield Figure(f"{axis}_{name}_exponent", slope, "1", meaning=f"growth of {what} {span}")


def _points(points: Mapping[Axis, Mapping[int, Point]]) -> Iterator[Figure]:
    for axis, found in points.items():
        for value, point in found.items():
            what = f"{_WORDS[axis].point.format(value)}, {point.clock}"
            yield median_figure(f"{axis}_{value}", point.seconds, "s", what)
            yield Figure(f"{axis}_{value}_memory", point.memory / _MIB, "MiB")


def _series(points: Mapping[Axis, Mapping[int, Point]]) -> Iterator[Series]:
    for axis, found in points.items():
        x, label = tuple(map(float, found)), _WORDS[axis].label
        seconds = tuple(statistics.median(point.seconds) for point in found.values())
        memory = tuple(point.memory / _MIB for point in found.values())
        unit = "chain (s)" if axis == "chain" else "walk (s)"
        yield Series(f"{axis}_seconds", x, seconds, label, unit)
        yield Series(f"{axis}_memory", x, memory, label, "added memory (MiB)")


def _clocks(points: Mapping[Axis, Mapping[int, Point]]) -> dict[str, str]:
    return {axis: next(iter(found.values())).clock for axis, found in points.items() if found}
