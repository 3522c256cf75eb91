"""The main job on real images from the local mirror: train for a moment, and sample from the one file that is left."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from tests.program import cells, records, tree, walkback

MIRROR = Path(os.environ.get("WALKBACK_DATA") or Path(__file__).parents[2] / "shared" / "data")

pytestmark = pytest.mark.data

SMALL = (
    *("--set", "operator.network.hidden=16", "--set", "operator.network.channels=[4, 8]"),
    *("--steps", "4", "--batch-size", "4", "--set", "data.limit=64"),
    *("--set", "training.validate_every=2", "--set", "training.validation_examples=6"),
    *("--set", "training.sample_every=4", "--set", "evaluation.limit=6"),
    *("--set", "samples.num=4", "--set", "samples.chain_steps=2", "--set", "samples.chain_every=1"),
)


@pytest.mark.parametrize(
    ("operator", "data", "folder", "shape"),
    [
        ("gaussian-conv", "celeba", "flwrlabs/celeba", [3, 64, 64]),
        ("gaussian-conv", "mnist", "ylecun/mnist", [1, 28, 28]),
        ("gaussian-conv", "cifar10", "uoft-cs/cifar10", [3, 32, 32]),
        ("bernoulli-conv", "mnist", "ylecun/mnist", [1, 28, 28]),
    ],
)
def test_real_images_train_and_sample(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operator: str,
    data: str,
    folder: str,
    shape: list[int],
) -> None:
    if not (MIRROR / folder).is_dir():
        pytest.skip(f"the mirror {MIRROR} has no {folder}; set WALKBACK_DATA to one that has")
    monkeypatch.setenv("WALKBACK_DATA", str(MIRROR))
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))
    directory = tmp_path / "run"
    done = walkback("run", "--operator", operator, "--data", data, *SMALL, "--out", directory, "--json")
    assert done.code == 0, done.err

    # Logged, validated, checkpointed and drawn; the bound in bits is that of these data.
    bound, binary = done.document()["bound"], operator.startswith("bernoulli")
    per_dimension = bound["nats"] / math.prod(shape) + (0 if binary else math.log(256))
    assert bound["bits_per_dimension"] == pytest.approx(per_dimension / math.log(2))
    assert [line["step"] for line in records(directory) if "validation_nats" in line] == [2, 4]
    expected = {"checkpoints/step-4.safetensors", "checkpoints/step-4.json", "samples/step-4.png"}
    assert (
        expected | {"samples/annealed.png", "samples/chain.png", "final.safetensors"}
        <= tree(directory).keys()
    )

    # One file is enough, wherever it is.
    alone = tmp_path / "alone"
    alone.mkdir()
    (directory / "final.safetensors").rename(alone / "final.safetensors")
    monkeypatch.delenv("WALKBACK_DATA")
    monkeypatch.chdir(alone)
    assert walkback("info", "final.safetensors", "--json").document()["data"]["shape"] == shape
    done = walkback("sample", "final.safetensors", "--num", "64", "--out", "grid.png")
    assert done.code == 0, done.err
    grid = cells(Path("grid.png"), 8, 8)
    assert (grid.shape[2] % shape[1], grid.shape[4]) == (0, shape[0])
    assert len({image.tobytes() for row in grid for image in row}) == 64
