"""One run: train (log, validate, checkpoint) → evaluate on held-out data → draw samples and chains.

All files are written to the run's directory; progress is reported to a `Watch`. During the first walk and the final
evaluation, a signal stops the run at once; in between, it stops the run after the current walk and a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

from torch import Tensor

from walkback.building.devices import deterministic
from walkback.building.preparation import Prepared
from walkback.data import Split
from walkback.measuring.bound import BoundEstimate
from walkback.measuring.estimates import NotFiniteValuesError
from walkback.measuring.provenance import Provenance
from walkback.measuring.verdict import remarks_on_bound
from walkback.model import Model
from walkback.storage.checkpoint import save_checkpoint
from walkback.storage.files import write_text
from walkback.storage.rundir import RunDirectory
from walkback.support.interrupts import Interrupted, Stop, Stopped
from walkback.support.memory import forget_peak, peak_memory
from walkback.support.watch import Watch
from walkback.support.world import World
from walkback.training.engines import synchronize_norms
from walkback.training.finite import NotFiniteError
from walkback.training.metrics_file import FILE_NAME
from walkback.training.resume_point import ResumePoint
from walkback.training.run_bound import bound_of_run
from walkback.training.run_checkpoints import RunCheckpoints
from walkback.training.run_log import RunLog
from walkback.training.run_pictures import RunPictures
from walkback.training.run_result import RunResult
from walkback.training.suspects import suspecting_parts
from walkback.training.trainer import Trainer


@final
class Run:
    """Executes a prepared run in its directory.

    Args:
        prepared: From `prepare`.
        directory: The run's directory; None in processes that do not write.
        watch: Receives progress.
        stop: Checked between walks; signals during walks are deferred.
        world: The place of this process among others.
        lasting: Whether the directory will be kept; if not, no pictures and no checkpoints for resuming are written.
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
        if prepared.config.run.sync_batch_norm and self._world.size > 1:
            synchronize_norms(prepared.model.operator)
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
        self._checkpoints = RunCheckpoints(prepared, self._trainer, directory, watch, self._world)
        self._stopping = self._checkpoints.stopping
        self._log: RunLog | None = None
        self._stage = ""

    @property
    def model(self) -> Model:
        """The model with averaged weights; after `execute`, the final model."""
        return self._trainer.averaged_model

    def resume(self, point: ResumePoint) -> None:
        """Resume from a checkpoint, or start from the beginning without one; raises like `RunCheckpoints.resume`."""
        self._checkpoints.resume(point)

    def execute(self) -> RunResult | None:
        """Train to the end, evaluate and draw samples; returns None in processes that do not write.

        Raises:
            Interrupted: A stop was requested; a checkpoint has been saved.
            WalkbackError: Training diverged, or a file could not be written.
        """
        try:
            with deterministic(self._config.run.deterministic):
                return self._execute()
        except Stopped as stopped:
            # A second signal ends the run without a checkpoint.
            raise (stopped if stopped.insisted else self._interrupted(stopped.signal)) from None
        except NotFiniteError as error:
            raise suspecting_parts(error, self._prepared.model, self._prepared.objective) from None
        except Exception as error:
            # Another process may have stopped before its first walk, so that waiting for it failed here.
            if self._stop.signal and self._world.size > 1:
                raise self._interrupted(self._stop.signal) from error
            raise

    def _execute(self) -> RunResult | None:
        self._open()
        forget_peak(self._prepared.device)
        try:
            self._train()
            self._stage = "in the final evaluation"
            peak = peak_memory(self._prepared.device)
            split, limit = self._config.evaluation.split, self._config.evaluation.limit
            if self._directory is None:
                self._evaluate(split, limit, "evaluation")
                return None
            self._directory.require_held()
            final = self._directory.final
            save_checkpoint(final, self._checkpoints.finished())
            bound = self._evaluate(split, limit, "evaluation")
            remarks = remarks_on_bound(bound, self._prepared.dataset, split, limit, self._config.run.seed)
            for remark in remarks:
                self._watch.note(remark)
            pictures: tuple[Path, ...] = ()
            if self._lasting and self._config.samples.pictures:
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
        """Write the configuration, open loggers, and prepare checkpoints; called by all processes together."""
        if self._directory is not None:
            write_text(self._directory.config, self._config.to_toml())
        self._checkpoints.open()
        if self._directory is None:
            return
        walks = self._trainer.progress.walks
        prepared, config = self._prepared, self._config.to_dict()
        self._log = RunLog(prepared.metrics, prepared.loggers, self._directory.path, config, walks)
        if self._log.damaged:
            self._watch.warn(f"Left out {self._log.damaged} damaged lines of {FILE_NAME}.")

    def _train(self) -> None:
        """Take all walks."""
        trainer = self._trainer
        self._watch.stage(*trainer.extent)
        if trainer.finished or self._out_of_patience():  # a run that has stopped and is resumed
            return
        with ExitStack() as stack:
            # In a single process, a signal during the first walk (minutes if compiled) may stop it at once: nothing is
            # lost. Several processes must stop together, after the same walk.
            if self._world.size > 1:
                stack.enter_context(self._stop.deferred())
            taken = self._walk()
            if self._world.size == 1:
                stack.enter_context(self._stop.deferred())
            while self._attended(*taken):
                taken = self._walk()

    def _walk(self) -> tuple[Tensor, set[str]]:
        """Take a walk, going back if necessary; returns its loss, and what is due after it."""
        while True:
            try:
                return self._trainer.walk(), self._due()
            except NotFiniteError as error:
                self._go_back(error)

    def _attended(self, loss: Tensor, due: set[str]) -> bool:
        """Call `_attend`, and go back if necessary."""
        try:
            return self._attend(loss, due)
        except NotFiniteError as error:
            self._go_back(error)
            return True

    def _go_back(self, error: NotFiniteError) -> None:
        """Go back to the last good checkpoint; raises `error` if that is disabled or impossible."""
        step = self._checkpoints.go_back(error)
        if self._log is not None:
            self._log.rewind(step)
        self._watch.stage(*self._trainer.extent)

    def _attend(self, loss: Tensor, due: set[str]) -> bool:
        """Do what is due after a walk; returns whether training continues.

        Raises:
            Interrupted: A stop was requested; a checkpoint has been saved.
        """
        trainer = self._trainer
        number = trainer.progress.walks
        if not trainer.skipped:
            self._checkpoints.good.observe(number, loss)
        if "log" in due and self._log is not None:
            self._log.training(trainer, loss)
        if "validate" in due:
            self._validate(number)
        if "sample" in due:
            self._draw_midway(number)
        ends = "validate" in due and self._out_of_patience()
        saves = self._saves and ("checkpoint" in due or ends)
        if saves:  # last, so that a run resumed from here includes all of the above
            self._checkpoints.save(number, due=True)
        self._watch.advance(trainer.extent[-1], {} if self._log is None else self._log.latest)
        if self._world.any(bool(self._stop)):
            if not saves:
                self._checkpoints.save(number, due=False)
            self._world.wait()  # a launcher kills the other processes as soon as the first one exits
            raise self._interrupted(self._stop.signal or 0)
        return not (ends or trainer.finished)

    @property
    def _saves(self) -> bool:
        """Whether checkpoints are saved, to resume from or to go back to."""
        return self._lasting or self._config.training.on_nonfinite == "rollback"

    def _due(self) -> set[str]:
        """Return what is due after this walk; if anything is, the device has been synchronized."""
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
        if trainer.finished:
            due = set(every)
        draws = self._lasting and self._config.samples.pictures
        if draws and settings.sample_every and number % settings.sample_every == 0:
            due.add("sample")
        if due:
            trainer.settle()  # synchronize, so that the seconds are complete
        return due

    def _out_of_patience(self) -> bool:
        """Return whether validation has not improved for too long; the same in all processes."""
        return self._config.training.patience > 0 and self._world.any(self._stopping.exhausted)

    def _validate(self, step: int) -> None:
        """Estimate the bound on validation data.

        Raises:
            NotFiniteError: The bound is not finite. If training can go back, all processes raise it.
        """
        lost = ""
        try:
            self._log_bound(step)
        except NotFiniteValuesError as error:
            lost = str(error)
        goes_back = self._config.training.on_nonfinite == "rollback"
        if self._world.any(bool(lost)) if goes_back else lost:
            updates = self._trainer.progress.updates
            what = lost or "its bound is not finite."
            raise NotFiniteError(f"Validation after {step} walks failed: {what}", step, updates)

    def _log_bound(self, step: int) -> None:
        limit = self._config.training.validation_examples
        bound = self._evaluate("validation", limit, "validation")
        if bound is None or self._log is None:
            return
        figures = bound.named("validation")
        self._checkpoints.good.observe_bound(bound.nats)
        if self._stopping.observe(step, bound.nats):
            self._checkpoints.save_best(step)
        if self._stopping.best_step is not None:
            figures["best_step"] = self._stopping.best_step
        self._log.log(step, figures)

    def _evaluate(self, split: Split, limit: int, stream: str) -> BoundEstimate | None:
        return bound_of_run(self._prepared, self._trainer, self._world, split, limit, stream)

    def _pictures(self, directory: RunDirectory) -> RunPictures:
        return RunPictures(self._prepared, directory, self._watch, self._protocol())

    def _draw_midway(self, step: int) -> None:
        self._trainer.settle()
        if self._directory is None or self._log is None:
            return
        path = self._pictures(self._directory).draw_midway(self._trainer.averaged_model, step)
        if path is not None:
            self._log.picture(step, "annealed", path)  # the name of the final samples, at another step

    def _log_pictures(self, paths: Sequence[Path]) -> None:
        if self._log is not None:
            for path in paths:
                self._log.picture(self._trainer.progress.walks, path.stem, path)

    def _interrupted(self, number: int) -> Interrupted:
        path = self._directory.path if self._directory else None
        return Interrupted(number, path, self._trainer.progress.walks, self._stage)

    def _protocol(self) -> dict[str, Any]:
        return Provenance(
            operator=self._prepared.operator_name,
            device=self._prepared.device,
            precision=self._prepared.precision,
            seed=self._config.run.seed,
            weights=self._checkpoints.weights,
            data=self._prepared.dataset.info,
            details={"split": self._config.evaluation.split},
        ).to_dict()
