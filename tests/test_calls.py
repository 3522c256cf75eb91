"""Network calls: the rows that an operator is evaluated at, counted in training and resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import torch
from tests.program import TINY_BATCH, records, run, walkback
from tests.toy.learned import seeing_gaussian
from tests.toy.trainers import Updates, trainer
from torch import nn

from walkback.measuring.calls import counted_calls
from walkback.sampling import anneal, last
from walkback.storage.checkpoint import load_checkpoint
from walkback.training.progress import Progress
from walkback.training.trainer import levels_of_walk

ROWS: Final = 8


@pytest.mark.parametrize("updates", ["online", "batch", "stacked"])
def test_a_walk_of_k_steps_costs_k_plus_one_and_a_stacked_one_k_more(updates: Updates) -> None:
    worker = trainer(updates=updates)
    expected = with_gradient = 0
    for number in range(3):
        steps = len(levels_of_walk(worker.model, 0, number))
        expected += ROWS * (2 * steps + 1 if updates == "stacked" else steps + 1)
        with_gradient += ROWS * (steps if updates == "stacked" else steps + 1)
        worker.walk()
    assert (worker.progress.calls, worker.progress.gradient_calls) == (expected, with_gradient)


def test_persistent_chains_cost_their_own_steps() -> None:
    plain, chained = trainer(), trainer(chains={"share": 0.5, "pool": 8, "steps": 5})
    plain.walk()
    chained.walk()
    assert plain.progress.calls is not None
    assert chained.progress.calls is not None
    assert chained.progress.calls - plain.progress.calls == ROWS // 2 * 5


def test_an_annealed_sample_costs_a_call_a_level() -> None:
    model = trainer(seeing_gaussian()).model
    levels = model.levels()
    with counted_calls(model.operator) as calls:
        last(anneal(model.operator, model.prior, levels, 6, torch.Generator().manual_seed(0)))
    assert (calls.rows, calls.with_gradient) == (6 * len(levels), 0)


def test_named_arguments_count_and_the_hook_goes() -> None:
    class Doubling(nn.Module):
        def forward(self, state: torch.Tensor, level: int = 0) -> torch.Tensor:
            return 2 * state

    double = Doubling()
    with counted_calls(double) as calls:
        double(state=torch.ones(3, 2))
        double(torch.ones(4), level=1)
    double(torch.ones(5))
    assert calls.rows == 7


def test_calls_are_logged_saved_and_resumed(tmp_path: Path) -> None:
    assert run(tmp_path / "straight", "--no-pictures", "--set", "training.log_every=1").code == 0
    cut = [
        *("--no-pictures", "--set", "training.log_every=1"),
        *("--set", "training.checkpoint_every=3"),
    ]
    assert run(tmp_path / "cut", *cut, steps=3).code == 0
    assert walkback("run", "--resume", tmp_path / "cut", "--steps", "6", "--no-pictures").code == 0
    ours, theirs = (
        [(line["calls"], line["gradient_calls"]) for line in records(tmp_path / name) if "calls" in line]
        for name in ("straight", "cut")
    )
    assert ours == theirs
    assert len(ours) == 6
    assert all(calls == gradient and calls % TINY_BATCH == 0 for calls, gradient in ours)
    progress = load_checkpoint(tmp_path / "cut" / "final.safetensors").description.progress
    assert (progress["calls"], progress["gradient_calls"]) == ours[-1]


def test_what_was_not_counted_stays_unknown() -> None:
    old = Progress.of({"walks": 3, "updates": 3, "seconds": 1.0})
    assert (old.calls, old.gradient_calls) == (None, None)
    assert trainer(seeing_gaussian()).progress.called(None, 1).calls is None
    with counted_calls(nn.Identity()) as calls:
        assert old.called(calls, 1).calls is None
