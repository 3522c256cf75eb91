"""Checkpoints and training states contain their own digest: any damage is refused, and older files still load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.program import walkback

from walkback.errors import CheckpointError
from walkback.storage.checkpoint import (
    Checkpoint,
    TrainingState,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
)
from walkback.storage.description import describe

OLD = Path(__file__).parents[1] / "formats"


def checkpoint() -> Checkpoint:
    data = {"name": "x", "shape": [2], "support": "real", "bins": None, "preprocessing": [], "splits": {}}
    description = describe(
        config={}, components={}, data=data | {"fingerprint": "f"}, progress={"walks": 5}, weights="raw"
    )
    return Checkpoint(description, {"operator.w": torch.linspace(0, 1, 7), "prior.mean": torch.zeros(2)})


def test_a_flipped_bit_in_any_byte_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    """Weights and metadata, the header's length and its padding included."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, checkpoint())
    whole = path.read_bytes()
    accepted = []
    for bit in (8 * place + place % 8 for place in range(len(whole))):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            load_checkpoint(path)
        except CheckpointError:
            continue
        accepted.append(bit)
    assert accepted == []


def test_flipped_bits_of_a_training_state_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_training_state(path, TrainingState({"optimizer.0": torch.arange(9.0)}, {"seed": 3}))
    whole = path.read_bytes()
    for bit in np.random.default_rng(5).choice(8 * len(whole), 300, replace=False).tolist():
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_training_state(path)


def test_a_damaged_file_is_said_to_be_damaged_in_every_command(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    content = bytearray((OLD / "2" / "gaussian.safetensors").read_bytes())
    save_checkpoint(path, load_checkpoint(OLD / "2" / "gaussian.safetensors"))
    assert walkback("info", path).code == 0
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    done = walkback("sample", path, "--num", "2", "--out", tmp_path / "s.npz")
    assert done.code == 2
    assert "does not match its own digest" in done.err
    assert not (tmp_path / "s.npz").exists()


def test_a_file_that_has_lost_its_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, checkpoint())
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["walkback"])
    del metadata["sha256"]
    header["__metadata__"]["walkback"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(CheckpointError, match="has no digest"):
        load_checkpoint(path)


@pytest.mark.parametrize("number", ["1", "2"])
def test_files_of_formats_without_digest_still_load(number: str) -> None:
    assert load_checkpoint(OLD / number / "gaussian.safetensors").tensors
    state = load_training_state(OLD / number / "run" / "checkpoints" / "step-4.state.safetensors")
    assert "chains.0" in state.tensors
    assert [name for name in state.tensors if name.startswith("own.")] == []
