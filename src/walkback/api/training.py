"""`train`, `chain` and `bench`: `walkback run`, `chain new` and `bench` from Python; parts may be instances.

names, instances → Choices → TrainJob → Trained
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from walkback.api.inputs import Data, carry_out, data_source, path_or_none, split_choice
from walkback.api.records import Trained
from walkback.building.preparation import Instances
from walkback.configuration.overrides import assignments
from walkback.data import Dataset
from walkback.errors import ConfigurationError
from walkback.jobs.bench import BenchJob
from walkback.jobs.chain import ChainJob
from walkback.jobs.configuration import PARTS, Choices, choices_of
from walkback.jobs.inputs import PrecisionName
from walkback.jobs.train import TrainJob
from walkback.objectives import AnyObjective, Objective, PathObjective
from walkback.operators import TransitionOperator
from walkback.priors import Prior
from walkback.processes import Process
from walkback.report import Report
from walkback.schedules import Schedule
from walkback.speed.records import BenchmarkPlan

_BASES: Mapping[str, tuple[type, ...]] = {
    "operator": (TransitionOperator,),
    "schedule": (Schedule,),
    "prior": (Prior,),
    "process": (Process,),
    "objective": (Objective, PathObjective),
    "data": (Dataset,),
}
"""Base classes of instances of parts."""


def train(
    operator: str | TransitionOperator | None = None,
    *,
    data: Data | None = None,
    schedule: str | Schedule | None = None,
    prior: str | Prior | None = None,
    process: str | Process | None = None,
    objective: str | AnyObjective | None = None,
    recipe: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: PrecisionName | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    accept: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Trained:
    """Train a transition operator, and estimate a bound on -log p of held-out data.

    With names only, this is `walkback run`: the same layers of configuration (docs/configuration.md) and, bit for bit,
    the same weights. Arguments that are not given are determined by recipe and components; without operator and data,
    by the default recipe. An instance replaces a named part. Other parts are chosen as for the component registered for
    its class, or, if there is none, as for that of the default recipe. Operator, process and prior are copied before
    they are fitted and trained: your instances are unchanged.

    Args:
        operator: Name or instance; an instance must be built for the space of the data.
        data: Name, path, hub id or instance; or a table (pandas DataFrame, `datasets.Dataset`) or an array or tensor
            `(N, *E)` of numbers, bool (binary states) or uint8 (256 gray levels), of which a tenth is held out for
            validation and a tenth for test. Numbers are standardized, see `walkback.data.standardization`;
            tables of text, booleans or pandas categories are symbols, see `walkback.data.category_tables`.
        schedule: Name or instance.
        prior: Name or instance.
        process: Name or instance.
        objective: Name or instance.
        recipe: Name or TOML file of the recipe.
        steps: Number of walks, one minibatch each.
        batch_size: Number of walks per minibatch.
        lr: Learning rate.
        seed: Seed of all randomness (0 unless the recipe sets another one).
        device: "auto" (CUDA if available), "cpu" or "cuda[:i]".
        precision: Precision of the network; "auto" means bf16 where it is faster and the loss agrees.
        out: Run directory to write, with checkpoints and pictures; None keeps nothing on disk.
        resume: Run directory to resume with its own configuration, DIR@STEP for one of its older checkpoints, or "auto"
            for `out` or the newest matching run in `runs`, if there is one.
        accept: With `resume`, accepted changes that weights depend on: "data", or options such as "operator.sigma".
        settings: Options as for `--set`: `{"training.ema": 0.99, "operator.network.hidden": 64}`.
        progress: Whether to show a bar in terminals and notebooks.

    Returns:
        The trained model, with its history and bound.

    Raises:
        ConfigurationError: The request is invalid: an unknown name or option, parts that do not fit one another, `out`
            with instances, settings of an instance.
        DataError: The data cannot be read or downloaded.
        PluginError: A component cannot be built.
        WalkbackError: Training diverged, or a file could not be written.
        Interrupted: Ctrl-C was pressed and a checkpoint saved in `out`; without `out`, KeyboardInterrupt is raised.
    """
    parts = (operator, data, schedule, prior, process, objective)
    flags = {
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    choices = _choices(parts, recipe, flags, settings)
    going_on = None if resume is None else os.fspath(resume)
    kept = out is not None or resume is not None
    job = TrainJob(choices, out=path_or_none(out), resume=going_on, accept=tuple(accept), kept=kept)
    run = carry_out(job, progress)
    if run is None:
        raise ConfigurationError("`wb.train` supports one process: use `torchrun -m walkback run …`.")
    return Trained(
        model=run.model,
        info=run.prepared.dataset.info,
        checkpoint=run.checkpoint,
        device=run.prepared.device,
        name=run.result.checkpoint.name,
        dataset=run.prepared.dataset,
        directory=run.directory,
        history=run.history,
        bound=run.result.bound,
    )


def chain(
    operator: str | TransitionOperator,
    *,
    data: Data | None = None,
    prior: str | Prior | None = None,
    schedule: str | Schedule | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Trained:
    """Return a model of an operator as it is, without training, as `walkback chain new` writes it.

    Args:
        operator: Name or instance. A model of an instance cannot be saved.
        data: A space, such as "real:2", "binary:5" or "one-hot:12,3"; or data to compare the chain with, see `train`.
            None takes what the operator's component proposes.
        prior: Where chains start.
        schedule: First steps from there; a known chain takes them at T = 1.
        seed: Of weights, if the operator has any.
        settings: Any option, as `--set`.

    Raises:
        ConfigurationError: The request is wrong: an unknown name or option, no states, parts that do not fit.
        DataError: The data cannot be had.
        PluginError: A component cannot be built.
    """
    choices = _choices((operator, data, schedule, prior, None, None), None, {"seed": seed}, settings)
    found = carry_out(ChainJob(choices), progress=False)
    prepared = found.prepared
    return Trained(
        model=prepared.model,
        info=prepared.dataset.info,
        checkpoint=found.checkpoint,
        device=prepared.device,
        name="a known chain",
        dataset=prepared.dataset,
    )


def bench(
    operator: str | TransitionOperator | None = None,
    *,
    data: Data | None = None,
    schedule: str | Schedule | None = None,
    prior: str | Prior | None = None,
    process: str | Process | None = None,
    objective: str | AnyObjective | None = None,
    recipe: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: PrecisionName | None = None,
    settings: Mapping[str, Any] | None = None,
    repeats: int = 9,
    compare: bool = True,
    progress: bool = True,
) -> Report:
    """Measure how fast a configuration trains and samples, and which options are faster, like `walkback bench`.

    Args:
        operator: See `train`; a copy of it is trained.
        data: See `train`.
        schedule: See `train`.
        prior: See `train`.
        process: See `train`.
        objective: See `train`.
        recipe: See `train`.
        steps: Number of walks of the run whose duration is estimated.
        batch_size: Number of walks per minibatch.
        seed: Seed of all randomness.
        device: Device to compute on.
        precision: Precision of the network.
        settings: See `train`.
        repeats: Number of repetitions of each measurement.
        compare: Whether to also measure other kinds of updates and the other precision.
        progress: Whether to show a bar in terminals and notebooks.

    Returns:
        The report.

    Raises:
        ConfigurationError: The request is invalid.
        DataError: The data cannot be read or downloaded.
        PluginError: A component cannot be built.
        WalkbackError: The loss of the configuration is not finite.
    """
    parts = (operator, data, schedule, prior, process, objective)
    flags = {"steps": steps, "batch_size": batch_size, "seed": seed, "device": device, "precision": precision}
    plan = BenchmarkPlan(repeats=repeats, compare=compare)
    return carry_out(BenchJob(_choices(parts, recipe, flags, settings), plan), progress)


def _choices(
    parts: tuple[Any, ...],
    recipe: str | os.PathLike[str] | None,
    flags: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
) -> Choices:
    """Return the choices for jobs, from parts (names or instances, in the order of `PARTS`) and settings."""
    given = dict(zip(PARTS, parts, strict=True))
    given["data"] = data_source(given["data"])
    chosen = {section: split_choice(section, part, _BASES[section]) for section, part in given.items()}
    names = {section: name for section, (name, _) in chosen.items()}
    instances = Instances(**{section: instance for section, (_, instance) in chosen.items()})
    by_name = {**flags, **names, "recipe": None if recipe is None else os.fspath(recipe)}
    return choices_of(by_name, assignments(settings or {}), instances)
