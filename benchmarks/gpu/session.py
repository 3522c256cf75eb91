"""What the parts share: where files go, how much time is left, and how a command is run within it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PATIENCE = 10.0
"""Seconds that a process gets to end by itself."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit code, None where its time was up, and what it printed."""

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


@dataclass(frozen=True, slots=True)
class Session:
    """One call of `run.sh`.

    Attributes:
        out: Folder of results, of few and small files.
        work: Folder of everything else; it is deleted at the end.
        data: Mirror of the data, where there is one.
        device: As `--device` takes it.
        tiny: Everything in its smallest size.
        results: What was measured, by part; written to `results.json` again and again.
    """

    out: Path
    work: Path
    data: Path | None
    device: str
    tiny: bool
    results: dict[str, Any] = field(default_factory=dict)

    def keep(self) -> None:
        """Write what has been measured so far."""
        _replace(self.out / "results.json", json.dumps(self.results, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a file of results."""
        _replace(self.out / name, text)

    def note(self, text: str) -> None:
        """Say something, on the terminal and in the log."""
        line = f"[{time.strftime('%H:%M:%S')}] {text}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    def walkback(self, *arguments: str, seconds: float, variables: Mapping[str, str] | None = None) -> Done:
        """Call `walkback` in a process of its own."""
        return self.call([sys.executable, "-m", "walkback", *arguments], seconds, variables)

    def script(self, name: str, *arguments: str, seconds: float) -> Done:
        """Call another of these files; it prints one JSON document."""
        return self.call([sys.executable, str(HERE / name), *arguments], seconds)

    def call(self, line: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> Done:
        """Run a command from the repository for so many seconds at most; what it says goes to the log."""
        shown = " ".join(line).replace(f"{sys.executable} -m ", "")
        self.note(f"$ {shown}")
        if seconds < 1:
            return Done(None, "", "", 0.0)
        done = self._wait(line, seconds, {**self._environment(), **(variables or {})})
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(done.err[-20_000:])
        self.note(f"  {done.problem or 'done'} ({done.seconds:.1f} s)")
        return done

    def _wait(self, line: Sequence[str], seconds: float, environment: Mapping[str, str]) -> Done:
        started = time.monotonic()
        out, err = self.work / "stdout", self.work / "stderr"
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                line, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        texts = (path.read_text("utf-8", "replace") for path in (out, err))
        return Done(code, *texts, time.monotonic() - started)

    def _environment(self) -> dict[str, str]:
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
        return {**os.environ, **own}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, first in the way that lets it keep its work."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(PATIENCE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
