"""Mutated checkpoints: only walkback's own errors come of them, or output that is finite.

`python benchmarks/soak.py --part checkpoints` judges 10,000 of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.reliability.checkpoint_fuzz import BASES, judge, whole_checkpoints
from tests.reliability.checkpoint_mutations import header_of, mutants, put_together, signed, take_apart

import walkback as wb

SEED, COUNT = 1, 84


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return whole_checkpoints(tmp_path_factory.mktemp("whole"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutants_are_refused_or_used_right(bases: dict[str, bytes], tmp_path: Path) -> None:
    outcomes = Counter(judge(mutant, tmp_path) for mutant in mutants(bases, SEED, COUNT))
    assert outcomes["refused"] > COUNT / 2
    assert outcomes["used"] > 5  # what is behind the first checks has been reached


def test_mutants_follow_from_seed_and_number(bases: dict[str, bytes]) -> None:
    first = list(mutants(bases, seed=3, count=40))
    assert list(mutants(bases, seed=3, count=20, start=20)) == first[20:]
    assert list(mutants(bases, seed=4, count=40)) != first
    assert len({mutant.content for mutant in first}) > 35


@pytest.mark.parametrize("base", BASES)
def test_taking_apart_and_signing_again_changes_nothing(
    bases: dict[str, bytes], base: str, tmp_path: Path
) -> None:
    """A mutant that is refused is refused for what was changed."""
    parts = take_apart(bases[base])
    if "sha256" in parts.document:
        parts.document["sha256"] = "0" * 64
    (tmp_path / "a.safetensors").write_bytes(signed(put_together(*header_of(parts))))
    (tmp_path / "b.safetensors").write_bytes(bases[base])
    mine, theirs = (wb.sample(wb.load(tmp_path / f"{name}.safetensors"), 2, progress=False) for name in "ab")
    assert mine.states.equal(theirs.states)
