"""`train`, `chain` and `bench`: what `walkback run`, `chain new` and `bench` do, from Python; parts may be instances.

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
from walkback.speed.timings import BenchmarkPlan

_BASES: Mapping[str, tuple[type, ...]] = {
    "operator": (TransitionOperator,),
    "schedule": (Schedule,),
    "prior": (Prior,),
    "process": (Process,),
    "objective": (Objective, PathObjective),
    "data": (Dataset,),
}
"""What instances of parts derive from."""


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
    """Train a transition operator, and bound -log p of held-out data.

    By names alone this is `walkback run`: the same layers of configuration (docs/configuration.md) and, bit for bit,
    the same weights. What is not given comes from recipe and components; without operator and data, from the default
    recipe. An instance takes the place of a named part; the rest is chosen as for the component that its class is, or
    as for the default recipe's where no plugin offers the class. Operator and prior are copied and fitted to the data:
    yours stay as they are.

    Args:
        operator: Name or instance, built for the space of the data.
        data: Name, path, hub id or instance; or a table (pandas DataFrame, `datasets.Dataset`) or an array or tensor
            `(N, *E)` of numbers, of bool (binary states) or of uint8 (256 gray levels), of which a tenth is held out
            for validation and a tenth for test. Numbers are standardized, see `walkback.data.standardization`.
        schedule: Name or instance.
        prior: Name or instance.
        process: Name or instance.
        objective: Name or instance.
        recipe: Name or TOML file to start from.
        steps: Number of walks, one minibatch each.
        batch_size: Walks side by side.
        lr: Learning rate.
        seed: Of everything random (0 unless the recipe says otherwise).
        device: "auto" (CUDA where there is one), "cpu" or "cuda[:i]".
        precision: Of the network; "auto" is bf16 on CUDA.
        out: Run directory to write, with checkpoints to go on from and pictures; None keeps nothing on disk.
        resume: Run directory to resume, under its own configuration, or DIR@STEP for one of its older checkpoints; or
            "auto": `out`, or the newest in `runs` that fits, if there is one.
        accept: With `resume`: changes to accept that the weights depend on, "data" or options such as "operator.sigma".
        settings: Any option, as `--set`: `{"training.ema": 0.99, "operator.network.hidden": 64}`.
        progress: Show a bar in terminals and notebooks.

    Raises:
        ConfigurationError: The request is wrong: an unknown name or option, parts that do not fit each other, `out`
            with instances, settings of an instance.
        DataError: The data cannot be had.
        PluginError: A component cannot be built.
        WalkbackError: Training diverged, or a file could not be written.
        Interrupted: Ctrl-C, where `out` keeps a checkpoint to go on from; else KeyboardInterrupt.
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
    """Measure how fast a configuration trains and samples here, and which switches pay, as `walkback bench` does.

    Args:
        operator: This and the following up to `settings`: what is measured, as in `train`; copies of it train.
        data: See `train`.
        schedule: See `train`.
        prior: See `train`.
        process: See `train`.
        objective: See `train`.
        recipe: See `train`.
        steps: Walks of the run whose time is estimated.
        batch_size: Walks side by side.
        seed: Of everything random.
        device: Where to compute.
        precision: Of the network.
        settings: See `train`.
        repeats: Times that everything is measured.
        compare: Whether other updates and the other precision are measured too.
        progress: Show a bar in terminals and notebooks.

    Raises:
        ConfigurationError: The request is wrong.
        DataError: The data cannot be had.
        PluginError: A component cannot be built.
        WalkbackError: The configuration cannot train: its loss is not finite.
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
    """Parts that are names or instances, in the order of `PARTS`, and settings, as jobs take them."""
    given = dict(zip(PARTS, parts, strict=True))
    given["data"] = data_source(given["data"])
    chosen = {section: split_choice(section, part, _BASES[section]) for section, part in given.items()}
    names = {section: name for section, (name, _) in chosen.items()}
    instances = Instances(**{section: instance for section, (_, instance) in chosen.items()})
    by_name = {**flags, **names, "recipe": None if recipe is None else os.fspath(recipe)}
    return choices_of(by_name, assignments(settings or {}), instances)
