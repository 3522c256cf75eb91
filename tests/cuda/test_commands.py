"""Every command works on the device, chooses it by itself, and says in one sentence that its memory is full."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cuda.parts import offers, small
from tests.program import TINY, run, walkback

pytestmark = pytest.mark.cuda

ROWS = 200_000
"""More walks side by side than fit where memory is scarce."""


@pytest.fixture(scope="module")
def checkpoint(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of digits, trained on the device."""
    directory = tmp_path_factory.mktemp("run") / "digits"
    done = run(directory, "--device", str(device), steps=20)
    assert done.code == 0, done.err
    assert {path.name for path in directory.glob("samples/*.png")} >= {"annealed.png", "chain.png"}
    return directory / "final.safetensors"


@pytest.fixture
def scarce(device: torch.device) -> Iterator[None]:
    """A device with little memory."""
    if device.type != "cuda":
        pytest.skip("a CPU that runs out of memory swaps or is stopped by the system")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 256 * 2**20 / total))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_auto_takes_the_device(device: torch.device) -> None:
    done = walkback("run", *TINY, "--dry-run", "--json")
    assert done.document()["device"].startswith(device.type)


def test_samples_and_a_chain(device: torch.device, checkpoint: Path, tmp_path: Path) -> None:
    where = ("--device", str(device))
    done = walkback(
        "sample", checkpoint, "--num", "9", "--extra", "3", *where, "--out", tmp_path / "grid.png"
    )
    assert done.code == 0, done.err
    done = walkback(
        *("sample", checkpoint, "--num", "5", "--chain", "40", "--every", "10"),
        *(*where, "--out", tmp_path / "chain.npz"),
    )
    assert done.code == 0, done.err
    with np.load(tmp_path / "chain.npz") as arrays:
        frames = [arrays[name] for name in arrays.files if arrays[name].ndim > 3]
    assert [frame.shape[:2] for frame in frames] == [(5, 5)]
    assert np.isfinite(frames[0]).all()


def test_inpainting(device: torch.device, checkpoint: Path, tmp_path: Path) -> None:
    done = walkback(
        *("inpaint", checkpoint, "--keep", "top", "--num", "4", "--extra", "3"),
        *("--device", str(device), "--out", tmp_path / "filled.png"),
    )
    assert done.code == 0, done.err
    with Image.open(tmp_path / "filled.png") as picture:
        assert np.asarray(picture).std() > 0


@pytest.mark.usefixtures("patient")
def test_evaluation_with_a_classifier(device: torch.device, checkpoint: Path) -> None:
    test_evaluation(device, checkpoint, ("--samples", "40", "--classifier"))


@pytest.mark.parametrize("options", [("--samples", "40"), ("--precision", "bf16")], ids=["samples", "bf16"])
def test_evaluation(device: torch.device, checkpoint: Path, options: Sequence[str]) -> None:
    done = walkback(
        *("evaluate", checkpoint, "--limit", "20", "--paths", "4", "--simulated", "10"),
        *(*options, "--device", str(device), "--json"),
    )
    assert done.code == 0, done.err
    found = [figure["value"] for figure in done.document()["figures"]]
    assert len(found) > 5
    assert all(value is None or np.isfinite(value) for value in found)


@pytest.mark.parametrize("name", offers()["diagnostic"])
def test_diagnostics(device: torch.device, checkpoint: Path, name: str) -> None:
    options = [f"--set={option}={json.dumps(value)}" for option, value in small("diagnostic", name).items()]
    done = walkback("diagnose", name, checkpoint, *options, "--device", str(device), "--json")
    assert done.code == 0, done.err
    found = [figure["value"] for figure in done.document()["figures"]]
    assert found
    assert all(value is None or np.isfinite(value) for value in found)


def test_speed(device: torch.device) -> None:
    done = walkback("bench", *TINY, "--repeats", "1", "--device", str(device), "--json")
    assert done.code == 0, done.err
    values = {figure["name"]: figure["value"] for figure in done.document()["figures"]}
    assert values["walk"] > 0


@pytest.mark.usefixtures("scarce")
def test_full_memory_is_one_sentence(device: torch.device, tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--device", str(device), "--batch-size", str(ROWS), steps=1)
    assert done.code == 1
    (sentence,) = [line for line in done.err.splitlines() if "memory" in line]
    assert str(ROWS) in sentence.replace(",", "")
    assert "Traceback" not in done.err
