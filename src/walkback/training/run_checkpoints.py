"""The checkpoints of a run: their content, which ones are kept, and how training returns to one.

The newest ones, the last good one (`walkback.training.last_good`), and the best model on validation data are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, final

import torch

from walkback.building.preparation import Prepared
from walkback.errors import ConfigurationError
from walkback.storage.checkpoint import Checkpoint, TrainingState, load_checkpoint, load_training_state
from walkback.storage.description import describe
from walkback.storage.rundir import RunDirectory
from walkback.storage.store import CheckpointStore, SavedStep
from walkback.support.watch import Watch
from walkback.support.world import World
from walkback.training.finite import NotFiniteError
from walkback.training.last_good import LastGood
from walkback.training.resume_point import ResumePoint, environment, find_resume_point, other_environment
from walkback.training.stopping import EarlyStopping
from walkback.training.trainer import Trainer


@final
class RunCheckpoints:
    """Saves and restores the training of a run.

    Args:
        prepared: The run.
        trainer: The trainer to save and restore.
        directory: The run's directory; None in processes that do not write.
        watch: Receives messages.
        world: The place of this process among others.

    Attributes:
        stopping: Early stopping, which is saved too.
        good: The last good checkpoint, which is saved too.
    """

    def __init__(
        self, prepared: Prepared, trainer: Trainer, directory: RunDirectory | None, watch: Watch, world: World
    ) -> None:
        self._prepared = prepared
        self._settings = prepared.config.training
        self._trainer = trainer
        self._directory = directory
        self._watch = watch
        self._world = world
        self._goes_back = self._settings.on_nonfinite == "rollback"
        self._chosen: int | None = None
        self._place = ""
        self.stopping = EarlyStopping(self._settings.patience)
        self.good = LastGood(prepared.dataset.info.space.size)

    @property
    def weights(self) -> Literal["ema", "raw"]:
        """The kind of weights that are evaluated, sampled and saved."""
        return "ema" if self._settings.ema else "raw"

    def current(self) -> Checkpoint:
        """Return the current model; raises like `Trainer.settle`."""
        model = self._trainer.averaged_model
        found = self._trainer.progress
        progress = {
            "walks": found.walks,
            "updates": found.updates,
        }  # without seconds, so that equal runs write equal files
        more = ("skipped", "rollbacks", "calls", "gradient_calls")
        progress |= {name: value for name in more if (value := getattr(found, name))}
        description = describe(
            **self._prepared.names(),
            data=self._prepared.dataset.info.to_dict(),
            progress=progress,
            weights=self.weights,
        )
        return Checkpoint(description, model.tensors())

    # --- resuming

    def resume(self, point: ResumePoint) -> None:
        """Restore training from a checkpoint; the directory must be locked.

        Raises:
            ConfigurationError: The checkpoint does not fit the run, is beyond its last step, or is no longer the newest
                one.
        """
        if self._world.is_main:
            self._require_still(point)
            for note in point.notes:
                self._watch.warn(note)
            if point.saved is None:
                self._watch.note(
                    f"{point.directory} has no checkpoint yet: training starts from the beginning."
                )
        if point.saved is None:
            return
        document = self._restore(point.saved)
        self._chosen = point.saved.step if point.chosen else None
        if self._directory is not None and self._settings.patience:
            problem = self._directory.checkpoints.lost_best(point.saved)
            if problem is not None:
                self.stopping.forget_best()
                self._watch.warn(
                    f"The best model is lost: {problem}. The next validation counts as the best."
                )
        difference = other_environment(document.get("environment"), self._environment())
        if difference is not None and self._world.is_main:
            self._watch.warn(difference)
        walks, steps = self._trainer.progress.walks, self._settings.steps
        if walks > steps:
            raise ConfigurationError(
                f"The run in {point.directory} has already taken {walks} walks, more than the {steps} asked for: ask "
                f"for {walks}."
            )

    def open(self) -> None:
        """Prepare the directory for further walks; called by all processes together."""
        directory, walks = self._directory, self._trainer.progress.walks
        if directory is not None and self._chosen is not None:
            place = directory.set_aside_after(self._chosen)
            if place is not None:
                self._watch.note(
                    f"What came after {self._chosen} walks is in {place}: delete it if it is not needed."
                )
        if self._goes_back:
            self._place = self._world.text_from_main(
                "" if directory is None else str(directory.checkpoints.directory)
            )
            if walks == 0:  # a checkpoint to go back to before the first regular one
                self.good.restart(0)
                self.save(0, due=False)

    def _require_still(self, point: ResumePoint) -> None:
        """Repeat the search now that no other process can write: it must find the checkpoint that was checked."""
        step = None if point.saved is None else point.saved.step
        if point.chosen or find_resume_point(point.directory, None).saved == point.saved:
            return
        raise ConfigurationError(
            f"Another process has trained in {point.directory} since its checkpoint of step {step} was found: "
            "try again."
        )

    def _restore(self, saved: SavedStep) -> dict[str, object]:
        """Restore all state from files; returns the document of the training state."""
        # Divided tensors may not fit one device together.
        device = torch.device("cpu") if self._world.shards else self._prepared.device
        checkpoint, state = (
            load_checkpoint(saved.checkpoint, device),
            load_training_state(saved.state, device),
        )
        self._trainer.restore(checkpoint.tensors, state.tensors, state.document)
        self.stopping.restore(state.document)
        self.good.restore(state.document, saved.step)
        return dict(state.document)

    def _environment(self) -> dict[str, object]:
        return environment(self._prepared.device, self._prepared.precision, self._world.size)

    # --- saving

    def save(self, step: int, *, due: bool) -> None:
        """Save all state after `step` walks; called by all processes together.

        Args:
            step: Number of walks.
            due: Whether an uninterrupted run would also save here; only then the checkpoint may become the last good
                one, so that resuming does not change the result.

        Raises:
            WalkbackError: A file cannot be written, or another process is using the directory.
        """
        if due:
            self.good.saved(step)
        tensors, document = self._trainer.state()  # called by all processes
        if self._directory is None:
            return
        self._directory.require_held()
        document |= self.stopping.state() | self.good.state() | {"environment": self._environment()}
        store = self._directory.checkpoints
        store.save(step, self.current(), TrainingState(tensors, document), self.stopping.best_step)
        store.prune(self._settings.keep_checkpoints, self.good.kept)

    def save_best(self, step: int) -> None:
        """Save the model after `step` walks as the best, in the process that writes."""
        if self._directory is not None:
            self._directory.require_held()
            self._directory.checkpoints.save_best(step, self.current())

    def finished(self) -> Checkpoint:
        """Return the final model: with early stopping, the best one on validation data, else the last one."""
        best = self.stopping.best_step
        if best is None or self._directory is None:
            return self.current()
        self._watch.note(f"The validation bound was best after {best} walks: the model of then is kept.")
        checkpoint = load_checkpoint(self._directory.checkpoints.best(best), self._prepared.device)
        self._trainer.adopt(checkpoint.tensors)
        return checkpoint

    # --- going back

    def go_back(self, error: NotFiniteError) -> int:
        """Restore the last good checkpoint after training has diverged; called by all processes together.

        Returns:
            The number of its walks.

        Raises:
            NotFiniteError: Going back is disabled, has happened too often, or there is no good checkpoint.
        """
        step = self._newest_good() if error.updates else None
        if step is None:
            raise error
        if not self._goes_back:
            raise error.adding(self._advice(step))
        progress, limit = self._trainer.progress, self._settings.nonfinite_limit
        if progress.rollbacks >= limit:
            raise error.adding(f"training went back {limit} times before it (training.nonfinite_limit)")
        self._restore(CheckpointStore(Path(self._place)).at(step))
        self._trainer.go_back(progress)
        if self._directory is not None:
            self._directory.require_held()
            self._directory.checkpoints.discard_after(step)
        reason = str(error).partition(", expected")[0]
        self._watch.warn(
            f"{reason}: went back to the checkpoint of {step} walks, with {self._settings.rollback_rate:g} times the "
            f"learning rate ({progress.rollbacks + 1} of at most {limit} times)."
        )
        return step

    def _newest_good(self) -> int | None:
        """Return the step to go back to, as known to the main process, which validates."""
        step = self.good.newest()
        if not self._goes_back:  # only used in a message, and other processes may already have ended
            return step
        found = round(self._world.from_main(-1 if step is None else step))
        return None if found < 0 else found

    def _advice(self, step: int) -> str:
        if self._directory is None:
            return f"the last good checkpoint is that of {step} walks"
        return f"the last good checkpoint is that of {step} walks: --resume {self._directory.path}@{step} --lr RATE"
