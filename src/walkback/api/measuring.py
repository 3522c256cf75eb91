"""`evaluate` and `diagnose`: reports of a model, with the figures of the commands of these names."""

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
    batch_size: int = 250,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: bool = True,
    steps: int | None = None,
    keep: str | os.PathLike[str] | None = None,
) -> Report:
    """Bound and importance-sampled likelihood of held-out data, in nats and bits/dim, with standard errors.

    The figures are those of `walkback evaluate` (docs/measuring.md).

    Args:
        model: From `train` or `load`, a checkpoint file, or the directory of a run.
        data: Name, path, hub id, instance or tensor `(N, *E)` of the model's shape; None takes the training's.
        settings: Options of data given by name.
        trust_data: Whether the data that the checkpoint names may be read and fetched, wherever the file comes from.
        split: Of the data.
        limit: Number of examples: the first ones of the split.
        paths: Heating paths of each example.
        simulated: Samples of the model whose likelihood is bracketed; 0: none.
        samples: Samples compared with the data by distances and coverage; 0: none.
        readout: What is compared of a sample: its state, or "mean", that of a step from it
                (`walkback.sampling.readout`).
        classifier: Whether to train a classifier on the data's labels, and to compare samples by its features too.
        baselines: Whether to judge simple models on the same examples.
        levels: Number of annealing levels; None takes those of the schedule.
        batch_size: Examples computed at a time.
        cache: Directory that keeps finished batches, to go on from.
        seed: Of all randomness.
        device: Where to compute with a checkpoint file.
        precision: Of the networks; "auto" is fp32 here.
        progress: Show a bar in terminals and notebooks.
        steps: The old name of `levels`.
        keep: The old name of `cache`.

    Raises:
        ConfigurationError: The request is wrong, or the data are not comparable.
        CheckpointError: The file is no usable checkpoint.
        DataError: The data cannot be had.
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
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: bool = True,
    keep: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Report:
    """Measure how a trained operator's chain behaves, with standard errors; the figures of `walkback diagnose`.

    Args:
        diagnostic: Name ("reversibility", "mixing", …) or instance.
        model: From `train`, `chain` or `load`, a checkpoint file, or the directory of a run. Or recorded chains for
            mixing and stationarity: an array or tensor `(chains, draws, …)`, a chain from `sample`, a `.npz` or `.npy`
            file, or an InferenceData or DataTree of ArviZ, whose posterior is measured.
        data: Data to compare with, see `evaluate`.
        settings: Options whose names are taken here: `{"data": False}` is the diagnostic's option `data`, and
            `{"data.size": 32}` an option of data given by name.
        trust_data: Whether the data that the checkpoint names may be read and fetched, wherever the file comes from.
        cache: Directory that keeps finished pieces, to go on from.
        seed: Of all randomness.
        device: Where to compute with a checkpoint file.
        precision: Of the networks; "auto" is fp32 here.
        progress: Show a bar in terminals and notebooks.
        keep: The old name of `cache`.
        options: Options of a diagnostic given by name.

    Raises:
        ConfigurationError: The request is wrong, or the data are not comparable.
        CheckpointError: The file is no usable checkpoint.
        DataError: The data cannot be had.
        PluginError: The diagnostic is at fault.
        WalkbackError: It refuses to give a figure.
    """
    name, instance = split_choice("diagnostic", diagnostic, (Diagnostic,))
    if name is None and instance is None:
        raise ConfigurationError("No diagnostic was given: give a name or an instance of Diagnostic.")
    of_data = {name: value for name, value in (settings or {}).items() if name.startswith("data.")}
    own = {name: value for name, value in (settings or {}).items() if name not in of_data}
    source: Any = model
    recording = _recording(source)
    if recording is not None:
        return carry_out(TraceJob(name or instance, recording, options=options | own), progress).report
    job = DiagnoseJob(
        diagnostic=name or instance,
        model=model_request(source, device, precision),
        options=options | own,
        data=data_request(data, of_data, trust_data),
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
