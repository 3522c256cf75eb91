"""`--nproc N`: the same command in N processes that train one operator together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

_POLL = 0.1  # seconds


def is_child() -> bool:
    """Whether a launcher (this one, or torchrun) has announced several processes."""
    return "WORLD_SIZE" in os.environ


def launch(nproc: int, arguments: Sequence[str]) -> int:
    """Run `walkback` with `arguments` in `nproc` processes; returns the first exit code that is not 0.

    A signal to this process reaches all of them; when one fails, the others are ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(nproc), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "walkback", *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=None if rank == 0 else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C comes through us, once
        )
        for rank in range(nproc)
    ]

    def forward(number: int, _: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _wait(children)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for child in children:
            child.kill()
            child.wait()


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed:
            _let_finish(children)
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if all(code == 0 for code in codes):
            return 0
        time.sleep(_POLL)


def _let_finish(children: list[subprocess.Popen[bytes]], seconds: float = 10.0) -> None:
    """Processes that stop together do so within moments of each other."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(_POLL)
