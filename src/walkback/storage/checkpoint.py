"""Checkpoints, which contain all that sampling needs, and training states, which resuming needs in addition.

step-N.safetensors          Checkpoint: tensors `operator.…` and `prior.…` under a Description
step-N.state.safetensors    TrainingState: raw weights, optimizer moments, counters
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import CheckpointError, DataError, WalkbackError
from walkback.storage.description import Description, parse_description
from walkback.storage.migrations import CHECKPOINT, TRAINING_STATE
from walkback.storage.tensorfile import read_tensors, save_tensors
from walkback.storage.tensorheader import Header, TensorSpec

_PREFIXES = ("operator.", "process.", "prior.", "schedule.")
"""Prefixes of the names of a checkpoint's tensors."""

_Accept: TypeAlias = Callable[[Description, Mapping[str, TensorSpec]], object]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained model as data; `walkback.building` makes modules of it.

    Attributes:
        description: Configuration, origins, data, progress.
        tensors: The state dicts of operator, process, prior and schedule; each name has one of the `_PREFIXES`.
    """

    description: Description
    tensors: Mapping[str, Tensor]

    @property
    def data(self) -> DataInfo:
        """Description of the training data."""
        return DataInfo.from_dict(self.description.data)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the state dict of one module: the tensors whose names start with `prefix`, which is removed."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The state that a run needs in addition to its checkpoint to resume exactly.

    Attributes:
        tensors: Raw weights, optimizer moments, persistent chains.
        document: Counters and the like, in plain JSON types.
    """

    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes.

    Raises:
        WalkbackError: The file cannot be written, or a tensor is misnamed or not finite.
    """
    problem = _problem(checkpoint.tensors)
    if problem:
        raise WalkbackError(f"Could not write {path}: {problem}.")
    save_tensors(path, checkpoint.tensors, checkpoint.description.model_dump(mode="json"))


def load_checkpoint(
    path: Path, device: str | torch.device = "cpu", accept: _Accept | None = None
) -> Checkpoint:
    """Read a checkpoint with its tensors on `device`; code named in the file is not run.

    Args:
        path: The file.
        device: Device of the tensors.
        accept: Called with the description and the types and shapes of the tensors before any tensor is created; may
            reject them by raising an exception.

    Raises:
        CheckpointError: The file cannot be read, is not a checkpoint that this version understands, or contains weights
            that are not finite.
    """

    def check(header: Header) -> None:
        description = _usable_description(path, header.metadata)
        if accept is not None:
            accept(description, header.tensors)

    tensors, document = read_tensors(path, device, kind=CHECKPOINT, accept=check)
    problem = _problem(tensors)
    if problem:
        raise CheckpointError(f"Got the checkpoint {path}, which cannot be used: {problem}.")
    return Checkpoint(_usable_description(path, document), tensors)


def _usable_description(path: Path, document: Mapping[str, Any]) -> Description:
    description = parse_description(path, document)
    try:
        DataInfo.from_dict(description.data)
    except DataError as error:
        raise CheckpointError(
            f"Got the checkpoint {path} without a usable description of its data."
        ) from error
    return description


def save_training_state(path: Path, state: TrainingState) -> None:
    """Write a training state atomically; equal states give equal bytes.

    Raises:
        WalkbackError: The file cannot be written.
    """
    document = {
        **TRAINING_STATE.stamp(),
        "walkback": version("walkback"),
        "torch": version("torch"),
        "document": dict(state.document),
    }
    save_tensors(path, state.tensors, document)


def load_training_state(path: Path, device: str | torch.device = "cpu") -> TrainingState:
    """Read a training state with its tensors on `device`.

    Raises:
        CheckpointError: The file cannot be read, or is not a training state that this version understands.
    """
    tensors, metadata = read_tensors(path, device, kind=TRAINING_STATE)
    document = TRAINING_STATE.migrated(metadata, path).get("document")
    if not isinstance(document, dict):
        raise CheckpointError(
            f"Got the training state {path} without its document, expected one of walkback."
        )
    return TrainingState(TRAINING_STATE.renamed(metadata, tensors), document)


def _problem(tensors: Mapping[str, Tensor]) -> str | None:
    """Return why these cannot be the tensors of a model; None if they can."""
    for name, tensor in tensors.items():
        if not name.startswith(_PREFIXES):
            return f"its tensor {name!r} belongs to no part of a model"
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f"its tensor {name!r} holds NaN or infinity"
    return None
