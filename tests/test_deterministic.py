"""`run.deterministic`: deterministic algorithms for the run, and PyTorch as it was before and after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import digest, run

import walkback.training.run_bound as runner
from walkback.building.devices import deterministic

WANTED = ("--set", "run.deterministic=true")


def state() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


def test_the_switches_are_set_inside_and_put_back() -> None:
    before = state()
    with deterministic(True):
        assert state() == (2, True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert state() == before
    with deterministic(False):
        assert state() == before


def test_they_are_put_back_as_they_were_also_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = state()
        with pytest.raises(KeyError), deterministic(True):
            raise KeyError(os.environ["CUBLAS_WORKSPACE_CONFIG"])
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # the user's own
        assert state() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_is_not_deterministic_is_refused_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    estimate = runner.estimate_bound

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append(state())
        return estimate(*args, **kwargs)

    monkeypatch.setattr(runner, "estimate_bound", look)
    before = state()
    assert run(tmp_path / "a", *WANTED, steps=2).code == 0
    assert state() == before
    assert set(seen) == {(2, True, False)}


def test_on_the_cpu_a_run_is_the_same(tmp_path: Path) -> None:
    """Everything that a run does has a deterministic algorithm."""
    for name, options in (("a", WANTED), ("b", ())):
        assert run(tmp_path / name, *options, "--set", "training.validate_every=2", steps=4).code == 0
    pictures = [f"samples/{name}.png" for name in ("annealed", "chain", "walk")]
    for name in pictures:
        assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name)
