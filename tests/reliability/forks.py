"""Real processes of the program that start in milliseconds, and die at any moment or at a chosen operation on files.

A server imports everything once and forks a child for each call. A child may carry a trap: a signal that it sends to
itself just before its n-th operation that changes files below a directory (an audit hook of the interpreter and a
wrapped `os.fsync` count them), so that every point between two operations can be tried.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.program import ENVIRONMENT, PATIENCE
from tests.reliability.watched import limit_memory

ROOT = Path(__file__).parents[2]
_CHANGES = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True, slots=True)
class Trap:
    """`signal` is sent before operation number `at` (from 1) on files below `below`."""

    at: int
    signal: int
    below: str


@dataclass(frozen=True, slots=True)
class Call:
    """One process: arguments of walkback, where it writes its messages, and what differs from the server's own.

    `memory_mib` is what it may map beyond what it starts with.
    """

    arguments: Sequence[str]
    log: str
    environment: Mapping[str, str] = field(default_factory=dict)
    trap: Trap | None = None
    memory_mib: int | None = None


class Forks:
    """The client's side of the server."""

    def __init__(self, environment: Mapping[str, str], warming: Sequence[Sequence[str]]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.forks"],
            cwd=ROOT,
            env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "", **environment},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._requests, self._answers = self._server.stdin, self._server.stdout
        assert self._ask([list(arguments) for arguments in warming]) == "ready"

    def start(self, *calls: Call) -> list[int]:
        """Start processes; returns their numbers, which are theirs until `ended`."""
        return list(self._ask([asdict(call) for call in calls]))

    def ended(self, processes: Sequence[int]) -> list[int]:
        """Wait for the end of processes; returns their exit codes, negative for signals."""
        return list(self._ask({"wait": list(processes)}))

    def ended_soon(self, processes: Sequence[int], seconds: float) -> list[int]:
        """As `ended`, but those that are there after so many seconds are killed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(self._ask({"alive": list(processes)})):
            time.sleep(0.02)
        for process, alive in zip(processes, self._ask({"alive": list(processes)}), strict=True):
            if alive:
                os.kill(process, signal.SIGKILL)
        return self.ended(processes)

    def _ask(self, request: Any) -> Any:
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        return json.loads(self._answers.readline())

    def close(self) -> None:
        """End the server."""
        self._requests.close()
        self._answers.close()
        self._server.wait(PATIENCE)


@contextlib.contextmanager
def forks(environment: Mapping[str, str], warming: Sequence[Sequence[str]] = ()) -> Iterator[Forks]:
    """A server of processes.

    Args:
        environment: What differs from this process's.
        warming: Calls of walkback that the server itself makes first: what they load and build once is there in every
            child. On the CPU autograd has no threads that a fork would lose.
    """
    server = Forks(environment, warming)
    try:
        yield server
    finally:
        server.close()


# --- the server's side


def _set(trap: Mapping[str, Any]) -> None:
    """Count operations from now on, and send the signal when it is time."""
    done, fsync = [0], os.fsync

    def count() -> None:
        done[0] += 1
        if done[0] == trap["at"]:
            os.kill(os.getpid(), trap["signal"])

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not str(arguments[0]).startswith(trap["below"]):
            return
        if event != "open" or (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            count()

    def counted(descriptor: int) -> None:
        count()
        fsync(descriptor)

    os.fsync = counted  # type: ignore[assignment]
    sys.addaudithook(hook)


def _child(request: Mapping[str, Any]) -> None:
    """Be the program; never returns."""
    from walkback.cli.main import call

    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(request["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(request["environment"])
        if request["memory_mib"] is not None:
            limit_memory(request["memory_mib"])
        if request["trap"] is not None:
            _set(request["trap"])
        code = call(request["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def _fork(request: Mapping[str, Any]) -> int:
    child = os.fork()
    if not child:
        _child(request)
    return child


def _alive(child: int) -> bool:
    """Whether a child has not ended; it is left to be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def serve() -> None:
    """Fork on request until stdin ends."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401  part of what is imported once
    import torch.distributed  # noqa: F401

    import walkback.cli.run
    import walkback.jobs.sample
    import walkback.training.run  # noqa: F401
    from walkback.cli.main import call

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for arguments in [["run", "--dry-run", "--json"], *json.loads(sys.stdin.readline())]:
            if call(arguments):
                raise SystemExit(f"walkback {' '.join(arguments)} failed: {said.getvalue()}")
    answers.write('"ready"\n')
    answers.flush()
    while line := sys.stdin.readline():
        request = json.loads(line)
        if isinstance(request, list):
            answer: list[Any] = [_fork(one) for one in request]
        elif "alive" in request:
            answer = [_alive(child) for child in request["alive"]]
        else:
            answer = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in request["wait"]]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
