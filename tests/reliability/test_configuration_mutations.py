"""Mutated recipes and configurations of runs: resolved, or refused in a sentence.

`python benchmarks/soak.py --part configurations` judges 2,000 of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.reliability.configuration_fuzz import judge, mutants, whole_configurations

SEED, COUNT = 2, 80


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutants_are_refused_or_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    bases = whole_configurations(tmp_path)
    outcomes = Counter(judge(mutant, tmp_path) for mutant in mutants(bases, SEED, COUNT))
    assert outcomes["refused"] > COUNT / 2
    assert outcomes["resolved"] > 10


def test_mutants_follow_from_seed_and_number(tmp_path: Path) -> None:
    bases = whole_configurations(tmp_path)
    first = list(mutants(bases, seed=3, count=40))
    assert list(mutants(bases, seed=3, count=20, start=20)) == first[20:]
    assert list(mutants(bases, seed=4, count=40)) != first
