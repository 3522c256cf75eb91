"""Sample quality along chains: annealed samples, and the same chains after given numbers of steps at T = 1.

    prior ──cool──► s after 0 steps ──chain──► s after n_1 steps ──► …      each compared with held-out data

States are entries of the work cache every 1,000 steps, so that an interrupted chain resumes from the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.data import Dataset, Split, context_of, states_of
from walkback.measuring.calls import counted_calls
from walkback.measuring.quality.features import Classifier
from walkback.measuring.quality.report import quality_figures
from walkback.report import Figure, Report
from walkback.sampling import anneal, chain, last
from walkback.sampling.excursions import own_chain
from walkback.sampling.finite import require_finite
from walkback.sampling.readout import read_out
from walkback.sampling.wrapped import single
from walkback.state import Context, State, leaves
from walkback.storage.work_cache import WorkCache
from walkback.support.memory import within_memory
from walkback.support.seeding import generator
from walkback.support.watch import Watch

_PIECE = 1000
"""Steps at T = 1 between two entries of the cache."""

_MOST_TRAINING = 10_000
"""Largest number of training examples used for the reference."""


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """A plan.

    Attributes:
        num: Number of chains, compared with as many held-out examples.
        steps: Numbers of steps at T = 1 after which the chains are compared, ascending; 0 is the annealed state.
        split: Split of the held-out examples.
        seed: Seed of all randomness.
    """

    num: int
    steps: tuple[int, ...] = (0, 1000, 10_000)
    split: Split = "test"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ChainQuality:
    """Chains after some steps.

    Attributes:
        steps: Number of steps at T = 1.
        report: Figures of quality, see `quality_figures`; after 0 steps also the network calls of a sample.
        states: The states that were compared, `(num, *E)`, on the CPU.
    """

    steps: int
    report: Report
    states: Tensor


@torch.no_grad()
def chain_quality(
    loaded: LoadedModel,
    dataset: Dataset,
    plan: ChainPlan,
    cache: WorkCache,
    watch: Watch,
    classifier: Classifier | None = None,
    protocol: Mapping[str, Any] | None = None,
) -> Iterator[ChainQuality]:
    """Compare chains with held-out data after each of the planned numbers of steps.

    Class-conditional models get the labels of the examples that they are compared with.

    Raises:
        ConfigurationError: A library for quality figures is not installed.
        WalkbackError: A state is not finite.
    """
    train = _states(dataset, "train", _MOST_TRAINING, plan.seed)
    real = _states(dataset, plan.split, plan.num, plan.seed)
    context = context_of(dataset, plan.split, slice(plan.num), loaded.device)
    limit = within_memory(f"running {plan.num} chains at a time", "ask for fewer samples")
    loaded = replace(loaded, model=own_chain(loaded.model))
    with limit, loaded.computing():
        for steps, state, calls in _states_along(loaded, plan, context, cache, watch):
            shown = require_finite(read_out(loaded.model.operator, state, "state", context), f"{steps} steps")
            shown = shown.float().cpu()
            watch.stage(f"Comparing after {steps:,} steps", 0)
            figures = quality_figures(shown, real, train, dataset.info, seed=plan.seed, classifier=classifier)
            if steps == 0:
                figures = (_cost(calls / plan.num), *figures)
            facts = {**(protocol or {}), "steps": steps, "chains": plan.num, "seed": plan.seed}
            report = Report("chain", "sliced_wasserstein", figures, protocol=facts)
            yield ChainQuality(steps, report, shown)


def _cost(calls: float) -> Figure:
    return Figure("calls_per_sample", calls, "calls", meaning="network calls of an annealed sample")


def _states_along(
    loaded: LoadedModel, plan: ChainPlan, context: Context, cache: WorkCache, watch: Watch
) -> Iterator[tuple[int, State, int]]:
    """Yield (steps at T = 1, states, network calls) after each of the planned numbers of steps."""
    state, calls, done = _piece(loaded, plan, None, (0, 0), context, cache, watch)
    for steps in plan.steps:
        while done < steps:
            until = min(steps, done + _PIECE)
            state, calls, done = _piece(loaded, plan, state, (done, until), context, cache, watch)
        yield steps, state, calls


def _piece(
    loaded: LoadedModel,
    plan: ChainPlan,
    state: State | None,
    between: tuple[int, int],
    context: Context,
    cache: WorkCache,
    watch: Watch,
) -> tuple[State, int, int]:
    """Return states, network calls and steps after one piece of the chains, from the cache if it is finished."""
    final = between[1]
    found = cache.read(f"states-{final}")
    if found is None:
        with counted_calls(single(loaded.model.operator)) as calls:
            state = _walked(loaded, plan, state, between, context, watch)
        parts = {f"leaf.{i}": leaf for i, leaf in enumerate(leaves(state))}
        cache.write(f"states-{final}", {**parts, "calls": torch.tensor(calls.rows)})
        return state, calls.rows, final
    parts = {name: tensor.to(loaded.device) for name, tensor in found.items()}
    states = tuple(parts[f"leaf.{i}"] for i in range(len(parts) - 1))
    return states if len(states) > 1 else states[0], int(parts["calls"]), final


def _walked(
    loaded: LoadedModel,
    plan: ChainPlan,
    state: State | None,
    between: tuple[int, int],
    context: Context,
    watch: Watch,
) -> State:
    """Anneal if there is no state yet, else walk from the first number of steps to the second."""
    model, (first, final) = loaded.model, between
    noise = generator(loaded.device, plan.seed, "long-chain", first, final)
    if state is None:
        levels = model.levels()
        annealed = anneal(model.operator, model.prior, levels, plan.num, noise, context)
        return _last(annealed, watch, "Annealing", len(levels))
    name = f"Chains to {final:,} steps"
    return _last(chain(model.operator, state, final - first, noise, context), watch, name, final - first)


def _last(states: Iterator[State], watch: Watch, name: str, total: int) -> State:
    """Return the last of a stream of states, and report the progress."""

    def told() -> Iterator[State]:
        watch.stage(name, total)
        for number, state in enumerate(states):
            watch.advance(number, {})
            yield state

    return last(told())


def _states(dataset: Dataset, split: Split, most: int, seed: int) -> Tensor:
    return states_of(dataset, split, slice(most), generator("cpu", seed, f"evaluate-{split}"))
