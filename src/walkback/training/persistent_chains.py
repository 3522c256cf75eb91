"""Walks that start from persistent chains at T = 1 instead of from data.

    x_i ← data                                                at first, and with probability p after each use
    x_i ← p_1(· | p_1(· | … x_i))   `steps` steps,            the s_0 of a walk

A walk from data visits only states near the data, so an operator is never told what to do where its chain goes later.
The chains here live on from walk to walk, 1/p uses on average, as in persistent contrastive divergence: with ρ_m the
law of the chain after m steps, the pull away from what the chain does and the pull towards the data cancel between
neighboring times, and what remains of them over a life of M steps is (ρ_M - ρ_0) / M. Spurious modes of the chain are
seen, and walked back from.

With `direction = "heating"` they step by the process instead, x ← q_1(· | x). Then they are heating walks from data
that stay at T = 1 for M steps, of which training scores some: Algorithm 1 with n up to M, at the price of its sampling
alone. Every scored step teaches the way back to data, however long the life is.

The chains follow the operator in training, in evaluation mode: no layer takes its statistics from their states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import repeat
from typing import TypeAlias, final

import torch
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.model import Model
from walkback.operators import Conditional
from walkback.processes import require_stepwise
from walkback.sampling import COLD, last, steps
from walkback.schedules import Level
from walkback.state import State, device_of, leaves, map_state
from walkback.support.seeding import generator
from walkback.training.distributed import World
from walkback.training.levels import tensor_levels
from walkback.walk import Heating, Start, by_cooling

Draw: TypeAlias = Callable[[int, torch.Generator], Start]
"""Number of rows, generator → where walks from as many training examples start."""

Rows: TypeAlias = dict[str, Tensor]
"""Chains `(N, *E)` by the names of their leaves: the states, and what has to live as long as a chain does."""


def chain_rows(settings: TrainingSettings) -> int:
    """Rows of each minibatch that start from persistent chains.

    Raises:
        ConfigurationError: The share is less than a row of the minibatch, or there are fewer chains than such rows.
    """
    chains = settings.chains
    if not chains.share:
        return 0
    rows = min(round(chains.share * settings.batch_size), settings.batch_size - 1)
    if rows < 1:
        raise ConfigurationError(
            f"Got training.chains.share = {chains.share} with training.batch_size = {settings.batch_size}, "
            "which is less than one walk: raise either, or set training.chains.share = 0."
        )
    if chains.pool < rows:
        raise ConfigurationError(
            f"Got training.chains.pool = {chains.pool}, expected at least {rows}, the number of walks in each "
            "minibatch that start from chains: raise it."
        )
    return rows


@final
class PersistentChains:
    """A pool of chains at T = 1, some of which each walk takes further and starts from.

    Everything random is a function of (seed, walk, rank); the chains are part of a training state.

    Args:
        model: The model in training.
        settings: See `TrainingSettings`; `chains.share` is positive.
        seed: The run's seed.
        world: This process among others; each has chains of its own.
        compiled: Whether the operator is compiled.

    Raises:
        ConfigurationError: See `chain_rows`; or the chains are to heat, and the process does not tell its single steps.
    """

    def __init__(
        self, model: Model, settings: TrainingSettings, seed: int, world: World, *, compiled: bool = False
    ) -> None:
        self.rows = chain_rows(settings)
        self._model = model
        self._settings = settings.chains
        self._seed = seed
        self._world = world
        self._compiled = compiled
        self._pool: Rows | None = None
        self._heats = settings.chains.direction == "heating"
        if self._heats:
            self._process = require_stepwise(model.process, "a chain that heats")

    @torch.no_grad()
    def start(self, data: Start, walk: int, draw: Draw) -> Start:
        """Let the first `rows` rows of `data` `(B, *E)` start from chains, which are their own anchors.

        The states that they replace restart the chains that are to be restarted.

        Args:
            data: Where walks from data start.
            walk: Number of the walk.
            draw: Gives the pool its first states.
        """
        device = device_of(data.state)
        if self._pool is None:
            first = generator(device, self._seed, "own-pool", walk, self._world.rank)
            self._pool = self._rows_of(draw(self._settings.pool, first))
        # The order of draws from `noise` is part of the results: chosen chains, their steps, restarts.
        noise = generator(device, self._seed, "own-chains", walk, self._world.rank)
        chosen = torch.randperm(self._settings.pool, generator=noise, device=device)[: self.rows]
        replaced = {name: leaf[: self.rows] for name, leaf in self._rows_of(data).items()}
        used = {name: leaf[chosen] for name, leaf in self._pool.items()}
        used |= self._advance(used, data, noise)
        states = [leaf for name, leaf in used.items() if name.isdecimal()]
        # A chain that has diverged restarts from data at once, within the batch: on a device, reading whether there is
        # one would wait for it.
        lost = ~torch.stack([leaf.flatten(1).isfinite().all(1) for leaf in states]).all(0)
        used = _where(lost, replaced, used)
        restarted = torch.rand(self.rows, generator=noise, device=device) < self._settings.restart
        kept = _where(restarted, replaced, used)
        # Chains that restart still give this walk their last states; only the pool gets the new ones.
        self._pool = {name: leaf.index_copy(0, chosen, kept[name]) for name, leaf in self._pool.items()}
        return self._joined(used, data)

    def state(self) -> dict[str, Tensor]:
        """The chains of all processes `(pool · processes, *E)`, by the names of leaves; called by all together."""
        return {name: leaves(self._world.gather(leaf))[0] for name, leaf in (self._pool or {}).items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `state`; other numbers of chains or of processes start chains anew from data."""
        pool = self._settings.pool
        rows = {name: leaf for name, leaf in tensors.items() if not name.startswith("origin.")}
        if self._heats:  # a chain that has cooled, or is of an older file, begins where it is
            rows |= {f"origin.{name}": tensors.get(f"origin.{name}", leaf) for name, leaf in rows.items()}
        self._pool = None
        if rows and all(len(leaf) == pool * self._world.size for leaf in rows.values()):
            start = pool * self._world.rank
            self._pool = {name: leaf[start : start + pool].clone() for name, leaf in rows.items()}

    def _rows_of(self, start: Start) -> Rows:
        """What a chain from each row has to keep; a chain that heats, where it began: a process may look there."""
        found = _named("", start.state)
        if start.context is not None:
            found |= _named("context.", start.context)
        return found | (_named("origin.", start.state) if self._heats else {})

    def _joined(self, used: Rows, data: Start) -> Start:
        """`data` with its first rows those of chains."""
        anchor = data.state if data.anchor is None else data.anchor
        states, context = _unnamed("", used, data.state), data.context
        return replace(
            data,
            state=_first_rows(states, data.state),
            anchor=_first_rows(states, anchor),
            context=None if context is None else _first_rows(_unnamed("context.", used, context), context),
        )

    def _advance(self, used: Rows, data: Start, noise: torch.Generator) -> Rows:
        """The chains' states `steps` steps later."""
        states = _unnamed("", used, data.state)
        level = tensor_levels((COLD,), device_of(states))[0] if self._compiled else COLD
        levels = repeat(level, self._settings.steps)
        context = None if data.context is None else _unnamed("context.", used, data.context)
        kernel = self._heating(used, data) if self._heats else by_cooling
        with self._model.evaluating():
            chains = steps(self._model.operator, states, levels, noise, context, kernel=kernel)
            return _named("", last(chains))

    def _heating(self, used: Rows, data: Start) -> Heating:
        """The process's kernel, seen from where each chain began and not from where this use of it does."""
        origin = _unnamed("origin.", used, data.state)

        def kernel(conditional: Conditional, source: State, level: Level, _: State) -> Kernel:
            return self._process.heating(conditional, source, level, origin)

        return kernel


def _named(prefix: str, state: State) -> Rows:
    """The leaves of a state by `prefix` and number."""
    return {f"{prefix}{number}": leaf for number, leaf in enumerate(leaves(state))}


def _unnamed(prefix: str, rows: Rows, like: State) -> State:
    """Inverse of `_named`; the state is a tuple where `like` is one."""
    found = tuple(rows[f"{prefix}{number}"] for number in range(len(leaves(like))))
    return found if isinstance(like, tuple) else found[0]


def _first_rows(states: State, rest: State) -> State:
    """`rest` `(B, *E)` with its first rows replaced by `states`."""
    return map_state(lambda own, leaf: torch.cat([own, leaf[len(own) :]]), states, rest)


def _where(chosen: Tensor, rows: Rows, others: Rows) -> Rows:
    """`rows` where `chosen` `(N,)` is true, `others` in the rest."""
    return {
        name: torch.where(chosen.reshape(-1, *(1,) * (leaf.dim() - 1)), leaf, others[name])
        for name, leaf in rows.items()
    }
