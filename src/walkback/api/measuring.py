"""`evaluate` and `diagnose`: reports on a model, with the figures of the commands of the same names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from walkback.api.inputs import (
    Data,
    carry_out,
    data_request,
    model_request,
    path_or_none,
    renamed,
    split_choice,
)
from walkback.api.records import Samples, Trained
from walkback.data import Split
from walkback.diagnostics import Diagnostic
from walkback.errors import ConfigurationError
from walkback.jobs.diagnose import DiagnoseJob
from walkback.jobs.evaluate import EvaluateJob
from walkback.jobs.inputs import PrecisionName
from walkback.jobs.trace import TraceJob
from walkback.measuring.path_works import EvaluationPlan
from walkback.measuring.recordings import ENDINGS, Recording, recording_of
from walkback.report import Report
from walkback.support.readouts import Readout


def evaluate(
    model: Trained | str | os.PathLike[str],
    *,
    data: Data | None = None,
    settings: Mapping[str, Any] | None = None,
    trust_data: bool = False,
    split: Split = "test",
    limit: int = 1000,
    paths: int = 32,
    simulated: int = 100,
    samples: int = 0,
    readout: Readout = "state",
    classifier: bool = False,
    baselines: bool = True,
    levels: int | None = None,
    levels_per_path: int | None = None,
    batch_size: int = 250,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: bool = True,
    steps: int | None = None,
    keep: str | os.PathLike[str] | None = None,
) -> Report:
    """Estimate the likelihood of held-out data: bound and importance sampling, in nats and bits/dim, with errors.

    The figures are those of `walkback evaluate` (docs/measuring.md).

    Args:
        model: Result of `train` or `load`, a checkpoint file, or the directory of a run.
        data: Name, path, hub id, instance or tensor `(N, *E)` of the model's shape; None takes the training data.
        settings: Options of data given by name.
        trust_data: Whether the data named by the checkpoint may be read and downloaded, even if the file is not yours.
        split: Split of the data.
        limit: Maximum number of examples, from the start of the split.
        paths: Number of heating paths per example.
        simulated: Number of samples of the model whose likelihood is bracketed; 0 omits the bracket.
        samples: Number of samples to compare with the data by distances and coverage; 0 omits the comparison.
        readout: How samples are shown before the comparison: "state", or "mean" for the mean of a step from the state
            (`walkback.sampling.readout`).
        classifier: Whether to train a classifier on the data's labels, and also compare its features of samples.
        baselines: Whether to evaluate simple models on the same examples.
        levels: Number of annealing levels; None takes those of the schedule.
        levels_per_path: Number of levels that each path visits, for diffusion processes of many levels: bound only.
        batch_size: Number of examples computed at a time.
        cache: Directory of finished batches, to resume from.
        seed: Seed of all randomness.
        device: Device to compute on, for a checkpoint file.
        precision: Precision of the networks; "auto" means fp32.
        progress: Whether to show a bar in terminals and notebooks.
        steps: Old name of `levels`.
        keep: Old name of `cache`.

    Returns:
        The report, with its protocol.

    Raises:
        ConfigurationError: The request is invalid, or the data are not comparable.
        CheckpointError: The file is not a usable checkpoint.
        DataError: The data cannot be read or downloaded.
        WalkbackError: A figure would be wrong.
    """
    job = EvaluateJob(
        model=model_request(model, device, precision),
        data=data_request(data, settings, trust_data),
        plan=EvaluationPlan(
            split=split,
            limit=limit,
            paths=paths,
            simulated=simulated,
            baselines=baselines,
            samples=samples,
            classifier=classifier,
            levels=renamed("steps", steps, "levels", levels),
            batch_size=batch_size,
            seed=seed,
            readout=readout,
            levels_per_path=levels_per_path,
        ),
        cache=renamed("keep", path_or_none(keep), "cache", path_or_none(cache)),
    )
    return carry_out(job, progress)


def diagnose(
    diagnostic: str | Diagnostic,
    model: Trained | Samples | Tensor | npt.NDArray[Any] | str | os.PathLike[str],
    *,
    data: Data | None = None,
    settings: Mapping[str, Any] | None = None,
    trust_data: bool = False,
    excursion: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: bool = True,
    keep: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Report:
    """Run a diagnostic on a trained operator; the figures, with standard errors, are those of `walkback diagnose`.

    Args:
        diagnostic: Name ("reversibility", "mixing", …) or instance.
        model: Result of `train`, `chain` or `load`, a checkpoint file, or the directory of a run. For mixing and
            stationarity also recorded chains: an array or tensor `(chains, draws, …)`, a chain from `sample`, a `.npz`
            or `.npy` file, or an InferenceData or DataTree of ArviZ, whose posterior is measured.
        data: Data to compare with, see `evaluate`.
        settings: Options that collide with arguments of this function: `{"data": False}` is the diagnostic's option
            `data`, and `{"data.size": 32}` is an option of data given by name.
        trust_data: Whether the data named by the checkpoint may be read and downloaded, even if the file is not yours.
        excursion: Levels that each step of a chain heats and cools back (`walkback.sampling.excursions`); None measures
            single steps.
        cache: Directory of finished parts, to resume from.
        seed: Seed of all randomness.
        device: Device to compute on, for a checkpoint file.
        precision: Precision of the networks; "auto" means fp32.
        progress: Whether to show a bar in terminals and notebooks.
        keep: Old name of `cache`.
        options: Options of a diagnostic given by name.

    Returns:
        The report, with its protocol.

    Raises:
        ConfigurationError: The request is invalid, or the data are not comparable.
        CheckpointError: The file is not a usable checkpoint.
        DataError: The data cannot be read or downloaded.
        PluginError: The diagnostic is broken.
        WalkbackError: The diagnostic refuses to return a figure.
    """
    name, instance = split_choice("diagnostic", diagnostic, (Diagnostic,))
    if name is None and instance is None:
        raise ConfigurationError("Got no diagnostic, expected a name or an instance of Diagnostic.")
    of_data = {name: value for name, value in (settings or {}).items() if name.startswith("data.")}
    own = {name: value for name, value in (settings or {}).items() if name not in of_data}
    source: Any = model
    recording = _recording(source)
    if recording is not None:
        if excursion is not None:
            raise ConfigurationError(
                f"Got excursion = {excursion} beside a trace, whose steps are taken already: leave it out."
            )
        return carry_out(TraceJob(name or instance, recording, options=options | own), progress).report
    job = DiagnoseJob(
        diagnostic=name or instance,
        model=model_request(source, device, precision),
        options=options | own,
        data=data_request(data, of_data, trust_data),
        excursion=excursion,
        cache=renamed("keep", path_or_none(keep), "cache", path_or_none(cache)),
        seed=seed,
    )
    return carry_out(job, progress).report


def _recording(model: object) -> Path | Recording | None:
    """Recorded chains; None if it is a model."""
    if isinstance(model, Samples):
        return recording_of(model.frames.swapaxes(0, 1), "samples")
    if isinstance(model, Tensor | np.ndarray) or hasattr(model, "posterior") or hasattr(model, "children"):
        return recording_of(model)
    if isinstance(model, str | os.PathLike) and os.fspath(model).lower().endswith(ENDINGS):
        return Path(model)
    return None
