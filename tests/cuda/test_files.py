"""Files know no device: checkpoints travel between devices, and a resumed run goes on to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from tests.cuda.parts import accepted_space, learners, levels, states, to_cpu, train
from tests.program import digest, figures, walkback

import walkback as wb

pytestmark = pytest.mark.cuda

WIDTH = ("--set", "operator.network.hidden=16", "--set", "operator.network.depth=1")
RUNS: Mapping[str, Sequence[str]] = {
    "mlp": ("--operator", "gaussian-mlp", *WIDTH, "--set", "operator.network.dropout=0.2"),
    "own chains": (
        *("--operator", "gaussian-mlp", *WIDTH),
        *("--set", "training.chains.share=0.5", "--set", "training.chains.pool=8"),
    ),
    "convolutions": ("--operator", "gaussian-conv", "--set", "operator.network.hidden=16"),
    "unet": (
        *("--operator", "gaussian-unet", "--set", "operator.network.channels=[8,8]"),
        *("--set", "operator.network.blocks=1", "--set", "operator.network.patch=2"),
    ),
}
TINY = (
    *("--schedule", "explicit", "--set", "schedule.temperatures=[1,2,8]"),
    *("--batch-size", "8", "--set", "training.validation_examples=8"),
    *("--set", "evaluation.limit=8", "--set", "samples.num=4", "--set", "samples.extra=0"),
    *("--set", "samples.chains=2", "--set", "samples.chain_steps=2", "--set", "samples.chain_every=1"),
    *("--set", "training.log_every=1", "--set", "training.lr_schedule=constant"),
    *("--set", "run.deterministic=true"),
)


def log_density(trained: wb.Trained) -> torch.Tensor:
    """log p of some steps at the middle level, `(4,)`."""
    operator, where = trained.model.operator, trained.device
    source, target = (states(trained.info.space, 4, seed).float().to(where) for seed in (0, 2))
    level = levels(where)[1]
    with torch.no_grad():
        return to_cpu(operator(source, level).cooling(level).log_prob(target))


@pytest.mark.parametrize("name", learners())
def test_saved_on_the_device_loaded_on_the_cpu_and_back(
    device: torch.device, name: str, tmp_path: Path
) -> None:
    trained = train(device, name)
    saved = trained.save(tmp_path / "first.safetensors")
    on_cpu = wb.load(saved, device="cpu")
    back = wb.load(on_cpu.save(tmp_path / "again.safetensors"), device=str(device))
    assert (on_cpu.device.type, back.device.type) == ("cpu", device.type)
    assert digest(tmp_path / "again.safetensors") == digest(saved)
    assert torch.equal(log_density(back), log_density(trained))
    dimensions = accepted_space("operator", name).size
    # Single precision on two devices, densities of states that are many standard deviations away.
    torch.testing.assert_close(log_density(on_cpu), log_density(trained), rtol=0.01, atol=0.01 * dimensions)


@pytest.mark.parametrize("kind", RUNS)
def test_a_resumed_run_is_the_same_to_the_bit(device: torch.device, kind: str, tmp_path: Path) -> None:
    """Six walks, and three and three more: the same checkpoint and the same figures."""
    options = (*RUNS[kind], *TINY, "--device", str(device))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for directory, steps in ((whole, 6), (resumed, 3)):
        done = walkback("run", *options, "--steps", str(steps), "--out", directory)
        assert done.code == 0, done.err
    assert digest(resumed / "final.safetensors") != digest(whole / "final.safetensors")
    shutil.rmtree(resumed / "samples")
    done = walkback("run", "--resume", resumed, "--steps", "6")
    assert done.code == 0, done.err
    assert digest(resumed / "final.safetensors") == digest(whole / "final.safetensors")
    assert [line for line in figures(resumed) if "loss" in line] == [
        line for line in figures(whole) if "loss" in line
    ]
