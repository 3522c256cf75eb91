"""`--nproc N`: the same command in N processes that train one operator together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import BinaryIO

_POLL = 0.1  # seconds
_GRACE = 1.0  # seconds
_PATIENCE = 10.0  # seconds
_SAVING = 120.0  # seconds, for the checkpoint of a large operator

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a command that was asked to stop."""


def is_child() -> bool:
    """Whether a launcher (this one, or torchrun) has announced several processes."""
    return "WORLD_SIZE" in os.environ


def launch(nproc: int, arguments: Sequence[str]) -> int:
    """Run `walkback` with `arguments` in `nproc` processes; returns the exit code of the first that failed, or 0.

    The first process talks; what another one says is shown only if it failed for a reason of its own. A signal to this
    process reaches all of them; when one fails, the others are ended.
    """
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    with ExitStack() as stack:
        voices = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, nproc)]
        previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            port = _free_port()
            children.extend(
                _start(rank, nproc, port, arguments, voices[rank - 1] if rank else None)
                for rank in range(nproc)
            )
            rank, code = _wait(children)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            for child in children:
                child.kill()
                child.wait()
        if children[rank].returncode < 0 and code not in STOPPED:
            name = signal.Signals(-children[rank].returncode).name
            sys.stderr.write(
                f"error: Process {rank + 1} of {nproc} was ended by {name}; go on with --resume.\n"
            )
        # With code 1 the first process may only say that it lost this one, instead of why.
        if rank and code not in STOPPED and (code == 1 or children[0].returncode != code):
            voices[rank - 1].seek(0)
            sys.stderr.write(voices[rank - 1].read().decode(errors="replace"))
        return code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(
    rank: int, nproc: int, port: int, arguments: Sequence[str], voice: BinaryIO | None
) -> subprocess.Popen[bytes]:
    world = {
        "WORLD_SIZE": str(nproc),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "walkback", *arguments],
        env={**os.environ, **world},
        stdout=subprocess.DEVNULL if rank else None,
        stderr=voice,
        start_new_session=True,  # Ctrl-C comes through us, once
    )


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Rank and exit code of the first process that failed; (0, 0) where none does.

    The first process is given time to end by itself then: it may be saving a checkpoint.
    """
    while True:
        codes = [child.poll() for child in children]
        if codes[0] == 1:  # it may have lost one that is about to say why it failed
            time.sleep(_GRACE)
            codes = [child.poll() for child in children]
        if any(codes):
            rank, status = blamed(codes)
            code = status if status > 0 else 128 - status
            with suppress(subprocess.TimeoutExpired):
                children[0].wait(_SAVING if code in STOPPED else _PATIENCE)
            return rank, code
        if all(status == 0 for status in codes):
            return 0, 0
        time.sleep(_POLL)


def blamed(codes: Sequence[int | None]) -> tuple[int, int]:
    """Rank and status of the process that failed first, as far as can be told of those that are seen at once.

    One that a signal ended did not fail because of another one. Code 1 may say no more than that another process was
    lost, and is what the first process says then.

    >>> blamed([1, -9]), blamed([1, 2]), blamed([1, 1]), blamed([2, 2]), blamed([None, 1])
    ((1, -9), (1, 2), (1, 1), (0, 2), (1, 1))
    """
    failed = [(rank, status) for rank, status in enumerate(codes) if status]
    return min(failed, key=lambda one: (one[1] > 0, one[1] == 1, one[1] == 1 and one[0] == 0, one[0]))
