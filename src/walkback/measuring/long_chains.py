"""Sample quality along chains: annealed samples, and the same chains after given numbers of steps at T = 1.

    prior ──cool──► s after 0 steps ──chain──► s after n_1 steps ──► …      each compared with held-out data

With excursions (`walkback.sampling.excursions`), steps are counted in network calls, so that both kinds of chain are
compared at equal cost: n calls are n steps at T = 1, or n / R excursions of R runs of the network.

States are entries of the work cache every 1,000 steps, so that an interrupted chain resumes from the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.data import Dataset, Split, context_of, states_of
from walkback.measuring.calls import counted_calls
from walkback.measuring.quality.features import Classifier
from walkback.measuring.quality.report import quality_figures
from walkback.operators import TransitionOperator
from walkback.report import Figure, Report
from walkback.sampling import anneal, chain, last
from walkback.sampling.excursions import own_chain, there_and_back
from walkback.sampling.finite import require_finite
from walkback.sampling.readout import read_out
from walkback.sampling.wrapped import Compound
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
        excursion: Levels that each step heats and cools back, in a chain of as many calls; None takes single steps.
        split: Split of the held-out examples.
        seed: Seed of all randomness.
    """

    num: int
    steps: tuple[int, ...] = (0, 1000, 10_000)
    excursion: int | None = None
    split: Split = "test"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ChainQuality:
    """Chains after some steps.

    Attributes:
        steps: Number of steps at T = 1, or of network calls in excursions.
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
    with limit, loaded.computing():
        for steps, state, calls in _states_along(_Chains.of(loaded, plan, context), cache, watch):
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


@dataclass(frozen=True, slots=True)
class _Chains:
    """Chains to run: model, plan, context, and the operator of a step, which runs that of the model `runs` times."""

    loaded: LoadedModel
    plan: ChainPlan
    context: Context
    operator: TransitionOperator
    runs: int

    @classmethod
    def of(cls, loaded: LoadedModel, plan: ChainPlan, context: Context) -> _Chains:
        model = loaded.model
        chain = own_chain(model) if plan.excursion is None else there_and_back(model, plan.excursion)
        operator = chain.operator
        return cls(loaded, plan, context, operator, operator.runs if isinstance(operator, Compound) else 1)


def _states_along(chains: _Chains, cache: WorkCache, watch: Watch) -> Iterator[tuple[int, State, int]]:
    """Yield (steps at T = 1, states, network calls) after each of the planned numbers of steps."""
    state, calls, done = _piece(chains, None, (0, 0), cache, watch)
    for steps in chains.plan.steps:
        while done < steps:
            until = min(steps, done + _PIECE)
            state, calls, done = _piece(chains, state, (done, until), cache, watch)
        yield steps, state, calls


def _piece(
    chains: _Chains, state: State | None, between: tuple[int, int], cache: WorkCache, watch: Watch
) -> tuple[State, int, int]:
    """Return states, network calls and steps after one piece of the chains, from the cache if it is finished."""
    final, loaded = between[1], chains.loaded
    found = cache.read(f"states-{final}")
    if found is None:
        # Excursions run the model's operator, too.
        with counted_calls(loaded.model.operator) as calls:
            state = _walked(chains, state, between, watch)
        parts = {f"leaf.{i}": leaf for i, leaf in enumerate(leaves(state))}
        cache.write(f"states-{final}", {**parts, "calls": torch.tensor(calls.rows)})
        return state, calls.rows, final
    parts = {name: tensor.to(loaded.device) for name, tensor in found.items()}
    states = tuple(parts[f"leaf.{i}"] for i in range(len(parts) - 1))
    return states if len(states) > 1 else states[0], int(parts["calls"]), final


def _walked(chains: _Chains, state: State | None, between: tuple[int, int], watch: Watch) -> State:
    """Anneal if there is no state yet, else walk from the first number of steps to the second."""
    model, plan, (first, final) = chains.loaded.model, chains.plan, between
    noise = generator(chains.loaded.device, plan.seed, "long-chain", first, final)
    if state is None:
        levels = model.levels()
        annealed = anneal(chains.operator, model.prior, levels, plan.num, noise, chains.context)
        return _last(annealed, watch, "Annealing", len(levels))
    count = final // chains.runs - first // chains.runs
    if not count:
        return state
    states = chain(chains.operator, state, count, noise, chains.context)
    return _last(states, watch, f"Chains to {final:,} steps", count)


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
