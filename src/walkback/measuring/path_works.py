"""Evaluation of a checkpoint: heat held-out examples many times, bracket simulated ones, compare with simple models.

    data → heated: W (N, P), Δ_t (N, K) → bound, IS-NLL, sample sizes, gap by level
    prior → cooled s_0 → heated again   → bracket of E[-log p(s_0)]
    training and held-out data          → baselines

The works of a batch are one entry of the work cache, so finished batches are never recomputed, and several processes
divide them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from walkback.data import DataInfo, Dataset, Split, batch_of, draw_labels
from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring.bound import heat, in_units
from walkback.measuring.work import PathWork, cooling_work, reheating_work
from walkback.model import Model
from walkback.schedules import Levels
from walkback.state import leaves
from walkback.storage.work_cache import WorkCache
from walkback.support.readouts import Readout
from walkback.support.seeding import generator
from walkback.support.watch import Silent, Watch


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """An evaluation plan.

    Attributes:
        split: Split to evaluate on.
        limit: Number of examples, the first ones of the split; all of them if the split has fewer.
        paths: Number P of heating paths per example.
        simulated: Number of examples to draw from the model for the bracket; 0 omits it.
        baselines: Whether to evaluate simple models on the same examples.
        samples: Number of samples to compare with the data; 0 omits the comparison.
        readout: How samples are shown before the comparison, see `walkback.sampling.readout`.
        classifier: Whether to train a classifier on the data's labels, for figures based on its features.
        levels: Number of levels; None takes the schedule's.
        levels_per_path: Number of levels that each path visits, see `walkback.measuring.some_levels`; None: all.
        batch_size: Number of examples heated at a time; each batch has its own stream of noise.
        seed: Seed from which all randomness is derived.
    """

    split: Split = "test"
    limit: int = 1000
    paths: int = 32
    simulated: int = 100
    baselines: bool = True
    samples: int = 0
    classifier: bool = False
    levels: int | None = None
    batch_size: int = 250
    seed: int = 0
    readout: Readout = "state"
    levels_per_path: int | None = None


@dataclass(frozen=True, slots=True)
class HeatedExamples:
    """Works of N examples, P paths each, in nats, float64, on the CPU.

    Attributes:
        work: `(N, P)`.
        production: The terms of the bound averaged over paths, `(N, K)`, coldest level first.
        cooling: Work of the cooling path that ended in each example, `(N,)`; None for data.
        exact: Works with exact terms, `(N, P)`, see `PathWork.terms`; None if they are not known.
        whole: Whether paths visit all levels; else `work` estimates the bound only.
    """

    work: Tensor
    production: Tensor
    cooling: Tensor | None = None
    exact: Tensor | None = None
    whole: bool = True

    @property
    def bound(self) -> Tensor:
        """Works whose mean is the bound, `(N, P)`: with exact terms where they are known."""
        return self.work if self.exact is None else self.exact


def heat_data(
    model: Model,
    dataset: Dataset,
    plan: EvaluationPlan,
    levels: Levels,
    device: torch.device,
    cache: WorkCache,
    watch: Watch | None = None,
) -> HeatedExamples:
    """Heat the examples of the plan.

    Raises:
        ConfigurationError: The split has no examples.
        WalkbackError: A work is not finite, or states are clipped.
    """
    num = min(plan.limit, len(dataset.examples(plan.split)))
    if not num:
        raise ConfigurationError(
            f"The {plan.split} split of {dataset.info.name} has no examples: choose another split."
        )

    def one_batch(number: int, size: int) -> Iterator[PathWork]:
        first = number * plan.batch_size
        # One stream per batch, so a batch that is read from the cache does not change the noise of the others.
        noise = generator(device, plan.seed, "evaluate", number)
        data = batch_of(dataset, plan.split, slice(first, first + size), noise)
        return heat(model, data, dataset.info, levels, noise, plan.paths, plan.levels_per_path)

    return _in_batches("Heating", num, plan, cache, watch or Silent(), one_batch)


def bracket_simulated(
    model: Model,
    info: DataInfo,
    plan: EvaluationPlan,
    levels: Levels,
    device: torch.device,
    cache: WorkCache,
    watch: Watch | None = None,
) -> HeatedExamples:
    """Cool examples from the prior and heat them again, with the work of both directions; raises as `heat_data`."""

    def one_batch(number: int, num: int) -> Iterator[PathWork]:
        noise = generator(device, plan.seed, "simulate", number)
        context = draw_labels(info, num, noise)
        state, cooled = cooling_work(model, num, levels, noise, context)
        values = leaves(state)[0]
        yield in_units(cooled, values, info)
        for _ in range(plan.paths):
            yield in_units(reheating_work(model, state, levels, noise, context), values, info)

    return _in_batches(
        "Simulating", plan.simulated, plan, cache, watch or Silent(), one_batch, cooled_first=True
    )


def _in_batches(
    stage: str,
    num: int,
    plan: EvaluationPlan,
    cache: WorkCache,
    watch: Watch,
    works_of: Callable[[int, int], Iterator[PathWork]],
    *,
    cooled_first: bool = False,
) -> HeatedExamples:
    """Compute or read from the cache all batches of a stage; with `cooled_first`, the first path of each cools."""
    count = -(-num // plan.batch_size)
    each = plan.paths + cooled_first
    watch.stage(stage, num * each)

    def compute(number: int) -> dict[str, Tensor]:
        size = min(plan.batch_size, num - number * plan.batch_size)
        works, bounds, production = [], [], None
        for path in works_of(number, size):
            # Float64 before averaging: exp(-W) weighs works that differ by hundreds of nats.
            works.append(path.work.double().cpu())
            bounds.append(path.bound.work.double().cpu())
            if len(works) > cooled_first:
                found = path.bound.production.double().cpu()
                production = found if production is None else production + found
            watch.advance(number * plan.batch_size * each + size * len(works), {})
        if production is None:
            raise ConfigurationError("Got --paths 0, expected at least 1.")
        part = {
            "work": torch.stack(works, 1),
            "bound": torch.stack(bounds, 1),
            "production": production / plan.paths,
        }
        _require_finite(part, stage)
        return part

    parts = []
    for part in cache.pieces([f"{stage.lower()}-{number}" for number in range(count)], compute):
        parts.append(part)
        watch.advance(min(num, len(parts) * plan.batch_size) * each, {})
    work = torch.cat([part["work"] for part in parts])
    bound = torch.cat([part.get("bound", part["work"]) for part in parts])
    production = torch.cat([part["production"] for part in parts])
    cooling = work[:, 0] if cooled_first else None
    whole = plan.levels_per_path is None
    return HeatedExamples(work[:, cooled_first:], production, cooling, bound[:, cooled_first:], whole)


def _require_finite(part: dict[str, Tensor], stage: str) -> None:
    bad = ~torch.cat([part["work"], part["production"]], 1).isfinite().all(1)
    if bool(bad.any()):
        raise WalkbackError(
            f"The work of a path is not finite for {int(bad.sum())} of {len(bad)} examples ({stage.lower()}): a kernel "
            "has no density (variance 0, or a bit of probability 0 or 1), the prior excludes a state, or the network "
            "returns NaN."
        )
