"""The objective is what it says, has no floor, and what learns by it ignores the data."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from walkback_released.objective import ReleasedCode

from walkback.kernels import NormalKernel
from walkback.schedules import Level
from walkback.testing import Case, Check, checks
from walkback.walk import Transition

CASE = Case.of("released-code")


@pytest.mark.parametrize("check", checks("objective"), ids=str)
def test_conforms(check: Check) -> None:
    check(CASE)


def loss(variance: float, *, source: float = 5.0, target: float = 2.0, mean: float = 2.0) -> float:
    kernel = NormalKernel(torch.tensor([[mean]]), torch.tensor([[variance]]))
    states = torch.tensor([[source]]), torch.tensor([[target]])
    return ReleasedCode()(Transition(*states, Level(1, 1.0), kernel, kernel)).item()


def test_it_is_the_density_of_the_state_that_is_given() -> None:
    """½ [(s_t - μ)² / v + log 2πv], whatever s_{t-1} is."""
    assert loss(0.5, mean=1.0) == pytest.approx(0.5 * (1 / 0.5 + math.log(2 * math.pi * 0.5)))
    assert loss(0.5, source=-70.0) == loss(0.5)


def test_at_the_identity_it_has_no_floor() -> None:
    """A hundredth of the variance is worth log 10 nats a dimension, every time."""
    assert loss(1e-2) - loss(1e-4) == pytest.approx(math.log(10), rel=1e-4)
    assert loss(1e-4) - loss(1e-6) == pytest.approx(math.log(10), rel=1e-4)


def degenerates() -> Any:
    """The script beside the package."""
    path = Path(__file__).parents[1] / "degenerates.py"
    spec = importlib.util.spec_from_file_location("degenerates", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_it_degenerates_where_the_papers_rule_learns(tmp_path: Path) -> None:
    """100 walks: the paper's bound beats every Gaussian's; the other's is hundreds of nats, F → identity, r → 0."""
    script = degenerates()
    found = {name: script.measure(name, 100, num=400) for name in script.NAMES}
    data = script.dataset().examples("test")[:400]
    paper, released = found["walkback"], found["released-code"]
    assert paper.bound + 4.5 * paper.bound_error < script.best_gaussian(data)
    assert released.bound - 4.5 * released.bound_error > 100
    assert released.map_distance < 0.25 * paper.map_distance
    assert released.ratio < 0.05 * paper.ratio
    assert released.history[-20:].mean() < paper.history[-20:].mean() - 3
    script.draw(tmp_path / "picture.png", found, data)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
