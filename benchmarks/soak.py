"""Hours of bad luck in minutes: kills, terminations, and thousands of damaged and hostile files.

    python benchmarks/soak.py --seed 0                    # everything: about half an hour of one core
    python benchmarks/soak.py --part checkpoints --scale 0.1

Every part runs in processes of its own, which may crash without ending the soak. The table at the end has the counts,
the seed, the slowest case and the peak of memory; exit code 1 if anything failed. docs/reliability.md says what is
promised, and which part looks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 3600.0
"""Most seconds of a process, on a machine that is busy with other things; single cases have limits of their own."""
_EVERY = 20.0


@dataclass(frozen=True, slots=True)
class Part:
    """A module of `tests/reliability`, how many cases it has, and how many of them one process takes."""

    name: str
    module: str
    cases: int
    at_a_time: int
    most_mib: int

    def commands(self, seed: int, scale: float) -> Iterator[list[str]]:
        """The processes of the part."""
        module = [sys.executable, "-m", f"tests.reliability.{self.module}"]
        count = max(round(self.cases * scale), 2)
        if self.name == "kills":
            terms = max(count // 2, 1)
            yield [*module, "--kills", str(count), "--terms", str(terms), "--seed", str(seed)]
            return
        for start in range(0, count, self.at_a_time):
            size = min(self.at_a_time, count - start)
            yield [*module, "--count", str(size), "--start", str(start), "--seed", str(seed)]


PARTS = (
    Part("kills", "kills", 120, 120, 1000),
    Part("checkpoints", "checkpoint_fuzz", 10_000, 500, 2500),
    Part("data", "data_mutations", 2000, 500, 2500),
    Part("configurations", "configuration_fuzz", 2000, 500, 4500),
)


@dataclass(slots=True)
class Sum:
    """What came of a part."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    peak_mib: int = 0
    seconds: float = 0.0

    def add(self, record: dict[str, Any], most_mib: int) -> None:
        """Count what a process says of itself."""
        self.outcomes.update(record["outcomes"])
        self.failures += record["failures"]
        self.slowest = max(self.slowest, record.get("slowest_seconds", 0.0))
        self.peak_mib = max(self.peak_mib, record["peak_mib"])
        if record["peak_mib"] > most_mib:
            self.failures.append(f"peak memory {record['peak_mib']} MiB, expected {most_mib} at most")

    def lines(self) -> Iterator[str]:
        """In words."""
        cases = self.outcomes.total()
        yield (
            f"{self.name}: {cases} cases, {len(self.failures)} failures, {self.seconds:.0f} s, slowest "
            f"{self.slowest:.1f} s, {self.peak_mib} MiB"
        )
        for outcome, count in sorted(self.outcomes.items()):
            yield f"    {outcome}: {count}"
        for failure in self.failures:
            yield f"    FAILED {failure}"


def run_part(part: Part, seed: int, scale: float) -> Sum:
    """Run a part; a process that crashes or hangs is a failure that names its last case."""
    total = Sum(part.name)
    began = time.monotonic()
    for command in part.commands(seed, scale):
        code, last = _run(command)
        if code == 0:
            total.add(json.loads(last), part.most_mib)
        else:
            total.failures.append(f"exit code {code} of {' '.join(command[2:])} at {last!r:.300}")
        print(f"{part.name}: {total.outcomes.total()} so far, {len(total.failures)} failures", flush=True)
    total.seconds = time.monotonic() - began
    return total


def _run(command: list[str]) -> tuple[int, str]:
    """Exit code and last line of a process; its lines are shown on stderr, one in a while."""
    last, shown = "", time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, env=_environment(), text=True, stdout=subprocess.PIPE
    ) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        for line in process.stdout or ():
            last = line.rstrip("\n")
            if time.monotonic() > shown + _EVERY:
                shown = time.monotonic()
                print(f"    {last:.150}", file=sys.stderr, flush=True)
        watchdog.cancel()
    return process.returncode, last


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def main() -> None:
    """Run the parts, print what came of them, and leave with 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", action="append", choices=[part.name for part in PARTS])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases")
    chosen = parser.parse_args()
    found = [
        run_part(part, chosen.seed, chosen.scale)
        for part in PARTS
        if chosen.part is None or part.name in chosen.part
    ]
    print(f"\nseed {chosen.seed}")
    for total in found:
        print("\n".join(total.lines()))
    sys.exit(any(total.failures for total in found))


if __name__ == "__main__":
    main()
