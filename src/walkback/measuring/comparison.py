"""Comparisons in an evaluation: simple models on the same examples, and samples compared with data."""

from __future__ import annotations

import torch
from torch import Tensor

from walkback.data import Dataset, Split, context_of, states_of
from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring.baselines import baseline_figures
from walkback.measuring.path_works import EvaluationPlan
from walkback.measuring.quality.features import label_classifier
from walkback.measuring.quality.report import quality_figures
from walkback.model import Model
from walkback.report import Figure
from walkback.sampling import SamplePlan, sample_frames
from walkback.sampling.excursions import own_chain
from walkback.sampling.readout import read_out
from walkback.schedules import Levels
from walkback.state import Context
from walkback.support.seeding import generator
from walkback.support.watch import Watch
from walkback.support.world import World

_MOST = 10_000
"""Largest number of training examples used for baselines and sample quality."""


def comparison_figures(
    model: Model,
    levels: Levels,
    dataset: Dataset,
    plan: EvaluationPlan,
    device: torch.device,
    watch: Watch,
    world: World | None = None,
) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Return figures of the baselines and of sample quality that the plan asks for, and warnings about missing ones.

    The processes of a `world` divide the samples, and the first one compares them.
    """
    world = world or World()
    samples: Tensor | None = None
    if plan.samples:
        context = context_of(dataset, plan.split, slice(plan.samples), device)
        samples = _samples(model, levels, plan, device, watch, context, world)
    if not (world.is_main and (plan.baselines or plan.samples)):
        return (), ()
    lost: tuple[str, ...] = ()
    train = _states(dataset, "train", _MOST, plan.seed)
    found: tuple[Figure, ...] = ()
    if plan.baselines:
        watch.stage("Baselines", 1)
        test = _states(dataset, plan.split, plan.limit, plan.seed)
        try:
            found = baseline_figures(train, test, dataset.info, plan.seed)
        except WalkbackError as error:
            lost = (f"no baselines: {error}",)
        if found and dataset.info.classes:
            lost = (
                "the baselines are unconditional: their NLL is -log p(x), the model's is -log p(x | label).",
            )
        watch.advance(1, {})
    if samples is not None:
        real = _states(dataset, plan.split, plan.samples, plan.seed)
        watch.stage("Comparing", 1)
        judge = label_classifier(dataset, plan.seed) if plan.classifier else None
        found += quality_figures(samples, real, train, dataset.info, seed=plan.seed, classifier=judge)
        watch.advance(1, {})
    return found, lost


def _states(dataset: Dataset, split: Split, most: int, seed: int) -> Tensor:
    """Return states of the first `most` examples of a split (all if there are fewer), on the CPU."""
    return states_of(dataset, split, slice(most), generator("cpu", seed, f"evaluate-{split}"))


def _samples(
    model: Model,
    levels: Levels,
    plan: EvaluationPlan,
    device: torch.device,
    watch: Watch,
    context: Context,
    world: World,
) -> Tensor:
    """Draw annealed samples, on the CPU, with the class labels (if any) of the examples that they are compared with."""
    wanted = SamplePlan(num=plan.samples, seed=plan.seed, batch_size=plan.batch_size)
    watch.stage("Sampling", wanted.total_steps(levels))
    found: Tensor | None = None
    model = own_chain(model)
    for done, step, state in sample_frames(model, levels, wanted, device, None, context, world):
        watch.advance(done, {})
        if step is not None and state is not None:
            found = read_out(model.operator, state, plan.readout, context).float().cpu()
    if found is None:
        raise ConfigurationError(f"Got {plan.samples} samples to draw, expected at least 1.")
    return found
