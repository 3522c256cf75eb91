"""`--nproc N`: this command line in N processes that train one operator together, started by torch's launcher.

As `torchrun --nproc-per-node N -m walkback …` does, but for what is said: the first process talks, and what another one
says is shown only if it failed for a reason of its own.
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

_SAVING = 120  # seconds, for the checkpoint of a large operator
_STOPPED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
"""Exit codes of a process that was asked to stop."""


def launch(nproc: int, arguments: Sequence[str]) -> int:
    """Run `walkback` with `arguments` in `nproc` processes; returns the exit code of the one that failed first, or 0.

    A signal to this process reaches all of them, which are given time to save; when one fails, the others are ended.

    Raises:
        Interrupted: They were asked to stop, and have; the first one has said so.
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
        # The launcher fills in ${local_rank}; `$$` stands for `$`.
        words = [argument.replace("$", "$$") for argument in ("-m", "walkback", *arguments)]
        try:
            elastic_launch(config, sys.executable)(*words)
        except SignalException as stopped:
            raise Interrupted(stopped.sigval, None, 0) from None
        except ChildFailedError as failed:
            codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
            return _failed(codes, nproc, Path(place))
        return 0


def _blamed(codes: Mapping[int, int]) -> int:
    """The process that failed for a reason of its own, of exit codes by rank, in the order in which they were seen.

    Others are ended by SIGTERM when one has failed. Code 1 may say no more than that another process was lost, and is
    what the first process says then.

    >>> [_blamed(codes) for codes in ({1: -9, 0: 1}, {0: 1, 1: 2}, {0: 1, 1: 1}, {0: 2, 1: 2}, {1: 1, 0: -15})]
    [1, 1, 1, 0, 1]
    """
    order = list(codes)
    ended = (-signal.SIGTERM, 128 + signal.SIGTERM)

    def rank_of_blame(rank: int) -> tuple[bool, bool, bool, int]:
        unsaid = codes[rank] == 1
        return codes[rank] in ended, unsaid, unsaid and rank == 0, order.index(rank)

    return min(codes, key=rank_of_blame)


def _failed(codes: Mapping[int, int], nproc: int, place: Path) -> int:
    """Say why, where the first process has not, and return the exit code."""
    rank = _blamed(codes)
    status = codes[rank]
    code = status if status > 0 else 128 - status
    if code in _STOPPED:
        raise Interrupted(code - 128, None, 0)
    if status < 0:
        name = signal.Signals(-status).name
        sys.stderr.write(f"error: Process {rank + 1} of {nproc} was ended by {name}; go on with --resume.\n")
    # With code 1 the first process may only say that it lost this one, instead of why.
    if rank and (code == 1 or codes.get(0) != code):
        for voice in place.rglob(f"{rank}/stderr.log"):
            sys.stderr.write(voice.read_text("utf-8", errors="replace"))
    return code


@contextmanager
def _unheard() -> Iterator[None]:
    """The launcher's own log is not shown, and its handlers of signals do not outlive it."""
    before = {number: signal.getsignal(number) for number in handled_signals()}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
