"""Checkpoints: all of a model in one file, read with every check."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from walkback.data import DataInfo
from walkback.errors import CheckpointError, WalkbackError
from walkback.storage.checkpoint import (
    Checkpoint,
    TrainingState,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
)
from walkback.storage.description import ComponentOrigin, describe, read_description
from walkback.storage.migrations import CHECKPOINT, TRAINING_STATE
from walkback.storage.tensorfile import save_tensors

DATA = DataInfo("digits", (1, 8, 8), bins=17, splits={"train": 10}, fingerprint="abc")


def example(**tensors: torch.Tensor) -> Checkpoint:
    description = describe(
        config={"operator": {"name": "toy", "sigma": 0.1}, "levels": [1, 2, None]},
        components={"operator": ComponentOrigin(name="toy", distribution="walkback", version="1.2")},
        data=DATA.to_dict(),
        progress={"walks": 5, "loss": 0.25},
        weights="ema",
    )
    return Checkpoint(
        description,
        {"operator.weight": torch.arange(6.0).reshape(2, 3), "prior.mean": torch.ones(2)} | tensors,
    )


def document() -> dict[str, Any]:
    return example().description.model_dump(mode="json")


def write(path: Path, metadata: dict[str, Any]) -> Path:
    """A file with the example's tensors and any document."""
    save_tensors(path, example().tensors, metadata)
    return path


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", example())
    loaded = load_checkpoint(tmp_path / "a")
    assert loaded.description == example().description == read_description(tmp_path / "a")
    assert loaded.data == DATA
    assert loaded.tensors.keys() == example().tensors.keys()
    assert torch.equal(loaded.part("operator.")["weight"], torch.arange(6.0).reshape(2, 3))
    assert loaded.part("prior.").keys() == {"mean"}


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", example())
    save_checkpoint(tmp_path / "b", example())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numbers_keep_their_type(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", example())
    progress = load_checkpoint(tmp_path / "a").description.progress
    assert {name: type(value) for name, value in progress.items()} == {"walks": int, "loss": float}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    tensors = {"operator.bad": torch.tensor([1.0, value])}
    with pytest.raises(WalkbackError, match=r"'operator\.bad' holds NaN or infinity"):
        save_checkpoint(tmp_path / "a", example(**tensors))
    assert list(tmp_path.iterdir()) == []
    save_tensors(tmp_path / "a", tensors, document())
    with pytest.raises(CheckpointError, match=r"'operator\.bad' holds NaN or infinity"):
        load_checkpoint(tmp_path / "a")


def test_tensors_of_neither_operator_nor_prior_are_refused(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"../evil": torch.ones(1)}, document())
    with pytest.raises(CheckpointError, match=r"'\.\./evil' belongs to no part"):
        load_checkpoint(tmp_path / "a")


def test_a_newer_format_is_refused_naming_who_wrote_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a", document() | {"format": CHECKPOINT.format + 1, "walkback": "9.9", "config": "new"}
    )
    with pytest.raises(CheckpointError, match=r"written by walkback '9\.9'.*upgrade walkback"):
        load_checkpoint(path)


def test_a_newer_release_may_add_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "a", document() | {"licence": "CC0"})
    assert load_checkpoint(path).description.model_dump()["licence"] == "CC0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "training state"}, "holds 'training state', expected 'checkpoint'"),
        ({"kind": None}, "holds None"),
        ({"format": "1"}, "format '1' is unknown"),
        ({"format": True}, "format True is unknown"),
        ({"format": 0}, "format 0 is unknown"),
        ({"config": [1]}, "'config'"),
        ({"components": {"operator": {"name": "toy"}}}, r"'components\.operator\.distribution'"),
        ({"progress": {"walks": "5"}}, r"'progress\.walks"),
        ({"weights": "best"}, "'weights'"),
        ({"data": {"name": "digits"}}, "description of its data"),
    ],
)
def test_an_unusable_document_is_refused_by_its_entry(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "a", document() | change)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_document_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    nested: Any = 1
    for _ in range(400):
        nested = [nested]
    path = write(tmp_path / "a", document() | {"config": {"a": nested}})
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(path)


def changed(value: Any, path: list[int], replacement: Any) -> Any:
    """`value` with the part that `path` leads to replaced."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return replacement
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy = value.copy()
    copy[key] = changed(value[key], path[1:], replacement)
    return copy


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(path=st.lists(st.integers(0, 20), min_size=1, max_size=4), replacement=JSON)
def test_only_our_exception_escapes_a_forged_document(
    tmp_path_factory: pytest.TempPathFactory, path: list[int], replacement: Any
) -> None:
    forged = json.loads(json.dumps(changed(document(), path, replacement)))
    file = write(tmp_path_factory.getbasetemp() / "forged-checkpoint", forged)
    with contextlib.suppress(CheckpointError):
        load_checkpoint(file)


def test_a_training_state_comes_back(tmp_path: Path) -> None:
    state = TrainingState(
        {"optimizer.0.exp_avg": torch.ones(2), "random.cpu": torch.get_rng_state()},
        {"cursor": {"epoch": 1}, "walks": 5},
    )
    save_training_state(tmp_path / "a", state)
    loaded = load_training_state(tmp_path / "a")
    assert loaded.document == state.document
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in state.tensors.items())


@pytest.mark.parametrize(
    ("save", "load"),
    [
        (lambda path: save_checkpoint(path, example()), load_training_state),
        (lambda path: save_training_state(path, TrainingState({}, {})), load_checkpoint),
    ],
)
def test_one_kind_is_not_taken_for_the_other(
    tmp_path: Path, save: Callable[[Path], None], load: Callable[[Path], Any]
) -> None:
    save(tmp_path / "a")
    with pytest.raises(CheckpointError, match="expected"):
        load(tmp_path / "a")


def test_a_training_state_without_document_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", TRAINING_STATE.stamp() | {"document": []})
    with pytest.raises(CheckpointError, match="without its document"):
        load_training_state(path)


def test_descriptions_are_read_without_torch() -> None:
    script = "import sys, walkback.storage.description; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
