"""One run: train (log, validate, checkpoint) → evaluate on held-out data → draw samples and chains.

Everything goes into the run's directory; progress is told to a `Watch`. A signal stops the run at once where nothing
would be lost: before the first walk is done, and in the final evaluation. In between it waits for the end of the walk,
and a checkpoint is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, final

from torch import Tensor

from walkback.building.devices import autocast, deterministic
from walkback.building.preparation import Prepared
from walkback.data import Split, batch_of
from walkback.errors import ConfigurationError
from walkback.measuring.bound import BoundEstimate, estimate_bound
from walkback.measuring.provenance import Provenance
from walkback.measuring.verdict import remarks_on_bound
from walkback.model import Model
from walkback.storage.checkpoint import (
    Checkpoint,
    TrainingState,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
)
from walkback.storage.description import describe
from walkback.storage.files import write_text
from walkback.storage.rundir import RunDirectory
from walkback.storage.store import CheckpointStore
from walkback.support.interrupts import Interrupted, Stop, Stopped
from walkback.support.memory import forget_peak, peak_memory, within_memory
from walkback.support.seeding import generator
from walkback.support.watch import Watch
from walkback.training.distributed import World
from walkback.training.run_log import RunLog
from walkback.training.run_pictures import RunPictures
from walkback.training.run_result import RunResult
from walkback.training.stopping import EarlyStopping
from walkback.training.trainer import Trainer


@final
class Run:
    """Executes a prepared run in its directory.

    Args:
        prepared: From `prepare`.
        directory: The run's directory; None on processes that do not write.
        watch: Is told of progress.
        stop: Asked between walks, during which it is deferred.
        world: This process among others.
        lasting: Whether the directory is to stay: else it gets no pictures, and nothing to go on from.
    """

    def __init__(
        self,
        prepared: Prepared,
        directory: RunDirectory | None,
        watch: Watch,
        stop: Stop,
        world: World | None = None,
        lasting: bool = True,
    ) -> None:
        self._prepared = prepared
        self._config = prepared.config
        self._directory = directory
        self._watch = watch
        self._stop = stop
        self._lasting = lasting
        self._world = world or World()
        if prepared.config.run.compile:
            prepared.model.operator.compile()
        self._trainer = Trainer(
            prepared.model,
            prepared.objective,
            prepared.dataset,
            prepared.config.training,
            seed=prepared.config.run.seed,
            device=prepared.device,
            precision=prepared.precision,
            compiled=prepared.config.run.compile,
            world=self._world,
        )
        self._stopping = EarlyStopping(prepared.config.training.patience)
        self._log: RunLog | None = None
        self._stage = ""

    @property
    def model(self) -> Model:
        """The model with averaged weights: after `execute`, the one that is kept."""
        return self._trainer.averaged_model

    def resume(self, path: Path) -> None:
        """Go on from the newest whole checkpoint in the run directory `path`; from the start where there is none.

        Raises:
            ConfigurationError: The checkpoint does not fit the run, or is beyond its last step.
        """
        saved, warnings = CheckpointStore(path / "checkpoints").latest()
        if self._world.is_main:
            for warning in warnings:
                self._watch.note(warning)
        if saved is None:
            return
        checkpoint = load_checkpoint(saved.checkpoint, self._prepared.device)
        state = load_training_state(saved.state, self._prepared.device)
        self._trainer.restore(checkpoint.tensors, state.tensors, state.document)
        self._stopping.restore(state.document)
        walks, steps = self._trainer.progress.walks, self._config.training.steps
        if walks > steps:
            raise ConfigurationError(
                f"Got {steps} training steps for the run in {path}, which has taken {walks}: ask for at least as many."
            )

    def execute(self) -> RunResult | None:
        """Train to the end, evaluate, draw; None on processes that do not write.

        Raises:
            Interrupted: A stop was requested; a checkpoint has been saved.
            WalkbackError: Training diverged, or a file could not be written.
        """
        try:
            with deterministic(self._config.run.deterministic):
                return self._execute()
        except Stopped as stopped:
            if stopped.insisted:
                raise  # the user does not wait for a checkpoint
            raise self._interrupted(stopped.signal) from None
        except Exception as error:
            # The other process may have stopped before its first walk, and this one waits for it in vain.
            if self._stop and self._world.size > 1:
                raise self._interrupted(self._stop.signal or 0) from error
            raise

    def _execute(self) -> RunResult | None:
        self._open()
        forget_peak(self._prepared.device)
        try:
            self._train()
            self._stage = "in the final evaluation"
            peak = peak_memory(self._prepared.device)
            if self._directory is None:
                return None
            final = self._directory.final
            save_checkpoint(final, self._finished(self._directory))
            split, limit = self._config.evaluation.split, self._config.evaluation.limit
            bound = self._evaluate(split, limit, "evaluation")
            remarks = remarks_on_bound(bound, self._prepared.dataset, split, limit, self._config.run.seed)
            for remark in remarks:
                self._watch.note(remark)
            pictures: tuple[Path, ...] = ()
            if self._lasting:
                self._stage = "while drawing"
                model = self._trainer.averaged_model
                pictures = self._pictures(self._directory).draw(model)
                self._log_pictures(pictures)
            return RunResult(
                directory=self._directory.path,
                checkpoint=final,
                pictures=pictures,
                bound=bound,
                protocol=self._protocol(),
                walks=self._trainer.progress.walks,
                seconds=self._trainer.progress.seconds,
                best_step=self._stopping.best_step,
                peak_memory=peak,
                remarks=remarks,
            )
        finally:
            if self._log is not None:
                self._log.close()

    def _open(self) -> None:
        """Configuration and loggers."""
        if self._directory is None:
            return
        walks = self._trainer.progress.walks
        write_text(self._directory.config, self._config.to_toml())
        self._directory.checkpoints.discard_after(walks)
        prepared, config = self._prepared, self._config.to_dict()
        self._log = RunLog(prepared.metrics, prepared.loggers, self._directory.path, config, walks)

    def _train(self) -> None:
        """Take all walks."""
        trainer = self._trainer
        self._watch.stage(*trainer.extent)
        if trainer.finished or self._out_of_patience():  # a run that has stopped and is resumed
            return
        # A process alone has nothing to lose before its first walk is done, which may take minutes where the operator
        # is compiled. Those that train together stop together, between two walks.
        loss = trainer.walk() if self._world.size == 1 else None
        with self._stop.deferred():
            going_on = True
            while going_on:
                going_on = self._attend(trainer.walk() if loss is None else loss)
                loss = None

    def _attend(self, loss: Tensor) -> bool:
        """Do what is due after a walk; returns whether training goes on.

        Raises:
            Interrupted: A stop was requested; a checkpoint has been saved.
        """
        settings, trainer = self._config.training, self._trainer
        due, number = self._due(), trainer.progress.walks
        if "log" in due and self._log is not None:
            self._log.training(trainer, loss)
        if "validate" in due:
            self._validate(number)
        if self._lasting and settings.sample_every and number % settings.sample_every == 0:
            self._draw_midway(number)
        ends = "validate" in due and self._out_of_patience()
        saves = self._lasting and ("checkpoint" in due or ends)
        if saves:  # last, so that a run resumed here has all that came before
            self._save(number)
        self._watch.advance(trainer.extent[-1], {} if self._log is None else self._log.latest)
        if self._world.any(bool(self._stop)):
            if not saves:
                self._save(number)
            self._world.wait()  # a launcher ends the others when it sees the first one go
            raise self._interrupted(self._stop.signal or 0)
        return not (ends or trainer.finished)

    def _due(self) -> set[str]:
        """What is to be done after this walk; for any of it the device has been waited for."""
        settings, trainer = self._config.training, self._trainer
        every = {
            "log": settings.log_every,
            "validate": settings.validate_every,
            "checkpoint": settings.checkpoint_every,
        }
        number = trainer.progress.walks
        due = {name for name, walks in every.items() if number % walks == 0} | (
            {"log"} if number == 1 else set()
        )
        if due or trainer.finished:
            trainer.settle()  # seconds may be more now than they were
        return set(every) if trainer.finished else due

    def _out_of_patience(self) -> bool:
        """Whether the main process, which validates, has waited long enough for a better bound; the same on all."""
        return self._config.training.patience > 0 and self._world.any(self._stopping.exhausted)

    @property
    def _path(self) -> Path | None:
        return self._directory.path if self._directory else None

    @property
    def _weights(self) -> Literal["ema", "raw"]:
        """Which weights are evaluated, drawn from and saved."""
        return "ema" if self._config.training.ema else "raw"

    def _validate(self, step: int) -> None:
        if self._directory is None or self._log is None:
            return
        bound = self._evaluate("validation", self._config.training.validation_examples, "validation")
        figures = bound.named("validation")
        if self._stopping.observe(step, bound.nats):
            self._directory.checkpoints.save_best(step, self._checkpoint())
        if self._stopping.best_step is not None:
            figures["best_step"] = self._stopping.best_step
        self._log.log(step, figures)

    def _evaluate(self, split: Split, limit: int, stream: str) -> BoundEstimate:
        """The bound on the first `limit` examples of a split, with the averaged weights."""
        prepared, settings = self._prepared, self._config.evaluation
        num = min(limit, len(prepared.dataset.examples(split)))
        noise = generator(prepared.device, self._config.run.seed, stream)
        batches = [
            batch_of(prepared.dataset, split, slice(first, min(first + settings.batch_size, num)), noise)
            for first in range(0, num, settings.batch_size)
        ]
        size = settings.batch_size
        work = f"evaluating {size} examples at a time (evaluation.batch_size)"
        with (
            within_memory(work, "lower evaluation.batch_size"),
            autocast(prepared.device, prepared.precision),
        ):
            paths = settings.paths if stream == "evaluation" else 1
            return estimate_bound(
                self._trainer.averaged_model, batches, prepared.dataset.info, noise, paths=paths
            )

    def _save(self, step: int) -> None:
        tensors, document = self._trainer.state()  # of all processes together
        if self._directory is None:
            return
        state = TrainingState(tensors, document | self._stopping.state())
        self._directory.checkpoints.save(step, self._checkpoint(), state, self._stopping.best_step)
        self._directory.checkpoints.prune(self._config.training.keep_checkpoints)

    def _pictures(self, directory: RunDirectory) -> RunPictures:
        return RunPictures(self._prepared, directory, self._watch, self._protocol())

    def _draw_midway(self, step: int) -> None:
        self._trainer.settle()
        if self._directory is None or self._log is None:
            return
        path = self._pictures(self._directory).draw_midway(self._trainer.averaged_model, step)
        if path is not None:
            self._log.picture(step, "annealed", path)  # as the final samples, at another time

    def _log_pictures(self, paths: Sequence[Path]) -> None:
        if self._log is not None:
            for path in paths:
                self._log.picture(self._trainer.progress.walks, path.stem, path)

    def _interrupted(self, number: int) -> Interrupted:
        return Interrupted(number, self._path, self._trainer.progress.walks, self._stage)

    def _finished(self, directory: RunDirectory) -> Checkpoint:
        """The model to keep, evaluate and draw: the best on validation data where one was looked for, else the last."""
        best = self._stopping.best_step
        if best is None:
            return self._checkpoint()
        self._watch.note(f"The validation bound was best after {best} walks: the model of then is kept.")
        checkpoint = load_checkpoint(directory.checkpoints.best(best), self._prepared.device)
        self._trainer.adopt(checkpoint.tensors)
        return checkpoint

    def _checkpoint(self) -> Checkpoint:
        model = self._trainer.averaged_model
        progress = asdict(self._trainer.progress)
        del progress["seconds"]  # equal runs leave equal files
        description = describe(
            **self._prepared.names(),
            data=self._prepared.dataset.info.to_dict(),
            progress=progress,
            weights=self._weights,
        )
        return Checkpoint(description, model.tensors())

    def _protocol(self) -> dict[str, Any]:
        return Provenance(
            operator=self._prepared.operator_name,
            device=self._prepared.device,
            precision=self._prepared.precision,
            seed=self._config.run.seed,
            weights=self._weights,
            data=self._prepared.dataset.info,
            details={"split": self._config.evaluation.split},
        ).to_dict()
