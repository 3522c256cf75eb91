"""The methods of a comparison before any work: resolved, built, and checked to be comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from walkback.building.origins import recorded_component
from walkback.building.preparation import Prepared
from walkback.comparing.fairness import Contender, expected_calls, network_of
from walkback.comparing.request import Comparison, Method
from walkback.configuration.config import RunConfig
from walkback.data import DataInfo, Dataset, Labelled
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.jobs.inputs import DataRequest, ModelRequest
from walkback.jobs.job import Say
from walkback.jobs.sweep import CheckedSweep, SweepJob
from walkback.jobs.train import TrainJob
from walkback.measuring.diagnose import build_diagnostic
from walkback.measuring.estimates import FEWEST
from walkback.measuring.jackknife import FEWEST_ROWS
from walkback.measuring.quality.features import require_labels
from walkback.reporting.record import read_run
from walkback.storage.description import read_description
from walkback.storage.store import FINAL, checkpoint_in
from walkback.support.extras import require
from walkback.support.threads import cpu_threads
from walkback.support.watch import Watch

_QUIET = ("samples.pictures=false",)
"""Settings that a comparison proposes for all runs: it draws its own pictures."""


@dataclass(frozen=True, slots=True)
class MethodRequest:
    """What the methods of a comparison share.

    Attributes:
        out: Directory of runs and results.
        device: Device of the measurements.
        say: Spells options in error messages.
    """

    out: Path
    device: str
    say: Say


@dataclass(frozen=True, slots=True)
class Entry:
    """A checked method.

    Attributes:
        method: The method.
        contender: What is known of it before work.
        dataset: Its prepared data.
        sweep: Its runs; None for checkpoints.
        config: Configuration of its first run; None for checkpoints.
        files: Its checkpoints; empty for runs.
        infos: Descriptions of the data of the checkpoints.
    """

    method: Method
    contender: Contender
    dataset: Dataset
    sweep: CheckedSweep | None = None
    config: RunConfig | None = None
    files: tuple[Path, ...] = ()
    infos: tuple[DataInfo, ...] = ()


def checked_method(
    method: Method, comparison: Comparison, request: MethodRequest, registry: Registry, watch: Watch
) -> Entry:
    """Resolve and build a method, or load its checkpoints.

    Raises:
        ConfigurationError: The configuration is invalid, or a directory contains another run; names the method.
    """
    try:
        if method.checkpoints:
            return _of_checkpoints(method, request, registry, watch)
        return _of_configuration(method, comparison, request, registry, watch)
    except ConfigurationError as error:
        raise ConfigurationError(f"Method '{method.name}': {error}") from error


def _of_configuration(
    method: Method, comparison: Comparison, request: MethodRequest, registry: Registry, watch: Watch
) -> Entry:
    choices = Choices(method.recipe, settings=(*_QUIET, *method.settings))
    job = TrainJob(choices, out=request.out / "runs" / method.name, say=request.say)
    seeds = ",".join(map(str, comparison.seeds))
    sweep = SweepJob(job, sweeps=(f"run.seed={seeds}",)).check(registry, watch)
    seeded = replace(choices, settings=(*choices.settings, f"run.seed={comparison.seeds[0]}"))
    prepared = TrainJob(seeded, kept=False, say=request.say).check(registry, watch).prepared
    _require_counted(prepared.config, comparison)
    calls = _calls_before(prepared, sweep, watch) if comparison.same_calls else (None, None)
    contender = Contender(
        method.name,
        network_of(registry, prepared.config.operator),
        prepared.num_parameters,
        *calls,
        steps=prepared.config.training.steps,
    )
    return Entry(method, contender, prepared.dataset, sweep=sweep, config=prepared.config)


def _of_checkpoints(method: Method, request: MethodRequest, registry: Registry, watch: Watch) -> Entry:
    files = tuple(checkpoint_in(path) for path in method.checkpoints)
    loaded = [ModelRequest(file, request.device).open(registry, watch) for file in files]
    first = loaded[0]
    progress = first.checkpoint.description.progress
    calls = [progress.get(name) for name in ("calls", "gradient_calls")]
    operator = recorded_component(first.path, "operator", first.checkpoint.description, registry)
    contender = Contender(
        method.name,
        network_of(registry, operator),
        sum(weight.numel() for weight in first.model.operator.parameters()),
        *(None if count is None else int(count) for count in calls),
    )
    dataset = DataRequest().open(first, registry, watch, comparable=True)
    return Entry(method, contender, dataset, files=files, infos=tuple(each.info for each in loaded))


def is_judged(wanted: bool | None, dataset: Dataset) -> bool:
    """Return whether a classifier judges samples: as `wanted`, by default if the data have labels."""
    labelled = isinstance(dataset, Labelled) and bool(dataset.classes)
    return labelled if wanted is None else wanted


def _require_counted(config: RunConfig, comparison: Comparison) -> None:
    """Refuse settings with which the number of walks is not known before training."""
    if not comparison.same_calls:
        return
    for option in ("minutes", "patience"):
        if getattr(config.training, option):
            raise ConfigurationError(
                f"Got training.{option} = {getattr(config.training, option)}, expected none, because the network calls "
                "of training are compared: leave it out, or set same_calls = false."
            )


def _calls_before(prepared: Prepared, sweep: CheckedSweep, watch: Watch) -> tuple[int | None, int | None]:
    """Return the network calls of a training: counted if a run has finished, else measured on a few walks."""
    for member in sweep.members:
        if read_run(member.out).state == "finished" and (member.out / FINAL).is_file():
            progress = read_description(member.out / FINAL).progress
            counts = [progress.get(name) for name in ("calls", "gradient_calls")]
            if None not in counts:
                return int(counts[0] or 0), int(counts[1] or 0)
    watch.stage("Counting network calls", 0)
    with cpu_threads(prepared.config.run.threads):
        return expected_calls(prepared)


def require_same_data(entries: Sequence[Entry]) -> None:
    """Raise ConfigurationError unless all methods have the same data: content, preprocessing and options."""
    first = entries[0]
    for entry in entries:
        infos = entry.infos or (entry.dataset.info,)
        for info in infos:
            ours = first.dataset.info
            if (info.fingerprint, info.bins, info.shape) != (ours.fingerprint, ours.bins, ours.shape):
                raise ConfigurationError(
                    f"Methods '{first.method.name}' and '{entry.method.name}' have different data ({ours.name} and "
                    f"{info.name}, or other options of them), expected one data set: set the same [base.data]."
                )


def require_measurable(comparison: Comparison, dataset: Dataset, registry: Registry) -> None:
    """Refuse measurements that cannot be made, before anything is trained."""
    wanted = comparison.measure
    require("geomloss", "eval")
    if is_judged(wanted.classifier, dataset):
        require_labels(dataset)
        require("torchmetrics", "eval")
    held_out = len(dataset.examples(wanted.split))
    for name, number, fewest in (
        ("examples", min(wanted.examples, held_out), FEWEST),
        ("simulated", wanted.simulated or FEWEST, FEWEST),
        ("samples", wanted.samples, FEWEST_ROWS),
    ):
        if number < fewest:
            raise ConfigurationError(
                f"Got measure.{name} = {number}, expected at least {fewest} for a standard error."
            )
    if wanted.samples > held_out:
        raise ConfigurationError(
            f"Got measure.samples = {wanted.samples}, expected at most the {held_out} examples of the {wanted.split} "
            f"split of {dataset.info.name}."
        )
    for name, options in wanted.diagnose.items():
        build_diagnostic(registry, name, options)
