"""`train`: what `walkback run` does, from Python; parts may be instances instead of names.

names, instances → RunConfig, Given → prepare → Run → Trained
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from torch import Tensor

from walkback.api.inputs import as_dataset, installed, progress_bar, split_choice
from walkback.api.records import Trained
from walkback.configuration.config import COMPONENT_SECTIONS, RunConfig
from walkback.configuration.layering import resolve
from walkback.configuration.overrides import assignments
from walkback.configuration.recipes import starting_layer
from walkback.configuration.schema import component_options
from walkback.data import Dataset
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.objectives import AnyObjective, Objective, PathObjective
from walkback.operators import TransitionOperator
from walkback.priors import Prior
from walkback.processes import Process
from walkback.schedules import Schedule
from walkback.storage.checkpoint import load_checkpoint
from walkback.storage.rundir import RunDirectory, require_free
from walkback.support.interrupts import Stop, stoppable
from walkback.support.threads import cpu_threads
from walkback.training.metrics_file import FILE_NAME
from walkback.training.preparation import Given, Prepared, prepare
from walkback.training.run import Run, RunResult


def train(
    operator: str | TransitionOperator | None = None,
    *,
    data: str | os.PathLike[str] | Dataset | Tensor | None = None,
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
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    out: str | os.PathLike[str] | None = None,
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
        data: Name, path, hub id or instance; or a tensor `(N, *E)` of floats, of bool (binary states) or of uint8
            (256 grey levels), of which a tenth is held out for validation and a tenth for test.
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
    dataset = as_dataset(data)
    source = None if data is None or dataset is not None else str(data)
    parts: dict[str, tuple[str | None, Any]] = {
        "operator": split_choice("operator", operator, (TransitionOperator,)),
        "schedule": split_choice("schedule", schedule, (Schedule,)),
        "prior": split_choice("prior", prior, (Prior,)),
        "process": split_choice("process", process, (Process,)),
        "objective": split_choice("objective", objective, (Objective, PathObjective)),
        "data": (source, dataset),
    }
    names = {section: name for section, (name, _) in parts.items()}
    given = Given(**{section: part for section, (_, part) in parts.items()})
    flags = {
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.lr": lr,
        "run.seed": seed,
        "run.device": device,
        "run.precision": precision,
    }
    chosen = {name: value for name, value in flags.items() if value is not None} | dict(settings or {})
    target = None if out is None else Path(out)
    _refuse(given, chosen, target)
    registry = installed()
    base = None if recipe is None else os.fspath(recipe)
    names |= _stand_ins(registry, base, given)
    config = resolve(registry, recipe=base, components=names, overrides=assignments(chosen))
    if config.run.nproc > 1:
        raise ConfigurationError(
            f"Got run.nproc = {config.run.nproc}, expected 1: several processes train by `walkback run`."
        )
    with cpu_threads(config.run.threads):
        return _train(config, registry, _copied(given), target, progress)


def _refuse(given: Given, settings: Mapping[str, Any], out: Path | None) -> None:
    """Raise ConfigurationError for what instances cannot have, and for a run directory that is not free."""
    for name in settings:
        section = name.partition(".")[0]
        if section in given.sections:
            raise ConfigurationError(
                f"Got the setting {name!r} and an instance as {section}, expected one of them: set it in the instance."
            )
    if out is None:
        return
    if given.sections:
        raise ConfigurationError(
            f"Got out={str(out)!r} and an instance as {sorted(given.sections)[0]}, expected names, which a run "
            "directory is built from when it is resumed: leave out `out`."
        )
    require_free(out)


def _stand_ins(registry: Registry, recipe: str | None, given: Given) -> dict[str, str]:
    """Names that the configuration is resolved with for parts that are instances; they are not built."""
    found = {}
    base, default = starting_layer(registry, recipe, ()), starting_layer(registry, None, ())
    for section in given.sections:
        own = _component_of(registry, section, type(getattr(given, section)))
        if own is not None:
            found[section] = own
        elif recipe is None or "name" not in base.tables.get(section, {}):
            name = default.tables.get(section, {}).get("name")
            if isinstance(name, str):
                found[section] = name if ":" in name else f"{default.distribution}:{name}"
    return found


def _component_of(registry: Registry, section: str, cls: type) -> str | None:
    """The component whose class this is, if one is offered that can stand without options."""
    for registered in registry.components(COMPONENT_SECTIONS[section]):
        if registered.spec.target == f"{cls.__module__}:{cls.__qualname__}":
            options, preset = component_options(cls).model_fields.items(), registered.spec.preset
            open_options = [name for name, option in options if option.is_required() and name not in preset]
            return None if open_options else registered.qualified_name
    return None


def _copied(given: Given) -> Given:
    """The same with copies of what training changes.

    Raises:
        ConfigurationError: The operator has nothing to learn.
    """
    parts = {field.name: getattr(given, field.name) for field in fields(given)}
    operator = given.operator
    if operator is not None and not any(weight.requires_grad for weight in operator.parameters()):
        raise ConfigurationError(
            "Got an operator without weights to learn, expected some that require gradients: call requires_grad_(True)."
        )
    return Given(**parts | {"operator": deepcopy(operator), "prior": deepcopy(given.prior)})


def _train(config: RunConfig, registry: Registry, given: Given, out: Path | None, progress: bool) -> Trained:
    prepared = prepare(config, registry, given=given)
    with progress_bar(progress) as bar:
        if out is None:
            with (
                TemporaryDirectory(prefix="walkback-") as place,
                RunDirectory.create(Path(place)) as directory,
            ):
                run = Run(prepared, directory, bar, Stop(), lasting=False)
                return _trained(prepared, run, run.execute(), None)
        with RunDirectory.create(out) as directory, stoppable() as stop:
            run = Run(prepared, directory, bar, stop)
            return _trained(prepared, run, run.execute(), out)


def _trained(prepared: Prepared, run: Run, result: RunResult | None, directory: Path | None) -> Trained:
    """The record of a finished run, all of it in memory."""
    if result is None:
        raise ConfigurationError("Got a process that does not write, expected one alone.")
    model = run.model
    model.operator.eval().requires_grad_(False)
    lines = (result.directory / FILE_NAME).read_text("utf-8").splitlines()
    return Trained(
        model=model,
        info=prepared.dataset.info,
        checkpoint=load_checkpoint(result.checkpoint),
        device=prepared.device,
        name=result.checkpoint.name,
        dataset=prepared.dataset,
        directory=directory,
        history=tuple(json.loads(line) for line in lines),
        bound=result.bound,
    )
