"""Killed or terminated at any moment and resumed, a run ends with the bits of one that was left in peace.

One run of a few ways to train is struck here; `benchmarks/soak.py` strikes runs of all of them for minutes.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from tests.reliability.forks import Forks
from tests.reliability.kills import (
    Subject,
    at_operations,
    at_random_moments,
    bits,
    calls,
    difference,
    disturbed,
    undisturbed,
)

MODES = ("batch", "chains", "online", "two processes")
SEED = 7


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def subjects(server: Forks, place: Path) -> dict[str, Subject]:
    return {mode: undisturbed(server, mode, place) for mode in MODES}


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("online", signal.SIGKILL),
        ("two processes", signal.SIGKILL),
        ("chains", signal.SIGTERM),
    ],
)
def test_struck_at_random_moments_until_done(
    server: Forks, subjects: dict[str, Subject], mode: str, number: signal.Signals
) -> None:
    attempt = at_random_moments(number, random.Random(SEED))
    ends = list(disturbed(server, subjects[mode], number, attempt, f"{number.name}-{mode}"))
    assert len(ends) > 1


@pytest.mark.parametrize(("mode", "number"), [("chains", signal.SIGKILL), ("batch", signal.SIGTERM)])
def test_struck_between_operations_on_files_until_done(
    server: Forks, subjects: dict[str, Subject], mode: str, number: signal.Signals
) -> None:
    """In the middle of saving, of pictures, of the first and the last file: before a chosen rename, sync or open."""
    attempt = at_operations(number, random.Random(SEED))
    ends = list(disturbed(server, subjects[mode], number, attempt, f"operations-{number.name}-{mode}"))
    assert len(ends) > 2


def test_another_seed_is_noticed(server: Forks, subjects: dict[str, Subject], place: Path) -> None:
    """What the runs are compared by tells them apart."""
    subject = subjects["batch"]
    (call,) = calls(subject, place / "other")
    other = type(call)([*call.arguments, "--seed", "1"], call.log)
    assert server.ended(server.start(other)) == [0]
    differing = difference(bits(place / "other"), subject.bits)
    assert differing.split(", ") == [
        *("model", "last checkpoint", "optimizer", "weights and chains", "cursor and seed", "metrics"),
        *("configuration", "pictures"),
    ]
