"""The request to train an operator, evaluate it and draw samples.

choices → RunConfig → Prepared → Run → TrainedRun
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from walkback.building.preparation import Prepared, prepare
from walkback.configuration.config import RunConfig
from walkback.configuration.resuming import ResumeRequest, resumed_config
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.jobs.job import Say, keywords
from walkback.jobs.trainable import require_consistent, require_trainable
from walkback.model import Model
from walkback.storage.checkpoint import Checkpoint, load_checkpoint
from walkback.storage.rundir import (
    RunDirectory,
    default_stem,
    newest,
    require_free,
    require_run_directory,
)
from walkback.support.interrupts import Stop, stoppable
from walkback.support.processes import require_few, world_size
from walkback.support.threads import cpu_threads
from walkback.support.watch import Watch
from walkback.support.world import joined_world, local_device
from walkback.training.metrics_file import FILE_NAME, read_records
from walkback.training.outcomes import execute
from walkback.training.precision import settled
from walkback.training.resume_point import (
    ResumePoint,
    find_resume_point,
    parse_resume,
    require_nothing_lost,
    require_same_data,
)
from walkback.training.run import Run
from walkback.training.run_result import RunResult


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """The outcome of training.

    Attributes:
        result: Paths, bound, and duration.
        prepared: The configuration that was trained.
        model: The final model (averaged weights, if any), on its device, in evaluation mode.
        checkpoint: The same model as written to its file, on the CPU.
        history: Logged metrics, one record per line of `metrics.jsonl`.
        directory: Directory of the run, if it is kept.
    """

    result: RunResult
    prepared: Prepared
    model: Model
    checkpoint: Checkpoint
    history: tuple[Mapping[str, Any], ...]
    directory: Path | None


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Train an operator.

    Attributes:
        choices: The configuration to train.
        out: New run directory; None takes the next free one of `runs/OPERATOR-DATA`.
        resume: Run directory to resume, DIR@STEP for an older checkpoint, or "auto" for `out` or the newest matching
            run, if there is one.
        accept: Accepted changes that affect what the weights mean: "data", or options.
        kept: Whether to keep the run's directory; if not, no pictures and no checkpoints for resuming are written.
        launched: Whether this may be one of several processes started by a launcher to train together.
        say: Spells options in error messages.
    """

    choices: Choices = field(default_factory=Choices)
    out: Path | None = None
    resume: str | None = None
    accept: tuple[str, ...] = ()
    kept: bool = True
    launched: bool = False
    say: Say = keywords

    def configure(self, registry: Registry) -> tuple[RunConfig, ResumePoint | None]:
        """Return the configuration, and the checkpoint to resume from (None for a new run).

        Raises:
            ConfigurationError: The choices are invalid or contradict the run to resume, or `out` is not free.
            PluginError: A required plugin is broken.
        """
        self._refuse_instances_on_disk()
        choices, resume = self.choices, self.resume
        if resume is not None and choices.recipe is not None:
            raise ConfigurationError(
                f"A resumed run keeps its own recipe: leave out {self.say('recipe')} or {self.say('resume')}."
            )
        if resume is None and self.accept:
            raise ConfigurationError(
                f"Got {self.say('accept', self.accept[0])} without {self.say('resume')}, expected both: it accepts a "
                "change of a run that is resumed."
            )
        if resume is not None and resume != "auto":
            return self._resumed(registry, *parse_resume(resume))
        config = choices.resolve(registry)
        require_few(config.run.nproc, f"run.nproc = {config.run.nproc}")
        if resume == "auto":
            found = self.out or newest(default_stem(config.operator.name, config.data.name))
            if found is not None and (found / "config.toml").exists():
                return self._resumed(registry, found, None)
        if self.out is not None:
            require_free(self.out)
        return config, None

    def check(self, registry: Registry, watch: Watch) -> CheckedTraining:
        """Resolve the configuration, prepare the data and build the model; see `Job.check`."""
        config, resumed = self.configure(registry)
        processes = max(config.run.nproc, world_size())
        if processes > 1 and not self.launched:
            raise ConfigurationError(
                f"`wb.train` supports one process, and run.nproc is {processes}: use "
                f"`walkback run --nproc {processes}` or `torchrun -m walkback run`."
            )
        instances = self.choices.instances
        require_consistent(config, registry, instances)
        watch.stage(f"Preparing {config.data.name}", 0)
        resumes = resumed is not None and resumed.saved is not None
        with cpu_threads(config.run.threads):
            prepared = prepare(
                config,
                registry,
                local_device(config.run.device),
                instances.copied(),
                watch,
                resumes=resumes,
            )
            require_trainable(prepared)
            prepared = settled(prepared, watch, resumes=resumes)
        if prepared.dataset.info.standardized is not None:
            watch.note(
                "Training and its loss use standardized values; bounds, samples and pictures are in the data's units."
            )
        if resumed is not None:
            remark = require_same_data(resumed, prepared.dataset.info, self.accept)
            if remark is not None:
                watch.warn(remark)
        return CheckedTraining(prepared, self.out, resumed, self.kept)

    def _resumed(
        self, registry: Registry, directory: Path, step: int | None
    ) -> tuple[RunConfig, ResumePoint]:
        require_run_directory(directory)
        point = find_resume_point(directory, step)
        request = ResumeRequest(self.choices.components, self.choices.settings, self.accept)
        config = resumed_config(registry, directory, request, point.config)
        require_nothing_lost(point, config.training.checkpoint_every)
        return config, point

    def _refuse_instances_on_disk(self) -> None:
        sections = sorted(self.choices.instances.sections)
        for name, place in (("out", self.out), ("resume", self.resume)):
            if place is not None and sections:
                raise ConfigurationError(
                    f"A run directory needs components by name to be resumed, and {sections[0]} is an instance: leave "
                    f"out {self.say(name)}."
                )


