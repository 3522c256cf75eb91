"""The checkpoint from which a run is resumed: the newest complete one of its directory, or the requested one.

A directory that has lost its checkpoints is refused, so that a run never silently starts from the beginning and
overwrites files. If training has not reached its first checkpoint, or was killed while saving it, nothing can be lost,
and the run starts from the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from walkback.data import SPLITS, DataInfo
from walkback.errors import CheckpointError, ConfigurationError, DataError
from walkback.storage.description import Description, read_description
from walkback.storage.store import FINAL, CheckpointStore, SavedStep
from walkback.training.metrics_file import FILE_NAME, last_step

_AT = re.compile(r"(.+)@(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A checkpoint to resume from.

    Attributes:
        directory: The run directory.
        saved: The files of the checkpoint; None if the run has not saved any yet, and starts from the beginning.
        description: Description of the checkpoint.
        chosen: Whether the user chose the step.
        notes: Warnings for the user.
    """

    directory: Path
    saved: SavedStep | None
    description: Description | None
    chosen: bool
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> Mapping[str, Any] | None:
        """The configuration that the checkpoint was trained with."""
        return None if self.description is None else self.description.config


def parse_resume(text: str) -> tuple[Path, int | None]:
    """Split `DIR` or `DIR@STEP`; an existing directory whose name contains @ is not split.

    >>> parse_resume("runs/a@500"), parse_resume("runs/a")
    ((PosixPath('runs/a'), 500), (PosixPath('runs/a'), None))

    Raises:
        ConfigurationError: The text is empty.
    """
    if not text:
        raise ConfigurationError("Got an empty --resume, expected a run directory, DIR@STEP or auto.")
    match = _AT.fullmatch(text)
    if match is None or Path(text).is_dir():
        return Path(text), None
    return Path(match[1]), int(match[2])


def find_resume_point(directory: Path, step: int | None) -> ResumePoint:
    """Find the checkpoint to resume from.

    Args:
        directory: The run directory.
        step: The requested step; None takes the newest complete one.

    Raises:
        ConfigurationError: The step is missing or damaged, or no checkpoint is complete although some were saved.
    """
    store = CheckpointStore(directory / "checkpoints")
    if step is not None:
        saved = store.at(step)
        return ResumePoint(directory, saved, read_description(saved.checkpoint), chosen=True)
    newest, notes = store.latest() if store.directory.is_dir() else (None, [])
    if newest is not None:
        description = read_description(newest.checkpoint)
        return ResumePoint(directory, newest, description, chosen=False, notes=tuple(notes))
    if not store.never_completed() or (directory / FINAL).exists():
        why = f" ({notes[0].removesuffix('.')})" if notes else ""
        raise _lost(directory, f"without a whole checkpoint{why}")
    return ResumePoint(directory, None, None, chosen=False)


def require_nothing_lost(point: ResumePoint, checkpoint_every: int) -> None:
    """Check that a run without checkpoints has not lost any.

    If the log contains a walk after the first checkpoint was due, that checkpoint had been saved.

    Raises:
        ConfigurationError: Checkpoints are missing.
    """
    if point.saved is not None:
        return
    walks = last_step(point.directory / FILE_NAME)
    if walks > checkpoint_every:
        raise _lost(point.directory, f"without checkpoints, although {FILE_NAME} has {walks} walks")


def _lost(directory: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"Got the run {directory} {what}: nothing is changed; restore its checkpoints, or start another run with --out."
    )


def require_same_data(point: ResumePoint, found: DataInfo, accepted: Sequence[str]) -> str | None:
    """Compare the prepared data with the training data of the checkpoint.

    Returns:
        A sentence that describes the difference, if there is one and it was accepted.

    Raises:
        CheckpointError: The checkpoint has no usable description of its data.
        ConfigurationError: The data differ, and "data" is not among `accepted`.
    """
    if point.description is None:
        return None
    try:
        expected = DataInfo.from_dict(point.description.data)
    except DataError as error:
        raise CheckpointError(
            f"Got a checkpoint in {point.directory} without a usable description of its data."
        ) from error
    if found.fingerprint == expected.fingerprint and found.splits == expected.splits:
        return None
    difference = (
        f"The data {found.name} of the run in {point.directory} have changed: {_difference(expected, found)}"
    )
    if "data" in accepted:
        return f"{difference}; trained further on them as they are now."
    raise ConfigurationError(
        f"{difference}. Restore them, accept the change with --accept data, or start another run with --out."
    )


def _difference(expected: DataInfo, found: DataInfo) -> str:
    """Describe the difference between two descriptions of data."""
    names = [split for split in SPLITS if expected.splits.get(split) != found.splits.get(split)]
    if names:
        return ", ".join(
            f"{split} had {expected.splits.get(split, 0)} examples and has {found.splits.get(split, 0)} now"
            for split in names
        )
    if expected.preprocessing != found.preprocessing:
        before, now = "; ".join(expected.preprocessing), "; ".join(found.preprocessing)
        return f"preprocessing was {before!r} and is {now!r} now"
    counts = " + ".join(str(count) for count in found.splits.values())
    return (
        f"as many examples as before ({counts}), but other content (fingerprint {expected.fingerprint}, now "
        f"{found.fingerprint})"
    )


def environment(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Return what the exact results of a run depend on besides configuration and data, in plain JSON types."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "precision": precision,
        "processes": processes,
    }


def other_environment(recorded: object, now: Mapping[str, Any]) -> str | None:
    """Return a warning if a run is resumed in another environment, where results may differ in the last bits."""
    if not isinstance(recorded, Mapping):
        return None
    changes = [
        f"{name} was {recorded[name]} and is {value} now"
        for name, value in now.items()
        if name in recorded and recorded[name] != value
    ]
    if not changes:
        return None
    return f"The result may differ from that of an uninterrupted run in the last bits: {', '.join(changes)}."
