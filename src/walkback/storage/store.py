"""The checkpoints of a run, written such that there is always one to resume from.

step-N.safetensors          the model after N walks
step-N.state.safetensors    the additional state that training needs
step-N.json                 the manifest: SHA-256 of both; written last, so a step that has one is complete
best-N.safetensors          the best model on validation data, with early stopping; kept as long as the manifest of a
                            kept step names it (with its SHA-256)

A step is complete if the content of its two files is what was saved. Training can be resumed without the best model.

Only writing a checkpoint imports torch; looking for one does not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from walkback.errors import CheckpointError, ConfigurationError
from walkback.storage.files import sha256, write_bytes, write_json, writing_to
from walkback.storage.hub import fetch, is_hub_name
from walkback.storage.migrations import STEP
from walkback.support.textfile import read_text

if TYPE_CHECKING:
    from walkback.storage.checkpoint import Checkpoint, TrainingState


_NUMBER = re.compile(r"^(?:step|best)-(\d+)\.")

FINAL = "final.safetensors"
"""Name of the trained model in the directory of a run."""


@dataclass(frozen=True, slots=True)
class SavedStep:
    """The files of one checkpoint.

    Attributes:
        step: Number of walks after which it was saved.
        checkpoint: Path of the model.
        state: Path of the training state.
        manifest: Path of the manifest.
    """

    step: int
    checkpoint: Path
    state: Path
    manifest: Path


@final
class CheckpointStore:
    """A directory of checkpoints that one process writes to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(
        self, step: int, checkpoint: Checkpoint, state: TrainingState, best: int | None = None
    ) -> SavedStep:
        """Save model and training state after `step` walks; `best` is the step of the best model so far.

        Raises:
            WalkbackError: A file cannot be written; earlier checkpoints are intact.
        """
        from walkback.storage.checkpoint import save_checkpoint, save_training_state

        saved = self._files(step)
        save_checkpoint(saved.checkpoint, checkpoint)
        save_training_state(saved.state, state)
        # The manifest comes last: it marks the step as complete.
        write_json(saved.manifest, _manifest(saved, best))
        return saved

    def best(self, step: int) -> Path:
        """Return the path of the best model if it is that of `step`."""
        return self.directory / f"best-{step}.safetensors"

    def save_best(self, step: int, checkpoint: Checkpoint) -> None:
        """Save the model after `step` walks as the best; it is kept as long as the manifest of a kept step names it.

        Raises:
            WalkbackError: The file cannot be written.
        """
        from walkback.storage.checkpoint import save_checkpoint

        save_checkpoint(self.best(step), checkpoint)

    def at(self, step: int) -> SavedStep:
        """Return the checkpoint after `step` walks.

        Raises:
            ConfigurationError: It does not exist or is not complete.
        """
        saved = self._files(step)
        problem = _problem(saved)
        if problem is None:
            return saved
        whole = [
            str(other) for other in self.steps() if other != step and _problem(self._files(other)) is None
        ]
        offer = f"choose one of {', '.join(whole)}" if whole else "there is no other whole checkpoint"
        raise ConfigurationError(
            f"Could not use the checkpoint of step {step} in {self.directory}: {problem}; {offer}."
        )

    def lost_best(self, saved: SavedStep) -> str | None:
        """Return why the best model named by a complete step cannot be used; None if it can, or if there is none.

        A lost file is restored from another file of the run with the same content: the checkpoint of that step, or the
        trained model.

        Raises:
            WalkbackError: The copy cannot be written.
        """
        step = _best_of(saved.manifest)
        if step is None:
            return None
        best = self.best(step)
        digest = _document(saved.manifest)["sha256"].get(best.name)
        problem = _unlike(best, digest)
        if problem is None:
            return None
        for copy in (self._files(step).checkpoint, self.directory.parent / FINAL):
            if _unlike(copy, digest) is None:
                write_bytes(best, copy.read_bytes())
                return None
        return problem

    def never_completed(self) -> bool:
        """Return whether no checkpoint was ever completed here: there is none, or only parts of the first one.

        A best model may be saved before the first step. A step is completed by its manifest.
        """
        steps = self.steps() if self.directory.is_dir() else []
        return len(steps) <= 1 and not any(self._files(step).manifest.exists() for step in steps)

    def latest(self) -> tuple[SavedStep | None, list[str]]:
        """Return the newest complete checkpoint, and a warning for each newer incomplete one."""
        warnings: list[str] = []
        for step in self.steps():
            saved = self._files(step)
            problem = _problem(saved)
            if problem is None:
                return saved, warnings
            warnings.append(f"Passed over the checkpoint of step {step} in {self.directory}: {problem}.")
        return None, warnings

    def steps(self) -> list[int]:
        """Return the steps that have any file here, newest first."""
        return self._numbers("step")

    def prune(self, keep: int, also: Collection[int] = ()) -> None:
        """Delete all checkpoints except the newest `keep` complete ones and those of the steps `also`."""
        kept = set(also)
        missing = keep
        for step in self.steps():
            if missing and _problem(self._files(step)) is None:
                kept.add(step)
                missing -= 1
            elif step not in kept:
                self._delete(step)
        named = {_best_of(self._files(step).manifest) for step in kept}
        self._delete_best(best for best in self._numbers("best") if best not in named)

    def has_later(self, step: int) -> bool:
        """Return whether there is any file of a later step."""
        return any(number > step for kind in ("step", "best") for number in self._numbers(kind))

    def move_after(self, step: int, place: Path) -> None:
        """Move the checkpoints of later steps to the directory `place`.

        Raises:
            WalkbackError: They cannot be moved.
        """
        found = ((_NUMBER.match(path.name), path) for path in self.directory.iterdir())
        later = [(int(name[1]), path) for name, path in found if name and int(name[1]) > step]
        # Newest first, and manifests before their files: after a kill in between, the newest step is complete.
        later.sort(key=lambda entry: (-entry[0], entry[1].suffix != ".json", entry[1].name))
        with writing_to(place):
            for _, path in later:
                path.rename(place / path.name)

    def discard_after(self, step: int) -> None:
        """Delete the checkpoints of later steps, newest first: a run that went back to `step` writes new ones."""
        for later in self.steps():
            if later > step:
                self._delete(later)
        self._delete_best(later for later in self._numbers("best") if later > step)

    def _numbers(self, kind: str) -> list[int]:
        """Return N of the files `kind-N.…` here, largest first."""
        names = (re.match(rf"{kind}-(\d+)\.", path.name) for path in self.directory.iterdir())
        return sorted({int(name[1]) for name in names if name}, reverse=True)

    def _files(self, step: int) -> SavedStep:
        names = (f"step-{step}{end}" for end in (".safetensors", ".state.safetensors", ".json"))
        return SavedStep(step, *(self.directory / name for name in names))

    def _delete(self, step: int) -> None:
        """Remove a step, its manifest first: a kill in between must not leave a manifest without its files."""
        saved = self._files(step)
        with writing_to(saved.manifest):
            for path in (saved.manifest, saved.state, saved.checkpoint):
                path.unlink(missing_ok=True)

    def _delete_best(self, steps: Iterable[int]) -> None:
        for step in steps:
            with writing_to(self.best(step)):
                self.best(step).unlink(missing_ok=True)


