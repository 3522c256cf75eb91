"""What is not finite is neither drawn nor written: samples, chains, inpainted states, and pictures of runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.program import run, tree, walkback

import walkback as wb
from walkback.sampling.finite import FiniteStates, NotFiniteStatesError
from walkback.schedules import levels_from
from walkback.storage.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "a"
    assert run(directory, steps=2).code == 0
    return directory / "final.safetensors"


@pytest.fixture
def diverging(trained: Path, tmp_path: Path) -> Path:
    """A checkpoint of finite weights that lead to infinite states."""
    checkpoint = load_checkpoint(trained)
    large = {
        name: value * 1e30 if name.endswith("weight") else value for name, value in checkpoint.tensors.items()
    }
    path = tmp_path / "diverging.safetensors"
    save_checkpoint(path, replace(checkpoint, tensors=large))
    return path


@pytest.mark.parametrize("ending", ["npz", "png", "gif", "safetensors"])
@pytest.mark.parametrize("command", ["sample", "inpaint"])
def test_no_file_of_what_is_not_finite(diverging: Path, tmp_path: Path, command: str, ending: str) -> None:
    if (command, ending) == ("inpaint", "gif"):
        ending = "png"
    out = tmp_path / f"out.{ending}"
    options = ("--extra", "2", "--out", out)
    more = (
        ("--num", "3", "--chain", "4", "--every", "2")
        if command == "sample"
        else ("--keep", "top", "--num", "2")
    )
    before = tree(tmp_path)
    done = walkback(command, diverging, *more, *options)
    assert done.code == 1, done.err
    assert "states that are not finite after step 1 of" in done.err
    assert tree(tmp_path) == before
    with pytest.raises(NotFiniteStatesError):
        wb.sample(diverging, num=2, progress=False)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (0, "before the first step"),
        (1, r"after step 1 of 6 \(temperature 4\)"),
        (2, r"after step 2 of 6 \(temperature 2\)"),
        (5, r"after step 5 of 6 \(temperature 1\)"),
    ],
)
def test_the_first_step_is_named(bad: int, words: str) -> None:
    finite = FiniteStates(levels_from([1.0, 2.0, 4.0])[::-1], 6)
    for step in range(7):
        finite.add(torch.full((2, 3), math.nan if step >= bad else 1.0), (torch.ones(2, 3), torch.ones(1)))
    with pytest.raises(NotFiniteStatesError, match=words):
        finite.require()


def test_steps_are_counted_on_after_a_look() -> None:
    finite = FiniteStates((), 5000)
    for step in range(1999):
        finite.add(torch.tensor([[math.inf if step == 1500 else 0.0]]))
    with pytest.raises(NotFiniteStatesError, match="after step 1500 of 5000"):
        finite.add(torch.zeros(1))  # nobody has asked, but they are too many to go on
    finite = FiniteStates((), 5)
    finite.add(torch.zeros(1))
    finite.require()
    finite.add(torch.tensor([math.nan]))
    with pytest.raises(NotFiniteStatesError, match="after step 1 of 5"):
        finite.require()
