"""Runs the parts in order, each within its time: tests, speed, training; then writes one table of results."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import part_bench
import part_tests
import part_train
import results
from session import Session

Part = Callable[[Session, float, float | None], None]

PARTS: Mapping[str, Part] = {"tests": part_tests.run, "bench": part_bench.run, "train": part_train.run}
SHARES: Mapping[str, float] = {"tests": 0.25, "bench": 0.33, "train": 0.42}
"""Shares of the time; shares of skipped parts and unused time go to the remaining parts."""

LAST = 5.0
"""Seconds reserved for the table."""


def deadlines(parts: Sequence[str], seconds: float, minutes: float | None) -> Mapping[str, float]:
    """Returns the deadline of each part, in seconds from now.

    Args:
        parts: Parts in order.
        seconds: Time for all parts.
        minutes: Minutes of training per recipe; None gives training its share.
    """
    fixed = {}
    if minutes is not None and "train" in parts:
        fixed["train"] = min(seconds, part_train.seconds_for(minutes))
    rest, whole = seconds - sum(fixed.values()), sum(SHARES[part] for part in parts if part not in fixed)
    ends, end = {}, 0.0
    for part in parts:
        end += fixed[part] if part in fixed else rest * SHARES[part] / whole
        ends[part] = end
    return ends


def main() -> int:
    """Run the chosen parts; the exit code is 1 where something went wrong."""
    parser = _parser()
    options = parser.parse_args()
    parts = [part for part in PARTS if part in options.only.split(",")]
    if set(options.only.split(",")) - PARTS.keys():
        parser.error(f"got --only {options.only}, expected some of {','.join(PARTS)}")
    if options.check:
        return 0
    session = _session(options)
    machine = json.loads(session.script("machine.py", seconds=120).out)
    session.device = machine["device"]
    session.results["machine"] = machine
    if session.device == "cpu" and not options.tiny:
        parser.error(f"PyTorch {machine['PyTorch']} sees no CUDA device here; --tiny runs on the CPU")
    now = time.time()
    left = 60 * options.budget - LAST - (now - options.started)
    for part, end in deadlines(parts, left, options.minutes).items():
        session.note(f"== {part}, {now + end - time.time():.0f} s")
        try:
            PARTS[part](session, now + end, options.minutes)
        except Exception as error:  # the other parts are worth having
            session.results.setdefault("problems", []).append(f"{part}: {type(error).__name__}: {error}")
            session.note(f"{part} failed: {error!r}")
        session.keep()
        session.write("results.md", results.markdown(session.results))
    print(results.markdown(session.results))
    return 1 if results.problems(session.results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="Folder of results: seven files.")
    add("--minutes", type=float, help="Minutes that each recipe trains (default: what is left).")
    add("--budget", type=float, default=9.0, help="Minutes that everything takes (default: 9).")
    add("--only", default=",".join(PARTS), help="Parts, joined by commas (default: all).")
    add("--tiny", action="store_true", help="Everything in its smallest size, on the CPU too.")
    add("--check", action="store_true", help=argparse.SUPPRESS)
    add("--packed", type=Path, required=True, help=argparse.SUPPRESS)
    add("--work", type=Path, required=True, help=argparse.SUPPRESS)
    add("--started", type=float, required=True, help=argparse.SUPPRESS)
    return parser


def _session(options: argparse.Namespace) -> Session:
    options.out.mkdir(parents=True, exist_ok=True)
    (options.work / "tmp").mkdir()
    packed = (options.packed / "data").resolve()
    data = packed if packed.is_dir() else None
    return Session(options.out.resolve(), options.work.resolve(), data, options.tiny)


if __name__ == "__main__":
    raise SystemExit(main())
