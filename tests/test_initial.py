"""`training.initial`: training that starts from the operator of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import walkback

import walkback as wb
from walkback.errors import CheckpointError, ConfigurationError

SMALL: dict[str, Any] = {
    "training.steps": 3,
    "training.batch_size": 32,
    "training.validate_every": 3,
    "operator.network.hidden": 8,
    "operator.network.depth": 1,
    "evaluation.limit": 50,
    "samples.pictures": False,
}


def trained(**more: Any) -> wb.Trained:
    return wb.train(data="swiss-roll", operator="gaussian-mlp", settings=SMALL | more)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(**{"training.lr": 1e-2}).save(tmp_path_factory.mktemp("first") / "first.safetensors")


def test_without_steps_the_operator_is_that_of_the_file(first: Path) -> None:
    again = trained(**{"training.initial": str(first), "training.steps": 0})
    expected = wb.load(first).model.operator.state_dict()
    fresh = trained(**{"training.steps": 0}).model.operator.state_dict()
    found = again.model.operator.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(not torch.equal(fresh[name], expected[name]) for name in expected)


def test_the_new_run_may_have_another_process_and_objective(first: Path) -> None:
    run = trained(
        **{"training.initial": str(first), "process.name": "diffusion", "objective.name": "walkback"}
    )
    assert run.bound is not None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"operator.network.hidden": 16}, "of shape .16,.* but the one to train has .* of shape .32,"),
        ({"operator.network.depth": 2}, "has no tensor .* but the one to train has"),
    ],
)
def test_another_network_is_refused_by_the_tensor_that_differs(
    first: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"training.initial.*{words}"):
        trained(**{"training.initial": str(first)} | more)


def test_files_that_are_none_or_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"training.initial = 'nowhere.safetensors'.*not a file"):
        trained(**{"training.initial": "nowhere.safetensors"})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"broken.safetensors"):
        trained(**{"training.initial": str(broken)})


def test_a_run_resumes_without_the_file_and_like_an_uninterrupted_one(first: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(first.read_bytes())
    flags = [word for name, value in SMALL.items() for word in ("--set", f"{name}={str(value).lower()}")]
    command = ["run", "--operator", "gaussian-mlp", "--data", "swiss-roll", *flags]
    command += ["--set", f"training.initial={own}", "--set", "training.checkpoint_every=1"]
    whole = walkback(*command, "--out", tmp_path / "whole")
    assert whole.code == 0, whole.err
    expected = wb.load(tmp_path / "whole" / "final.safetensors").model.tensors()
    own.unlink()
    resumed = walkback("run", "--resume", f"{tmp_path / 'whole'}@2")
    assert resumed.code == 0, resumed.err
    found = wb.load(tmp_path / "whole" / "final.safetensors").model.tensors()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
