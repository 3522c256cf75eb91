"""Evaluate a checkpoint; the report carries its protocol.

heated examples → figures and series      simulated ones → bracket      data and samples → comparisons
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.data import Dataset
from walkback.errors import ConfigurationError
from walkback.measuring.bound import NO_BOUND
from walkback.measuring.comparison import comparison_figures
from walkback.measuring.likelihood_report import (
    bracket_figures,
    likelihood_figures,
    likelihood_series,
    tail_figures,
    warnings_of,
)
from walkback.measuring.path_works import EvaluationPlan, HeatedExamples, bracket_simulated, heat_data
from walkback.measuring.verdict import outdone
from walkback.processes import without_bound
from walkback.report import Figure, Report
from walkback.schedules import Levels
from walkback.storage.work_cache import WorkCache
from walkback.support.extras import MissingLibraryError
from walkback.support.memory import within_memory
from walkback.support.watch import Watch
from walkback.support.world import World


def evaluate_model(
    loaded: LoadedModel,
    dataset: Dataset,
    plan: EvaluationPlan,
    levels: Levels,
    protocol: Mapping[str, Any],
    cache: WorkCache,
    watch: Watch,
    world: World | None = None,
) -> Report:
    """Measure likelihood, bracket, baselines and sample quality of a model.

    Args:
        loaded: The model.
        dataset: A prepared dataset that is comparable with the training data.
        plan: The plan.
        levels: Levels of the heating paths.
        protocol: Protocol of the report.
        cache: Stores finished batches, so that an interrupted evaluation can be resumed.
        watch: Receives progress.
        world: The place of this process among those that divide the examples; only the first one makes comparisons.

    Raises:
        WalkbackError: A figure would be wrong: works are not finite, states are clipped, or there are too few examples.
    """
    model, device = loaded.model, loaded.device
    limit = within_memory(
        f"evaluating {plan.batch_size} examples at a time", "lower the batch size (--batch-size)"
    )
    if without_bound(model.process):
        with limit, loaded.computing():
            compared, lost = comparison_figures(model, levels, dataset, plan, device, watch, world)
        return _without_bound(compared, (*_remarks(plan, dataset), *lost), protocol)
    with limit, loaded.computing():
        heated = heat_data(model, dataset, plan, levels, device, cache, watch)
        figures = likelihood_figures(heated, dataset.info)
        tails, k, missing = _tails(heated)
        simulated = None
        if plan.simulated:
            simulated = bracket_simulated(model, dataset.info, plan, levels, device, cache, watch)
            tails = [*tails, *bracket_figures(simulated, dataset.info)]
        compared, lost = comparison_figures(model, levels, dataset, plan, device, watch, world)
    return Report(
        name="evaluate",
        headline="bound",
        figures=(*figures, *tails, *compared),
        series=tuple(likelihood_series(heated, levels, simulated, dataset.info)),
        warnings=(
            *_remarks(plan, dataset),
            *outdone((*figures, *compared), dataset.info),
            *(warnings_of(heated.work, k) if heated.whole else ()),
            *missing,
            *lost,
        ),
        protocol=protocol,
    )


def _without_bound(
    compared: tuple[Figure, ...], remarks: tuple[str, ...], protocol: Mapping[str, Any]
) -> Report:
    """Return the report of a model whose process has no bound: comparisons alone."""
    if not compared:
        raise ConfigurationError(NO_BOUND)
    names = [figure.name for figure in compared]
    return Report(
        name="evaluate",
        headline="sliced_wasserstein" if "sliced_wasserstein" in names else names[0],
        figures=compared,
        warnings=(NO_BOUND, *remarks),
        protocol=protocol,
    )


def _remarks(plan: EvaluationPlan, dataset: Dataset) -> tuple[str, ...]:
    """Say in which units samples are compared with data."""
    if not plan.samples or dataset.info.standardized is None:
        return ()
    return (
        "Samples are compared with data as standardized states: distances are in deviations of a column.",
    )


def _tails(heated: HeatedExamples) -> tuple[list[Figure], Tensor | None, list[str]]:
    """Return figures of Pareto's k, k of each example, and a warning if the library that fits it is not installed."""
    if heated.work.shape[1] == 1 or not heated.whole:
        return [], None, []
    try:
        return *tail_figures(heated.work), []
    except MissingLibraryError as error:
        return [], None, [f"no Pareto's k: {error}"]


def plan_facts(plan: EvaluationPlan, levels: Levels, dataset: Dataset) -> dict[str, Any]:
    """Return the plan's entries in the protocol of a report, in plain JSON types."""
    return {
        "split": plan.split,
        "examples": min(plan.limit, len(dataset.examples(plan.split))),
        "paths": plan.paths,
        "simulated": plan.simulated,
        "samples": plan.samples,
        **({"readout": plan.readout} if plan.samples else {}),
        "levels": len(levels),
        **({} if plan.levels_per_path is None else {"levels_per_path": plan.levels_per_path}),
        "max_temperature": float(levels[-1].temperature),
        "batch_size": plan.batch_size,
    }
