"""Signals during long work: the first asks, the second insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import TINY, finish, running, wait_until, walkback

from walkback.support.interrupts import stoppable

Install = Callable[..., Path]

SLEEPER = """
    import time
    from walkback.objectives import Objective

    class Sleeper(Objective):
        def __call__(self, transition):
            time.sleep(600)

    @hookimpl
    def walkback_objectives():
        yield Component("sleeper", "sleeper_main:Sleeper", "Takes ten minutes a step")
"""

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_a_request_that_is_told_once(number: signal.Signals) -> None:
    told: list[int] = []
    with stoppable(lambda: told.append(1)) as stop:
        assert not stop
        signal.raise_signal(number)
        assert (bool(stop), stop.signal, told) == (True, number, [1])


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("second", NUMBERS)
def test_the_second_signal_interrupts_at_once(first: signal.Signals, second: signal.Signals) -> None:
    told: list[int] = []

    def work() -> None:
        with stoppable(lambda: told.append(1)):
            signal.raise_signal(first)
            told.append(2)
            signal.raise_signal(second)
            told.append(3)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert told == [1, 2]


def test_handlers_are_put_back_in_any_case() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with stoppable():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    with pytest.raises(ZeroDivisionError), stoppable():
        _ = 1 / 0
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_other_threads_leave_signals_alone() -> None:
    seen: list[bool] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        with stoppable() as stop:
            seen.append(signal.getsignal(signal.SIGINT) is before and not stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


def test_a_second_signal_ends_a_walk_that_takes_long(install: Install, tmp_path: Path) -> None:
    site = install("sleeper", SLEEPER)
    directory, options = tmp_path / "a", ("--objective", "sleeper", "--steps", "1")
    with running("run", *TINY, *options, "--out", directory, PYTHONPATH=str(site)) as process:
        assert process.stderr is not None
        wait_until((directory / "metrics.jsonl").exists, process)
        process.send_signal(signal.SIGINT)
        while "once more to abort" not in process.stderr.readline():
            assert process.poll() is None
        assert process.poll() is None  # it waits for the end of the walk
        process.send_signal(signal.SIGINT)
        done = finish(process)  # gives up long before the walk would end
    assert (done.code, done.err) == (130, "error: interrupted.\n")
    left = {path.name for path in directory.rglob("*") if path.is_file()}
    assert left == {".lock", "config.toml", "metrics.jsonl"}
    again = walkback("run", "--resume", directory, "--objective", "walkback", "--steps", "1")
    assert again.code == 2  # another objective is another run
    assert "objective.name" in again.err