@dataclass(frozen=True, slots=True)
class CheckedTraining:
    """A checked run.

    Attributes:
        prepared: The configuration to train.
        out: See `TrainJob`.
        resumed: The checkpoint to resume from, if any.
        kept: See `TrainJob`.
    """

    prepared: Prepared
    out: Path | None
    resumed: ResumePoint | None
    kept: bool

    @property
    def headline(self) -> str:
        """Summary of the run in one line."""
        prepared, config = self.prepared, self.prepared.config
        return (
            f"{config.operator.name} ({prepared.num_parameters:,} parameters) on {config.data.name}, "
            f"K ≤ {len(prepared.model.levels())}, {prepared.device}, {prepared.precision}"
        )

    def run(self, watch: Watch) -> TrainedRun | None:
        """Train, evaluate and draw samples; returns None in processes that do not write.

        Raises:
            Interrupted: A stop was requested and a checkpoint saved (only if the directory is kept).
            WalkbackError: Training diverged, or a file could not be written.
        """
        with (
            cpu_threads(self.prepared.config.run.threads),
            joined_world(self.prepared.device, self.prepared.config.run.shard) as world,
            self._directory(world.is_main) as directory,
            ExitStack() as stack,
        ):

            def warn() -> None:
                if world.is_main:
                    watch.warn("stopping after this walk; once more to abort.")

            if directory is not None and self.kept:
                watch.note(f"{self.headline} → {directory.path}")
            stop = stack.enter_context(stoppable(warn)) if self.kept else Stop()
            run = Run(self.prepared, directory, watch, stop, world, self.kept)
            if self.resumed is not None:
                run.resume(self.resumed)
            fresh = self.resumed is None or not self.resumed.chosen
            result = execute(run, directory if self.kept else None, fresh=fresh)
            return None if result is None else self._trained(run.model, result)

    @contextmanager
    def _directory(self, writes: bool) -> Iterator[RunDirectory | None]:
        """Provide the locked run directory to the process that writes, and None to others."""
        config = self.prepared.config
        with ExitStack() as stack:
            if not writes:
                directory = None
            elif not self.kept:
                place = Path(stack.enter_context(TemporaryDirectory(prefix="walkback-")))
                directory = RunDirectory.create(place)
            elif self.resumed is not None:
                directory = RunDirectory.open(self.resumed.directory)
            elif self.out is not None:
                directory = RunDirectory.create(self.out)
            else:
                directory = RunDirectory.create_next(default_stem(config.operator.name, config.data.name))
            yield directory if directory is None else stack.enter_context(directory)

    def _trained(self, model: Model, result: RunResult) -> TrainedRun:
        model.operator.eval().requires_grad_(False)
        model.process.eval().requires_grad_(False)
        return TrainedRun(
            result=result,
            prepared=self.prepared,
            model=model,
            checkpoint=load_checkpoint(result.checkpoint),
            history=tuple(read_records(result.directory / FILE_NAME)),
            directory=result.directory if self.kept else None,
        )
