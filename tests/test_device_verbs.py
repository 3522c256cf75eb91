"""The commands on a device that is not the CPU: `run` with all it draws, `sample`, `inpaint`, `evaluate`, `diagnose`.

The device is the stand-in of `tests/toy/standin.py`; what a command prints and writes there is what it does on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.program import Done, records, run, walkback
from tests.test_conformance_builtins import NAMES, SMALL
from tests.toy.standin import DEVICE, standin

from walkback.measuring.quality.features import train_classifier
from walkback.storage.checkpoint import load_checkpoint

DIAGNOSTICS = [name for kind, name in NAMES if kind == "diagnostic"]
DRAWN = ("annealed", "chain", "walk")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, steps=4).code == 0
    return directory / "final.safetensors"


def on_device(*arguments: str | Path) -> Done:
    """A command on the stand-in; a mistake is raised by `--debug`-less commands as a sentence, so look at the code."""
    with standin():
        return walkback(*arguments, "--device", "cuda", "--precision", "fp32")


def figures_of(done: Done) -> dict[str, Any]:
    """What a report says, without where it was computed."""
    assert done.code == 0, done.err
    document = done.document()
    for name in ("device", "device_name", "threads"):
        document["protocol"].pop(name, None)
    return dict(document)


def pixels_of(path: Path) -> bytes:
    """What a picture shows."""
    with Image.open(path) as picture:
        return picture.tobytes()


@pytest.mark.parametrize("updates", ["batch", "online", "stacked"])
def test_a_run_leaves_what_it_leaves_on_the_cpu(updates: str, tmp_path: Path) -> None:
    options = (
        *("--set", f"training.updates={updates}", "--set", "training.validate_every=2"),
        *("--set", "training.sample_every=2", "--set", "training.log_every=1"),
    )
    with standin() as machine:
        done = run(tmp_path / "there", *options, "--device", "cuda", "--precision", "fp32", "--json", steps=4)
    assert done.code == 0, done.err
    assert done.document()["peak_memory"] == machine.peak
    assert run(tmp_path / "here", *options, "--device", "cpu", steps=4).code == 0
    there, here = (
        load_checkpoint(tmp_path / name / "final.safetensors").tensors for name in ("there", "here")
    )
    assert [name for name in here if not here[name].equal(there[name])] == []
    for name in (
        *DRAWN,
        "step-2",
        "step-4",
    ):  # their protocols differ: they say on which device they were made
        pixels = [pixels_of(tmp_path / place / "samples" / f"{name}.png") for place in ("there", "here")]
        assert pixels[0] == pixels[1], name
    logged = [[line.get("loss") for line in records(tmp_path / name)] for name in ("there", "here")]
    assert logged[0] == logged[1]


def test_a_run_goes_on_there_and_here(tmp_path: Path) -> None:
    """Saved on the device, resumed on the CPU and the other way round, it ends as on the CPU alone."""
    saved = ("--set", "training.lr_schedule=constant", "--precision", "fp32")
    assert run(tmp_path / "whole", *saved, "--device", "cpu", steps=6).code == 0
    assert on_device_run(tmp_path / "a", *saved, steps=2).code == 0
    assert walkback("run", "--resume", tmp_path / "a", "--device", "cpu", "--steps", "4").code == 0
    with standin():
        assert walkback("run", "--resume", tmp_path / "a", "--device", "cuda", "--steps", "6").code == 0
    whole, parts = (load_checkpoint(tmp_path / name / "final.safetensors").tensors for name in ("whole", "a"))
    assert [name for name in whole if not whole[name].equal(parts[name])] == []


def on_device_run(directory: Path, *options: str, steps: int) -> Done:
    with standin():
        return run(directory, *options, "--device", "cuda", steps=steps)


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_the_device_is_found(device: str, tmp_path: Path) -> None:
    with standin() as machine:
        done = run(tmp_path / "a", "--device", device, "--precision", "bf16", steps=1)
        assert done.code == 0, done.err
        assert "cuda:0, bf16" in done.err
        assert torch.bfloat16 in machine.dtypes
        assert run(tmp_path / "b", "--device", "cuda:1", steps=1).code == 2


@pytest.mark.parametrize(
    "options",
    [
        ("sample", "--num", "5", "--chain", "6", "--every", "2", "--extra", "1", "--batch-size", "2"),
        ("sample", "--num", "5", "--chain", "4", "--every", "2", "--from", "data"),
        ("sample", "--num", "5", "--readout", "mean@2"),
        ("inpaint", "--num", "4", "--keep", "top", "--extra", "2"),
        ("inpaint", "--num", "4", "--keep", "left", "--no-anneal", "--readout", "mean"),
    ],
    ids=lambda options: "-".join(options[::2]),
)
def test_what_is_drawn_is_the_same(options: tuple[str, ...], checkpoint: Path, tmp_path: Path) -> None:
    verb, *rest = options
    done = on_device(verb, checkpoint, *rest, "--out", tmp_path / "there.npz")
    assert done.code == 0, done.err
    here = walkback(
        verb, checkpoint, *rest, "--out", tmp_path / "here.npz", "--device", "cpu", "--precision", "fp32"
    )
    assert here.code == 0
    with np.load(tmp_path / "there.npz") as ours, np.load(tmp_path / "here.npz") as theirs:
        names = [name for name in theirs.files if name != "protocol"]
        assert names
        assert [name for name in names if not np.array_equal(ours[name], theirs[name])] == []


def test_an_evaluation_is_the_same(checkpoint: Path) -> None:
    options = (
        "--limit",
        "30",
        "--paths",
        "3",
        "--simulated",
        "5",
        "--samples",
        "60",
        "--classifier",
        "--json",
    )
    there = figures_of(on_device("evaluate", checkpoint, *options))
    assert there == figures_of(walkback("evaluate", checkpoint, *options, "--device", "cpu"))


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_every_diagnostic_is_the_same(name: str, checkpoint: Path) -> None:
    chosen = [part for option, value in SMALL[name].items() for part in ("--set", f"{option}={value}")]
    arguments = ("diagnose", name, checkpoint, *chosen, "--json")
    there = figures_of(on_device(*arguments))
    assert there == figures_of(walkback(*arguments, "--device", "cpu"))


def test_bench_measures_the_device() -> None:
    with standin():
        done = walkback(
            *("bench", "--set", "operator.network.hidden=16", "--repeats", "1", "--no-compare", "--json"),
            *("--device", "cuda", "--set", "schedule.n1=0"),
        )
    assert done.code == 0, done.err
    assert done.document()["protocol"]["device"] == DEVICE.type


def test_the_classifier_of_an_evaluation_learns_there() -> None:
    rows = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (rows.mean((1, 2, 3)) > 0).long()

    def learned(device: torch.device) -> torch.Tensor:
        train = rows[:20].to(device), labels[:20]
        found = train_classifier(train, (rows[20:], labels[20:]), ("a", "b"), 0, steps=3)
        return torch.stack([parameter.norm().cpu() for parameter in found.network.parameters()])

    with standin():
        there = learned(DEVICE)
    assert there.equal(learned(torch.device("cpu")))
