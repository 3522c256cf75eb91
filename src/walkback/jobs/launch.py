"""`--nproc N`: run the command line in N processes that do one job together, started by torch's launcher.

Equivalent to `torchrun --nproc-per-node N -m walkback …`, except for the output: only the first process prints.
The stderr of another process is shown if that process caused a failure.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from walkback.support.interrupts import Interrupted, handled_signals

_SAVING = 120  # seconds to save the checkpoint of a large operator after a signal
_STOPPED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
"""Exit codes of a process that was stopped by a signal."""


def launch(nproc: int, arguments: Sequence[str], advice: str = "") -> int:
    """Run `walkback` with `arguments` in `nproc` processes and return 0, or the exit code of the failed process.

    A signal to this process is forwarded to all of them, and they have time to save. If one fails, the others are
    terminated.

    Args:
        nproc: Number of processes.
        arguments: Of the command line.
        advice: What to do when a process is lost, at the end of the sentence that says so.

    Raises:
        Interrupted: The processes were stopped by a signal; the first one has reported it.
    """
    with TemporaryDirectory(prefix="walkback-") as place, _unheard():
        others: dict[int, Std] = dict.fromkeys(range(1, nproc), Std.ALL)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=nproc,
            run_id="walkback",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(place, redirects=others),
            signals_to_handle=",".join(number.name for number in handled_signals()),
            shutdown_timeout=_SAVING,
        )
        # The launcher substitutes ${local_rank} in arguments, so `$` is escaped as `$$`.
        words = [argument.replace("$", "$$") for argument in ("-m", "walkback", *arguments)]
        try:
            elastic_launch(config, sys.executable)(*words)
        except SignalException as stopped:
            raise Interrupted(stopped.sigval, None, 0) from None
        except ChildFailedError as failed:
            codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
            return _failed(codes, nproc, Path(place), advice)
        return 0


def _blamed(codes: Mapping[int, int]) -> int:
    """Return the rank of the process that caused a failure, from exit codes by rank in the order of their arrival.

    When a process fails, the launcher ends the others by SIGTERM, so SIGTERM is the weakest evidence. Code 1 is weaker
    than others, since it may only mean that another process was lost, as the first process usually reports.

    >>> [_blamed(codes) for codes in ({1: -9, 0: 1}, {0: 1, 1: 2}, {0: 1, 1: 1}, {0: 2, 1: 2}, {1: 1, 0: -15})]
    [1, 1, 1, 0, 1]
    """
    order = list(codes)
    ended = (-signal.SIGTERM, 128 + signal.SIGTERM)

    def rank_of_blame(rank: int) -> tuple[bool, bool, bool, int]:
        unsaid = codes[rank] == 1
        return codes[rank] in ended, unsaid, unsaid and rank == 0, order.index(rank)

    return min(codes, key=rank_of_blame)


def _failed(codes: Mapping[int, int], nproc: int, place: Path, advice: str) -> int:
    """Report the cause of a failure unless the first process has done so, and return the exit code."""
    rank = _blamed(codes)
    status = codes[rank]
    code = status if status > 0 else 128 - status
    if code in _STOPPED:
        raise Interrupted(code - 128, None, 0)
    if status < 0:
        name = signal.Signals(-status).name
        sys.stderr.write(f"error: Process {rank + 1} of {nproc} was ended by {name}{advice}.\n")
    # With code 1, the first process may have reported only that it lost this one, and not why.
    if rank and (code == 1 or codes.get(0) != code):
        for voice in place.rglob(f"{rank}/stderr.log"):
            sys.stderr.write(voice.read_text("utf-8", errors="replace"))
    return code


@contextmanager
def _unheard() -> Iterator[None]:
    """Suppress the launcher's log in the block, and restore the signal handlers that it replaces."""
    before = {number: signal.getsignal(number) for number in handled_signals()}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
