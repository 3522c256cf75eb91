"""Signals during long work: at once, unless deferred; then the first asks, and the second insists."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.program import TINY, finish, running, wait_until, walkback

from walkback.support.interrupts import Stopped, ended_by_signals, stoppable

Install = Callable[..., Path]

SLEEPER = """
    import time
    from walkback.objectives import Objective

    class Sleeper(Objective):
        calls = 0

        def __call__(self, transition):
            self.calls += 1
            if self.calls > 1:
                time.sleep(600)
            return -transition.log_p

    @hookimpl
    def walkback_objectives():
        yield Component("sleeper", "sleeper_main:Sleeper", "Takes ten minutes from the second step on")
"""

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_waits_where_it_is_deferred_and_is_told_once(number: signal.Signals) -> None:
    told: list[object] = []

    def work() -> None:
        with stoppable(lambda: told.append(1)) as stop, stop.deferred():
            assert not stop
            signal.raise_signal(number)
            assert (bool(stop), stop.signal, told) == (True, number, [1])
            told.append("the rest")

    with pytest.raises(Stopped) as caught:
        work()
    assert told == [1, "the rest"]
    assert (caught.value.signal, caught.value.insisted) == (number, False)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("block", [ended_by_signals, stoppable])
def test_elsewhere_it_ends_the_block_at_once(number: signal.Signals, block: Callable[[], Any]) -> None:
    reached: list[int] = []

    def work() -> None:
        with block():
            signal.raise_signal(number)
            reached.append(1)

    with pytest.raises(Stopped) as caught:
        work()
    assert (caught.value.signal, caught.value.insisted, reached) == (number, False, [])


def test_what_handles_errors_does_not_handle_signals() -> None:
    def work() -> None:
        with contextlib.suppress(Exception):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped), ended_by_signals():
        work()


def test_an_exception_that_is_lost_in_a_finalizer_is_raised_again() -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Finalized()
        time.sleep(60)

    with pytest.raises(Stopped), ended_by_signals():
        work()


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("second", NUMBERS)
def test_the_second_signal_interrupts_at_once(first: signal.Signals, second: signal.Signals) -> None:
    told: list[int] = []

    def work() -> None:
        with stoppable(lambda: told.append(1)) as stop, stop.deferred():
            signal.raise_signal(first)
            told.append(2)
            signal.raise_signal(second)
            told.append(3)

    with pytest.raises(Stopped) as caught:
        work()
    assert told == [1, 2]
    assert (caught.value.signal, caught.value.insisted) == (second, True)


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
    directory = tmp_path / "a"
    options = ("--objective", "sleeper", "--steps", "2", "--set", "training.updates=stacked")
    with running("run", *TINY, *options, "--out", directory, PYTHONPATH=str(site)) as process:
        assert process.stderr is not None
        metrics = directory / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_text(), process)
        process.send_signal(signal.SIGTERM)
        while "once more to abort" not in process.stderr.readline():
            assert process.poll() is None
        assert process.poll() is None  # it waits for the end of the walk
        process.send_signal(signal.SIGINT)
        done = finish(process)  # gives up long before the walk would end
    assert (done.code, done.err.splitlines()[-1]) == (130, "error: interrupted.")
    left = {path.name for path in directory.rglob("*") if path.is_file()}
    assert left == {".lock", "config.toml", "metrics.jsonl"}
    again = walkback("run", "--resume", directory, "--objective", "walkback", "--steps", "1")
    assert again.code == 2  # another objective is another run
    assert "objective.name" in again.err
