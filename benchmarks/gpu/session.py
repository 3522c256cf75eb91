"""State shared by the parts: output files, remaining time, and running commands within it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from forked import Forked

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PATIENCE = 10.0
"""Grace period for a process to exit, in seconds."""

_SPOILT = re.compile(r"CUDA in forked|initialization error|sees no CUDA device", re.IGNORECASE)
"""Output of a process whose parent has used CUDA."""


class Process(Protocol):
    """A process that leads its own process group."""

    pid: int

    def wait(self, seconds: float) -> int:
        """Returns the exit code; raises subprocess.TimeoutExpired after `seconds`."""


@dataclass(frozen=True, slots=True)
class Done:
    """Result of a command: its exit code, None if it timed out, and its output."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def problem(self) -> str:
        """What went wrong, a line; "" where nothing did."""
        if self.code == 0:
            return ""
        if self.code is None:
            return f"stopped after {self.seconds:.0f} s: its time was up"
        errors = [line for line in self.err.splitlines() if line.startswith("error:")]
        last = (errors or self.err.strip().splitlines() or ["no message"])[-1]
        return f"exit code {self.code}: {last.removeprefix('error: ')[:300]}"


@dataclass(slots=True)
class Session:
    """One call of `run.sh`.

    Attributes:
        out: Folder of results, of few and small files.
        work: Folder of everything else; it is deleted at the end.
        data: Mirror of the data, where there is one.
        tiny: Everything in its smallest size.
        device: As `--device` takes it.
        forks: Whether `walkback` runs in forks of this process, which start at once.
        results: What was measured, by part; written to `results.json` again and again.
    """

    out: Path
    work: Path
    data: Path | None
    tiny: bool
    device: str = "cpu"
    forks: bool = True
    results: dict[str, Any] = field(default_factory=dict)

    def keep(self) -> None:
        """Write what has been measured so far."""
        self.write("results.json", json.dumps(self.results, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a file of results, at once."""
        temporary = self.work / name
        temporary.write_text(text, encoding="utf-8")
        self.take(temporary, name)

    def take(self, file: Path, name: str) -> None:
        """Copy a file to the results; there is never half of one."""
        hidden = self.out / f".{name}"
        hidden.write_bytes(file.read_bytes())
        hidden.replace(self.out / name)

    def note(self, text: str) -> None:
        """Say something, on the terminal and in the log."""
        line = f"[{time.strftime('%H:%M:%S')}] {text}"
        print(line, flush=True)
        self._log(f"{line}\n")

    def walkback(self, *arguments: str, seconds: float, variables: Mapping[str, str] | None = None) -> Done:
        """Call `walkback`."""
        self.note(f"$ walkback {' '.join(arguments)}")
        environment = self._environment(variables)
        if self.forks and seconds >= 1:
            done = self._wait(Forked(arguments, environment, ROOT, *self._streams), seconds)
            if not (done.code and _SPOILT.search(done.err)):
                return done
            self.forks = False
            self.note("  again, in a process that is no fork")
            seconds -= done.seconds
        return self._started([sys.executable, "-m", "walkback", *arguments], seconds, environment)

    def script(self, name: str, *arguments: str, seconds: float) -> Done:
        """Call another of these files."""
        return self.call([sys.executable, str(HERE / name), *arguments], seconds)

    def call(self, line: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> Done:
        """Run a command from the repository for so many seconds at most; what it says goes to the log."""
        self.note(f"$ {' '.join(line)}".replace(f"{sys.executable} ", ""))
        return self._started(line, seconds, self._environment(variables))

    @property
    def _streams(self) -> tuple[Path, Path]:
        """Files for what a command prints and says."""
        return self.work / "stdout", self.work / "stderr"

    def _started(self, line: Sequence[str], seconds: float, environment: Mapping[str, str]) -> Done:
        if seconds < 1:
            return Done(None, "", "", 0.0)
        out, err = self._streams
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                line, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
            )
            return self._wait(process, seconds)

    def _wait(self, process: Process, seconds: float) -> Done:
        started, code = time.monotonic(), None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process, ended=code is not None)
        out, err = (path.read_text("utf-8", "replace") for path in self._streams)
        done = Done(code, out, err, time.monotonic() - started)
        self._log(err[-20_000:])
        self.note(f"  {done.problem or 'done'} ({done.seconds:.1f} s)")
        return done

    def _log(self, text: str) -> None:
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(text)

    def _environment(self, variables: Mapping[str, str] | None) -> dict[str, str]:
        own = {
            "WALKBACK_CACHE": str(self.work / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.work / "inductor"),
            "TRITON_CACHE_DIR": str(self.work / "triton"),
            "TMPDIR": str(self.work / "tmp"),
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }
        if self.data is not None:
            own["WALKBACK_DATA"] = str(self.data)
        return {**os.environ, **own, **(variables or {})}


def _end(process: Process, ended: bool) -> None:
    """End what a process has started, and the process: first in the way that lets it keep its work."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return
        if ended:
            continue
        try:
            process.wait(PATIENCE)
            ended = True
        except subprocess.TimeoutExpired:
            continue
