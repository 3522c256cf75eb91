"""The parts in their order, each within its time: tests, speed, training; then one table of results."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import part_bench
import part_tests
import part_train
import results
import torch
from session import Session

SHARES: Mapping[str, float] = {"tests": 0.25, "bench": 0.33, "train": 0.42}
"""Shares of the time; those of parts that are left out go to the others, and so does what a part leaves over."""

PARTS: Mapping[str, Callable[[Session, float], None]] = {
    "tests": part_tests.run,
    "bench": part_bench.run,
    "train": part_train.run,
}
LAST = 5.0
"""Seconds for the table."""


@dataclass(frozen=True, slots=True)
class Clock:
    """When the parts must have ended, in seconds of `time.time`."""

    ends: Mapping[str, float]

    @classmethod
    def of(cls, parts: tuple[str, ...], started: float, options: argparse.Namespace) -> Clock:
        """Share the budget among the parts; training takes what its minutes need, where they are given."""
        whole = 60 * options.budget - LAST - (time.time() - started)
        fixed = {}
        if options.minutes is not None and "train" in parts:
            fixed["train"] = min(whole, part_train.seconds_for(options.minutes))
        rest, total = whole - sum(fixed.values()), sum(SHARES[part] for part in parts if part not in fixed)
        ends, now = {}, time.time()
        for part in parts:
            now += fixed[part] if part in fixed else rest * SHARES[part] / total
            ends[part] = now
        return cls(ends)


def main() -> int:
    """Run the chosen parts; the exit code is 1 where one of them found something wrong."""
    options = _options()
    parts = tuple(part for part in PARTS if part in options.only.split(","))
    session = _session(options)
    session.results["machine"] = _machine(session.device)
    session.note(", ".join(f"{name} {value}" for name, value in session.results["machine"].items()))
    clock = Clock.of(parts, options.started, options)
    for part in parts:
        session.note(f"== {part}, {clock.ends[part] - time.time():.0f} s")
        try:
            if part == "train":
                part_train.run(session, clock.ends[part], options.minutes)
            else:
                PARTS[part](session, clock.ends[part])
        except Exception as error:  # the other parts are worth having
            session.results.setdefault("problems", []).append(f"{part}: {type(error).__name__}: {error}")
            session.note(f"{part} failed: {error!r}")
        session.keep()
        session.write("results.md", results.markdown(session.results))
    print(results.markdown(session.results))
    return 1 if results.problems(session.results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="Folder of results: at most eight files.")
    parser.add_argument("--minutes", type=float, help="Minutes that each recipe trains (default: what is left).")
    parser.add_argument("--budget", type=float, default=9.0, help="Minutes that everything takes (default: 9).")
    parser.add_argument("--only", default=",".join(PARTS), help="Parts, joined by commas (default: all).")
    parser.add_argument("--tiny", action="store_true", help="Everything in its smallest size, on the CPU too.")
    for name in ("packed", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"got --only {options.only}, expected some of {', '.join(PARTS)}")
    if not options.tiny and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no CUDA device here; --tiny runs on the CPU")
    return options


def _session(options: argparse.Namespace) -> Session:
    options.out.mkdir(parents=True, exist_ok=True)
    (options.work / "tmp").mkdir()
    packed = (options.packed / "data").resolve()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Session(
        options.out.resolve(), options.work.resolve(), packed if packed.is_dir() else None, device, options.tiny
    )


def _machine(device: str) -> dict[str, str]:
    """What the figures belong to."""
    found = {"Python": platform.python_version(), "PyTorch": torch.__version__}
    if device == "cpu":
        return {"card": f"none (CPU, {torch.get_num_threads()} threads)", **found}
    properties = torch.cuda.get_device_properties(0)
    memory = f"{properties.total_memory / 2**30:.0f} GiB"
    return {"card": properties.name, "memory": memory, "CUDA": str(torch.version.cuda), **found}


if __name__ == "__main__":
    raise SystemExit(main())
