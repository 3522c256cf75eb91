"""Races: who works when, what is timed, who is left out; with a clock that the test moves."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch

from walkback.speed.race import Entrant, race
from walkback.support.memory import peak_of_process
from walkback.support.threads import cpu_threads
from walkback.support.watch import Silent, Watch

CPU = torch.device("cpu")


class Course:
    """A clock, and works that take a number of its seconds and say their name."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []

    def entrant(self, name: str, seconds: float, **options: bool) -> Entrant:
        times = itertools.count(1)

        def work() -> None:
            self.said.append(name)
            self.now += seconds * next(times)  # every time longer by as much as the first

        return Entrant(name, lambda: work, **options)

    def run(self, *entrants: Entrant, repeats: int, warmup: int = 1, watch: Watch | None = None) -> None:
        race(
            entrants,
            warmup=warmup,
            repeats=repeats,
            device=CPU,
            watch=watch or Silent(),
            clock=lambda: self.now,
        )


def failing_at(course: Course, name: str, time: int, error: BaseException, optional: bool = True) -> Entrant:
    """Works, but for one time, counted from 1."""
    times = itertools.count(1)

    def work() -> None:
        course.said.append(name)
        if next(times) == time:
            raise error

    return Entrant(name, lambda: work, optional=optional)


def test_every_repeat_has_all_in_turn_and_somebody_else_first() -> None:
    course = Course()
    course.run(*(course.entrant(name, 1.0) for name in "abc"), repeats=3, warmup=2)
    assert "".join(course.said) == "aabbcc" + "abc" + "bca" + "cab"


def test_times_are_those_of_the_repeats_in_order() -> None:
    course = Course()
    a, b = course.entrant("a", 1.0), course.entrant("b", 10.0)
    course.run(a, b, repeats=3, warmup=2)
    assert (a.lost, b.lost) == ("", "")
    assert (a.seconds, b.seconds) == ([3.0, 4.0, 5.0], [30.0, 40.0, 50.0])
    assert a.memory is None  # not counted on a CPU


@pytest.mark.parametrize("time", [1, 2, 3])
def test_one_that_is_only_compared_may_fail_at_any_time(time: int) -> None:
    course = Course()
    a, c = course.entrant("a", 1.0), course.entrant("c", 1.0)
    b = failing_at(course, "b", time, ValueError("no\nsuch thing."))
    course.run(a, b, c, repeats=3)
    assert (a.lost, c.lost) == ("", "")
    assert b.lost == "b is left out: ValueError: no such thing"
    assert (len(a.seconds), len(c.seconds)) == (3, 3)
    assert course.said.count("b") == time


def test_one_that_cannot_be_made_is_left_out() -> None:
    def build() -> Callable[[], None]:
        raise RuntimeError("out of memory")

    course = Course()
    a, b = course.entrant("a", 1.0), Entrant("b", build, optional=True)
    course.run(a, b, repeats=1)
    assert (a.lost, b.lost) == ("", "b is left out: RuntimeError: out of memory")


@pytest.mark.parametrize(("optional", "error"), [(False, ValueError()), (True, KeyboardInterrupt())])
def test_what_is_needed_and_who_interrupts_end_the_race(optional: bool, error: BaseException) -> None:
    course = Course()
    with pytest.raises(type(error)):
        course.run(course.entrant("a", 1.0), failing_at(course, "b", 2, error, optional), repeats=3)


def test_progress_is_told_after_each_piece_of_work() -> None:
    told: list[tuple[str, int]] = []

    class Watching:
        def stage(self, text: str, total: int, done: int = 0) -> None:
            told.append((text, total))

        def advance(self, done: int, figures: Mapping[str, float]) -> None:
            told.append(("", done))

    course = Course()
    both = [course.entrant("a", 1.0), course.entrant("b", 1.0)]
    course.run(*both, repeats=2, watch=Watching())
    assert told == [("Measuring", 6), *(("", number) for number in range(1, 7))]


# --- the device


def test_a_cuda_device_is_waited_for_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not been waited for is nobody's time, or somebody else's."""
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: said.append(f"wait {device}"))
    for name in ("memory_allocated", "max_memory_allocated", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    entrant = Entrant("a", lambda: lambda: said.append("work"))
    race(
        [entrant],
        warmup=0,
        repeats=1,
        device=torch.device("cuda", 1),
        watch=Silent(),
        clock=lambda: float(said.append("clock") or len(said)),
    )
    assert entrant.seconds == [3.0]
    assert said == ["wait cuda:1", "clock", "work", "wait cuda:1", "clock"]


def test_memory_of_a_cuda_device_is_what_is_kept_and_the_largest_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, peak = 100, 0

    def allocate(kept: int, most: int) -> None:
        nonlocal held, peak
        held, peak = held + kept, max(peak, held + most)

    def forget(device: torch.device) -> None:
        nonlocal peak
        peak = held

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forget)
    needs = itertools.chain([(20, 90)], [(0, 5), (0, 50), (0, 7)])  # the first keeps its optimizer's moments
    entrant = Entrant("a", lambda: lambda: allocate(*next(needs)))
    other = Entrant("b", lambda: lambda: allocate(0, 1000))
    cuda = torch.device("cuda", 0)
    race([entrant, other], warmup=1, repeats=3, device=cuda, watch=Silent(), clock=lambda: 0.0)
    assert (entrant.memory, other.memory) == (20 + 50, 1000)


def test_threads_are_put_back_in_any_case() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(ZeroDivisionError), cpu_threads(before + 2):
        _ = 1 / 0
    assert torch.get_num_threads() == before
    with cpu_threads(0):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(("platform", "size"), [("linux", 1024), ("darwin", 1)])
def test_the_peak_of_the_process_is_in_bytes(
    monkeypatch: pytest.MonkeyPatch, platform: str, size: int
) -> None:
    """Linux tells KiB, macOS bytes."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=7_000_000))
    assert peak_of_process() == 7_000_000 * size


def test_the_peak_of_this_process_has_room_for_torch() -> None:
    peak = peak_of_process()
    if peak is None:
        pytest.skip("this system does not tell")
    assert 2**25 < peak < 2**40
