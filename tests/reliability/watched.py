"""What every fuzzer holds code to: bounded time and memory, no file, host, program or module that hostile input chose.

A case that takes too long is ended by an alarm, which raises an exception that no `except Exception` catches. What
the code under test opens, connects to, starts and imports is seen by an audit hook of the interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

CANARY = "walkback-canary"
"""Part of every path, host and module that hostile input names; nobody has a reason to touch one."""

_NAMING = frozenset(
    {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.chdir", "import"}
)
_REACHING = frozenset(
    {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
    | {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "ctypes.dlopen"}
)


class OverTime(BaseException):
    """A case took longer than it may."""


@dataclass(slots=True)
class _Audit:
    """What the hook has seen while it looked; hooks cannot be removed, so that there is one for the process."""

    installed: bool = False
    looking: bool = False
    seen: list[str] = field(default_factory=list)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.looking:
            return
        if event in _REACHING or (event in _NAMING and CANARY in str(arguments[0])):
            self.seen.append(f"{event} {arguments!r:.200}")


_AUDIT = _Audit()


@contextlib.contextmanager
def nothing_chosen() -> Iterator[None]:
    """Nothing in the block connects, starts a program, or touches a path or module with `CANARY` in its name.

    Raises:
        AssertionError: Something did.
    """
    if not _AUDIT.installed:
        sys.addaudithook(_AUDIT.hook)
        _AUDIT.installed = True
    _AUDIT.seen.clear()
    _AUDIT.looking = True
    try:
        yield
    finally:
        _AUDIT.looking = False
    assert _AUDIT.seen == [], _AUDIT.seen[:5]


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block is interrupted after so many seconds; in the main thread.

    Raises:
        OverTime: It was interrupted, also if code in the block took the exception for one of its own.
    """
    rang = []

    def ring(_: int, __: FrameType | None) -> None:
        rang.append(True)
        raise OverTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(
        signal.ITIMER_REAL, seconds, 1.0
    )  # again and again, should one be swallowed by a callback
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if rang:
            raise OverTime


def limit_memory(mib: int) -> None:
    """Let this process map no more than so many MiB beyond what it has mapped by now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    limit = mapped + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def peak_mib() -> int:
    """Most resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def a_sentence(message: str) -> None:
    """What walkback's own errors are like: one line that can be printed, and not endless.

    Raises:
        AssertionError: It is not.
    """
    assert message.isprintable(), message[:500]
    assert 10 < len(message) < 3000, message[:500]


@dataclass(slots=True)
class Tally:
    """What came of the cases of one fuzzer: counts by outcome, and the failures."""

    fuzzer: str
    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def record(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "fuzzer": self.fuzzer,
            "seed": self.seed,
            "cases": self.outcomes.total() + len(self.failures),
            "outcomes": dict(sorted(self.outcomes.items())),
            "failures": self.failures,
            "slowest_seconds": round(self.slowest, 2),
            "peak_mib": peak_mib(),
        }

    def write(self) -> None:
        """Print the record, on the last line."""
        sys.stdout.write(json.dumps(self.record()) + "\n")
        sys.stdout.flush()
