"""Data files damaged at random: only walkback's own errors come of them, or states that are finite.

`python benchmarks/soak.py --part data` judges 2,000 of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.reliability.data_mutations import images, judge, mutants, tables


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