def checkpoint_in(path: Path) -> Path:
    """Return `path` if it is a checkpoint file, or the checkpoint in it if it is a run directory.

    The latter is the trained model, `final.safetensors`, or the newest complete checkpoint of an unfinished run.
    For a model on the hub, `hf://USER/MODEL`, it is the file in the cache, see `walkback.storage.hub`.

    Raises:
        CheckpointError: The directory has neither, or the model cannot be fetched.
    """
    if is_hub_name(path):
        return fetch(path)
    if not os.path.isdir(path):  # noqa: PTH112  false for a name that is too long, where Path.is_dir raises
        return path
    if (path / FINAL).is_file():
        return path / FINAL
    checkpoints = path / "checkpoints"
    newest, _ = CheckpointStore(checkpoints).latest() if checkpoints.is_dir() else (None, [])
    if newest is None:
        raise CheckpointError(
            f"Got {path}, a directory without {FINAL} and without a whole checkpoint, expected a checkpoint "
            "(.safetensors) or the directory of a run."
        )
    return newest.checkpoint


def _manifest(saved: SavedStep, best: int | None) -> dict[str, Any]:
    """Return the manifest of a step: digests of its files, and of the best model if there is one."""
    paths = [saved.checkpoint, saved.state]
    if best is not None:
        paths.append(saved.checkpoint.with_name(f"best-{best}.safetensors"))
    digests = {path.name: sha256(path) for path in paths}
    return STEP.stamp() | {"step": saved.step, "sha256": digests} | ({} if best is None else {"best": best})


def _document(manifest: Path) -> Any:
    """Return the content of a manifest; raises ConfigurationError if it cannot be read or is too large."""
    return json.loads(read_text(manifest))


def _best_of(manifest: Path) -> int | None:
    """Return the step of the best model that a manifest names; None if it names none or cannot be read."""
    try:
        document = _document(manifest)
    except (ConfigurationError, ValueError, RecursionError):
        return None
    match document:
        case {"best": int(best)}:
            return best
        case _:
            return None


def _problem(saved: SavedStep) -> str | None:
    """Return why a step cannot be resumed from; None if it is complete."""
    if not os.path.lexists(saved.manifest):
        return f"{saved.manifest.name} is missing"
    try:
        manifest = STEP.migrated(_document(saved.manifest), saved.manifest.name)
        digests = manifest["sha256"]
        if manifest["step"] != saved.step:
            return f"{saved.manifest.name} is of another step"
        problems = (_unlike(path, digests.get(path.name)) for path in (saved.checkpoint, saved.state))
        return next((problem for problem in problems if problem is not None), None)
    except (CheckpointError, ConfigurationError) as error:
        return str(error).removeprefix("Got ").rstrip(".")
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
        return f"{saved.manifest.name} cannot be read"


def _unlike(path: Path, digest: object) -> str | None:
    """Return why a file does not have this digest; None if it does."""
    try:
        return None if sha256(path) == digest else f"{path.name} is not the file that was saved"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except ConfigurationError:
        return f"{path.name} is not a regular file"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
