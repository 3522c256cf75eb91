"""Profile of the kernels of a training walk and of the gaps between them.

    python profiling.py --recipe unet [--compile] [--tiny]          prints one JSON document

A short training run is profiled from one weight update to another, after a warm-up: one stretch counts floating-point
operations, another records kernels. Recording takes time itself, so gaps are slightly overestimated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from part_bench import arguments
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import walkback as wb

CUDA = torch.cuda.is_available()
ROWS = 15
LONG = 10.0
"""Minimum length of a gap, in microseconds."""


class Kernel(NamedTuple):
    """One kernel on the device: name, start and end in microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Updates of the weights between which something is watched."""

    first: int
    last: int


class Watcher:
    """Counts and records between updates of the weights.

    Args:
        counted: Where operations are counted.
        recorded: Where kernels are recorded.
    """

    def __init__(self, counted: Stretch, recorded: Stretch) -> None:
        self._counted, self._recorded = counted, recorded
        self._updates = 0
        self._flops = FlopCounterMode(display=False)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])]
        self._profile = profile(activities=activities)

    def updated(self, *_: object) -> None:
        """One more update has been made."""
        self._updates += 1
        for stretch, watch in ((self._counted, self._flops), (self._recorded, self._profile)):
            if self._updates in (stretch.first, stretch.last) and CUDA:
                torch.cuda.synchronize()
            if self._updates == stretch.first:
                watch.__enter__()
            if self._updates == stretch.last:
                watch.__exit__(None, None, None)

    @property
    def flops(self) -> float:
        """Operations of one update."""
        return self._flops.get_total_flops() / (self._counted.last - self._counted.first)

    @property
    def updates(self) -> int:
        """Number of updates that were recorded."""
        return self._recorded.last - self._recorded.first

    def kernels(self) -> list[Kernel]:
        """What ran on the device, in order; on a CPU, operators that call no others."""
        kind = torch.autograd.DeviceType.CUDA if CUDA else torch.autograd.DeviceType.CPU
        found = [
            Kernel(event.name, event.time_range.start, event.time_range.end)
            for event in self._profile.events() or ()
            if event.device_type == kind and not getattr(event, "is_user_annotation", False)
            if CUDA or not event.cpu_children
        ]
        return sorted(found, key=lambda kernel: kernel.start)


def gaps(kernels: Sequence[Kernel]) -> list[tuple[float, str]]:
    """Microseconds in which nothing ran, and between which kernels."""
    found, end, before = [], kernels[0].end, kernels[0].name
    for kernel in kernels[1:]:
        if kernel.start > end:
            found.append((kernel.start - end, f"{before[:48]} → {kernel.name[:48]}"))
        if kernel.end > end:
            end, before = kernel.end, kernel.name
    return found


def summary(watcher: Watcher) -> dict[str, Any]:
    """Figures of one update, and a table as text."""
    kernels = watcher.kernels()
    between = gaps(kernels)
    whole = max(kernel.end for kernel in kernels) - kernels[0].start
    idle = sum(gap for gap, _ in between)
    figures = {
        "walk, ms": whole / watcher.updates / 1e3,
        "kernels a walk": len(kernels) / watcher.updates,
        "busy, %": 100 * (1 - idle / whole),
        "median kernel, µs": statistics.median(kernel.end - kernel.start for kernel in kernels),
        "median gap, µs": statistics.median([gap for gap, _ in between] or [0.0]),
        f"in gaps of {LONG:.0f} µs or more, %": 100 * sum(gap for gap, _ in between if gap >= LONG) / whole,
        "GFLOP a walk": watcher.flops / 1e9,
        "TFLOP/s": watcher.flops * watcher.updates / whole / 1e6,
    }
    return {**figures, "table": "\n\n".join((_kernel_table(kernels), _gap_table(between)))}


def _kernel_table(kernels: Sequence[Kernel]) -> str:
    times: defaultdict[str, float] = defaultdict(float)
    for kernel in kernels:
        times[kernel.name] += kernel.end - kernel.start
    calls, busy = Counter(kernel.name for kernel in kernels), sum(times.values())
    lines = [f"{'ms':>9} {'%':>6} {'calls':>7} {'µs':>8}  kernel"]
    for name, time in sorted(times.items(), key=lambda item: -item[1])[:ROWS]:
        share, each = 100 * time / busy, time / calls[name]
        lines.append(f"{time / 1e3:9.3f} {share:6.1f} {calls[name]:7} {each:8.1f}  {name[:140]}")
    return "\n".join(lines)


def _gap_table(between: Sequence[tuple[float, str]]) -> str:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for gap, where in between:
        times[where].append(gap)
    lines = [f"{'ms':>9} {'gaps':>7} {'longest':>8}  between"]
    for where, found in sorted(times.items(), key=lambda item: -sum(item[1]))[:ROWS]:
        lines.append(f"{sum(found) / 1e3:9.3f} {len(found):7} {max(found):8.1f}  {where}")
    return "\n".join(lines)


def train(options: Sequence[str], compiled: bool, walks: int) -> None:
    """Train as `walkback run` with these options does, for some walks."""
    settings: dict[str, Any] = {
        "training.log_every": walks,
        "training.validate_every": walks,
        "training.validation_examples": 8,
        "evaluation.limit": 8,
        "samples.num": 2,
        "samples.chain_steps": 1,
        "samples.chain_every": 1,
    }
    named: dict[str, Any] = {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "--set":
            path, _, text = value.partition("=")
            settings[path] = json.loads(text)
        else:
            named[option.removeprefix("--").replace("-", "_")] = value
    if "batch_size" in named:
        named["batch_size"] = int(named["batch_size"])
    settings["run.compile"] = compiled
    wb.train(**named, steps=walks, settings=settings, progress=False)


def main() -> None:
    """Watch, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="unet")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    stretches = ((1, 2), (2, 4)) if options.tiny else ((3, 5), (10, 15))
    watcher = Watcher(*(Stretch(*stretch) for stretch in stretches))
    handle = register_optimizer_step_post_hook(watcher.updated)
    try:
        train(arguments(options.recipe, options.tiny), options.compile, 5 if options.tiny else 16)
    finally:
        handle.remove()
    print(json.dumps(summary(watcher)))


if __name__ == "__main__":
    main()
