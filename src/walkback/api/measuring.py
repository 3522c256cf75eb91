"""`evaluate` and `diagnose`: reports of a model, with the figures of the commands of these names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from walkback.api.inputs import at_least, installed, progress_bar, split_choice
from walkback.api.models import comparable_data, loaded_of, stamp_of, trained_of
from walkback.api.records import Trained
from walkback.building.devices import Precision
from walkback.data import SPLITS, Dataset, Split
from walkback.diagnostics import Diagnostic
from walkback.errors import ConfigurationError
from walkback.measuring.diagnose import build_diagnostic, diagnose_model
from walkback.measuring.evaluate import evaluate_model
from walkback.measuring.path_works import EvaluationPlan
from walkback.report import Report
from walkback.support.readouts import Readout


def evaluate(
    model: Trained | str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | Dataset | Tensor | None = None,
    settings: Mapping[str, Any] | None = None,
    split: Split = "test",
    limit: int = 1000,
    paths: int = 32,
    simulated: int = 100,
    samples: int = 0,
    readout: Readout = "state",
    classifier: bool = False,
    baselines: bool = True,
    steps: int | None = None,
    batch_size: int = 250,
    keep: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    progress: bool = True,
) -> Report:
    """Bound and importance-sampled likelihood of held-out data, in nats and bits/dim, with standard errors.

    The figures are those of `walkback evaluate` (docs/measuring.md).

    Args:
        model: From `train` or `load`, or a checkpoint file.
        data: Name, path, hub id, instance or tensor `(N, *E)` of the model's shape; None takes the training's.
        settings: Options of data given by name.
        split: Of the data.
        limit: Number of examples: the first ones of the split.
        paths: Heating paths of each example.
        simulated: Samples of the model whose likelihood is bracketed; 0: none.
        samples: Samples compared with the data by distances and coverage; 0: none.
        readout: What is compared of a sample: its state, or "mean", that of a step from it (`walkback.readout`).
        classifier: Whether to train a classifier on the data's labels, and to compare samples by its features too.
        baselines: Whether to judge simple models on the same examples.
        steps: Number of levels; None takes those of the schedule.
        batch_size: Examples computed at a time.
        keep: Directory that keeps finished batches, to go on from.
        seed: Of all randomness.
        device: Where to compute with a checkpoint file.
        precision: Of the networks; "auto" is fp32 here.
        progress: Show a bar in terminals and notebooks.

    Raises:
        ConfigurationError: The request is wrong, or the data are not comparable.
        CheckpointError: The file is no usable checkpoint.
        DataError: The data cannot be had.
        WalkbackError: A figure would be wrong.
    """
    at_least(1, limit=limit, paths=paths, steps=steps, batch_size=batch_size)
    at_least(0, simulated=simulated, samples=samples, seed=seed)
    if split not in SPLITS:
        raise ConfigurationError(f"Got split = {split!r}, expected one of {', '.join(SPLITS)}.")
    if classifier and not samples:
        raise ConfigurationError("Got classifier=True without samples, expected samples to compare.")
    trained = trained_of(model, device)
    dataset = comparable_data(trained, data, settings or {})
    plan = EvaluationPlan(
        split, limit, paths, simulated, baselines, samples, classifier, steps, batch_size, seed, readout
    )
    chosen = _precision(precision)
    with progress_bar(progress) as bar:
        return evaluate_model(
            loaded_of(trained),
            dataset,
            plan,
            stamp_of(trained, chosen, seed),
            device=trained.device,
            precision=chosen,
            directory=None if keep is None else Path(keep),
            watch=bar,
        )


def diagnose(
    diagnostic: str | Diagnostic,
    model: Trained | str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | Dataset | Tensor | None = None,
    settings: Mapping[str, Any] | None = None,
    keep: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    progress: bool = True,
    **options: Any,
) -> Report:
    """Measure how a trained operator's chain behaves, with standard errors; the figures of `walkback diagnose`.

    Args:
        diagnostic: Name ("reversibility", "mixing", …) or instance.
        model: From `train` or `load`, or a checkpoint file.
        data: Data to compare with, see `evaluate`.
        settings: Options whose names are taken here: `{"data": False}` is the diagnostic's option `data`, and
            `{"data.size": 32}` an option of data given by name.
        keep: Directory that keeps finished pieces, to go on from.
        seed: Of all randomness.
        device: Where to compute with a checkpoint file.
        precision: Of the networks; "auto" is fp32 here.
        progress: Show a bar in terminals and notebooks.
        options: Options of a diagnostic given by name.

    Raises:
        ConfigurationError: The request is wrong, or the data are not comparable.
        CheckpointError: The file is no usable checkpoint.
        DataError: The data cannot be had.
        PluginError: The diagnostic is at fault.
        WalkbackError: It refuses to give a figure.
    """
    at_least(0, seed=seed)
    of_data = {name: value for name, value in (settings or {}).items() if name.startswith("data.")}
    own = options | {name: value for name, value in (settings or {}).items() if name not in of_data}
    built, table = _built(diagnostic, own)
    trained, chosen = trained_of(model, device), _precision(precision)
    if of_data and (data is None or not isinstance(data, str | os.PathLike)):
        raise ConfigurationError(
            f"Got the setting {next(iter(of_data))!r} for data that are not given by name, expected data=NAME."
        )
    with progress_bar(progress) as bar:
        return diagnose_model(
            loaded_of(trained),
            built,
            table,
            stamp_of(trained, chosen, seed),
            partial(comparable_data, trained, data, of_data),
            source=os.fspath(data) if isinstance(data, str | os.PathLike) else None,
            device=trained.device,
            precision=chosen,
            seed=seed,
            directory=None if keep is None else Path(keep),
            watch=bar,
        )


def _built(diagnostic: str | Diagnostic, options: dict[str, Any]) -> tuple[Diagnostic, dict[str, Any]]:
    """A diagnostic, and what the protocol says of it."""
    name, instance = split_choice("diagnostic", diagnostic, (Diagnostic,))
    if name is not None:
        return build_diagnostic(installed(), name, options)
    if instance is None:
        raise ConfigurationError("Got no diagnostic, expected a name or an instance of Diagnostic.")
    if options:
        raise ConfigurationError(
            f"Got the option {next(iter(options))!r} with an instance, expected a name: set it in the instance."
        )
    return instance, {"name": type(instance).__qualname__}


def _precision(name: Literal["auto", "fp32", "bf16"]) -> Precision:
    """Densities are sums of thousands of terms: bf16 networks are an approximation that must be asked for."""
    return "fp32" if name == "auto" else name
