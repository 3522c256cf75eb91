"""Data files damaged at random: only walkback's own errors come of them, or states that are finite.

The long run takes minutes: `WALKBACK_SOAK=1 pytest -m slow tests/reliability/test_data_mutations.py`, or, with other
seeds and counts, `python -m tests.reliability.data_mutations --count 2000 --seed 0` from the repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.reliability.data_mutations import images, judge, mutants, tables

ROOT = Path(__file__).parents[2]
_MOST_MIB = 2500


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_data_are_refused_or_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))
    outcomes = Counter(judge(mutant, tmp_path) for mutant in mutants(seed=0, count=72))
    assert outcomes["refused"] > 40
    assert outcomes["read"] > 5


def test_mutants_follow_from_seed_and_number(tmp_path: Path) -> None:
    first = list(mutants(seed=3, count=12))
    assert list(mutants(seed=3, count=6, start=6)) == first[6:]
    assert list(mutants(seed=4, count=12)) != first


def test_whole_files_are_what_is_damaged() -> None:
    """Damage to what is damaged already would prove little."""
    assert all(data[:4] == b"PAR1" == data[-4:] for data in tables().values())
    assert len(images()) > 25


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("WALKBACK_SOAK"), reason="A soak of minutes: set WALKBACK_SOAK=1.")
def test_2000_damaged_files_in_bounded_time_and_memory() -> None:
    """In processes of their own, of which none may crash, hang (600 s for 500 files), or grow beyond 2,500 MiB."""
    outcomes: Counter[str] = Counter()
    for start in range(0, 2000, 500):
        command = [
            "-m",
            "tests.reliability.data_mutations",
            "--count",
            "500",
            "--seed",
            "0",
            "--start",
            str(start),
        ]
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
        lines = done.stdout.splitlines()
        assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-500:])
        record = json.loads(lines[-1])
        assert record["failures"] == []
        assert record["peak_mib"] < _MOST_MIB
        outcomes.update(record["outcomes"])
    assert outcomes.total() == 2000
