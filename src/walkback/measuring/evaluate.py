"""The evaluation of a checkpoint, as a report stamped with its protocol.

heated examples → figures and series      simulated ones → bracket      data and samples → comparisons
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.building.devices import Precision, autocast
from walkback.data import Dataset
from walkback.measuring.comparison import comparison_figures
from walkback.measuring.likelihood_report import (
    bracket_figures,
    likelihood_figures,
    likelihood_series,
    tail_figures,
    warnings_of,
)
from walkback.measuring.path_works import EvaluationPlan, bracket_simulated, heat_data
from walkback.measuring.provenance import data_protocol
from walkback.readout import require_readout
from walkback.report import Figure, Report
from walkback.schedules import Levels
from walkback.storage.work_cache import WorkCache
from walkback.support.extras import MissingLibraryError, require
from walkback.support.watch import Watch


def evaluate_model(
    loaded: LoadedModel,
    dataset: Dataset,
    plan: EvaluationPlan,
    protocol: Mapping[str, Any],
    *,
    device: torch.device,
    precision: Precision,
    directory: Path | None = None,
    watch: Watch,
) -> Report:
    """Likelihood, bracket, baselines and sample quality of a model.

    Args:
        loaded: The model, on `device`.
        dataset: See `evaluation_data`.
        plan: What to evaluate.
        protocol: See `protocol_of`.
        device: Where to compute.
        precision: Of the networks.
        directory: Keeps finished batches, so that an interrupted evaluation can go on; None keeps nothing.
        watch: Is told of progress.

    Raises:
        MissingLibraryError: Figures of samples were asked for, and the libraries for them are not installed.
        WalkbackError: A figure would be wrong: works that are not finite, clipped states, too few examples.
    """
    if plan.samples:
        require("geomloss", "eval")
    if plan.classifier:
        require("torchmetrics", "eval")
    model = loaded.model
    require_readout(model, plan.readout)
    levels = model.levels() if plan.steps is None else model.levels_of_length(plan.steps)
    stamp = {**protocol, **data_protocol(dataset.info), **_plan_protocol(plan, levels, dataset)}
    cache = WorkCache(directory, {**stamp, "device": str(device)})
    with model.evaluating(), autocast(device, precision):
        heated = heat_data(model, dataset, plan, levels, device, cache, watch)
        figures = likelihood_figures(heated, dataset.info)
        tails, k, missing = _tails(heated.work)
        simulated = None
        if plan.simulated:
            simulated = bracket_simulated(model, dataset.info, plan, levels, device, cache, watch)
            tails = [*tails, *bracket_figures(simulated, dataset.info)]
        compared, lost = comparison_figures(model, levels, dataset, plan, device, watch)
    return Report(
        name="evaluate",
        headline="bound",
        figures=(*figures, *tails, *compared),
        series=tuple(likelihood_series(heated, levels, simulated)),
        warnings=(*warnings_of(heated.work, k), *missing, *lost),
        protocol=stamp,
    )


def _tails(work: Tensor) -> tuple[list[Figure], Tensor | None, list[str]]:
    """Pareto's k as figures and of each example; and a warning where the library that fits it is not installed."""
    if work.shape[1] == 1:
        return [], None, []
    try:
        return *tail_figures(work), []
    except MissingLibraryError as error:
        return [], None, [f"no Pareto's k: {error}"]


def _plan_protocol(plan: EvaluationPlan, levels: Levels, dataset: Dataset) -> dict[str, Any]:
    return {
        "split": plan.split,
        "examples": min(plan.limit, len(dataset.examples(plan.split))),
        "paths": plan.paths,
        "simulated": plan.simulated,
        "samples": plan.samples,
        **({"readout": plan.readout} if plan.samples else {}),
        "levels": len(levels),
        "max_temperature": float(levels[-1].temperature),
        "batch_size": plan.batch_size,
    }
