"""The program as a user meets it: called in this process, in a process of its own, and as one that can be killed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from walkback.cli.main import call

Pixels: TypeAlias = npt.NDArray[np.uint8]

TINY_SETTINGS: Final[Mapping[str, Any]] = {
    "operator.network.hidden": 16,
    "operator.network.depth": 1,
    "evaluation.limit": 20,
    "training.validation_examples": 20,
    "schedule.n1": 3,
    "schedule.max_temperature": 128,
    "samples.num": 9,
    "samples.chains": 3,
    "samples.extra": 2,
    "samples.chain_steps": 20,
    "samples.chain_every": 10,
}
"""Settings of a run that takes a blink: walks of 7 to 10 steps, 10 in evaluation."""

TINY_BATCH: Final = 8

TINY = (
    *(word for name, value in TINY_SETTINGS.items() for word in ("--set", f"{name}={value}")),
    *("--batch-size", str(TINY_BATCH)),
)
"""The same as options of the program."""

FEW: Final[Mapping[str, Any]] = {
    "limit": 24,
    "paths": 4,
    "simulated": 8,
    "batch_size": 10,
    "baselines": False,
}
"""What an evaluation that takes a blink is asked for."""

QUICK: Final[Mapping[str, Any]] = {"chains": 6, "steps": 10, "burn_in": 2, "rank_chains": 0}
"""Options of a quick diagnostic of reversibility."""

PATIENCE = 300.0
"""Seconds after which something that waits for another process gives up; no test passes by waiting."""

ENVIRONMENT: Mapping[str, str] = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("WALKBACK", "HF_"))},
    "OMP_NUM_THREADS": "1",
}


def options(**values: Any) -> list[str]:
    """Keywords of Python as options of the program."""
    words: list[str] = []
    for name, value in values.items():
        flag = {"start": "from", "settings": "set"}.get(name, name).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, Mapping):
            words += [f"--{flag}={option}={setting}" for option, setting in value.items()]
        else:
            words.append(f"--{flag}={value}")
    return words


@dataclass(frozen=True)
class Done:
    """How a call of the program ended."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def walkback(*arguments: str | Path) -> Done:
    """Call the program in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


def run(directory: Path, *options: str | Path, steps: int = 6) -> Done:
    """A tiny run into `directory`, in this process."""
    return walkback("run", *TINY, "--steps", str(steps), "--out", directory, *options)


@contextlib.contextmanager
def running(*arguments: str | Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The program in a process of its own, which ends with the block at the latest."""
    line = [sys.executable, "-m", "walkback", *map(str, arguments)]
    environment = {**ENVIRONMENT, **variables}
    process = subprocess.Popen(
        line, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()  # first in the way that also ends what it has started
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for the end of a process."""
    out, err = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, out, err)


def elsewhere(*arguments: str | Path, **variables: str) -> Done:
    """Call the program in a process of its own."""
    with running(*arguments, **variables) as process:
        return finish(process)


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a process has started and that are still there."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if re.search(rf"^PPid:\t{process.pid}$", text, re.MULTILINE):
            found.append(int(status.parent.name))
    return found


def is_running(number: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return not re.search(r"^State:\tZ", Path(f"/proc/{number}/status").read_text(), re.MULTILINE)
    except OSError:
        return False


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something is the case while a process works.

    Raises:
        TimeoutError: It has not happened for long, or the process ended before.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"It did not happen; exit code {process.poll()}.")
        time.sleep(0.01)


def records(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def figures(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl` without what differs between equal runs: the time they took."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in records(directory)]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(directory: Path) -> dict[str, str]:
    """Every file below a directory with its digest, and every folder with ""."""
    return {
        path.relative_to(directory).as_posix(): digest(path) if path.is_file() else ""
        for path in sorted(directory.rglob("*"))
    }


TITLE = 12
"""Height of a line of titles above a filmstrip, in pixels."""


def cells(picture: Path, rows: int, columns: int, header: int = 0) -> Pixels:
    """The images of a grid below a header, `(rows, columns, height, width, channels)`; between them is even gray."""
    with Image.open(picture) as image:
        pixels = np.asarray(image).reshape(image.height, image.width, -1)[header:]
    pad = int(np.argmin((pixels == pixels[0, 0]).all((1, 2))))  # rows before the first that is not all grey
    height, width = (
        (size - pad) // count for size, count in zip(pixels.shape, (rows, columns), strict=False)
    )
    assert pixels.shape[:2] == (rows * height + pad, columns * width + pad)
    grid = pixels[pad:, pad:].reshape(rows, height, columns, width, -1).swapaxes(1, 2)
    edges = np.concatenate([grid[:, :, -pad:].reshape(-1), grid[:, :, :, -pad:].reshape(-1)])
    assert (edges == pixels[0, 0, 0]).all()
    return grid[:, :, :-pad, :-pad]
