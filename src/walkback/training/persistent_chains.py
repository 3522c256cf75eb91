"""Walks that start from persistent chains at T = 1 instead of from data.

    x_i ← data                                                at first, and with probability p after each use
    x_i ← p_1(· | p_1(· | … x_i))   `steps` steps,            the s_0 of a walk

A walk from data only visits states near the data, so the operator never learns what to do where its own chain goes
later. Persistent chains continue from walk to walk, for 1/p uses on average, as in persistent contrastive divergence.
With ρ_m the distribution of the chain after m steps, the forces away from the chain's states and towards the data
cancel between consecutive times; over a life of M steps, (ρ_M - ρ_0) / M remains. Chains that reach spurious modes
teach the operator to walk back from them.

With `direction = "heating"`, chains step by the process instead, x ← q_1(· | x). They are then heating walks from data
that stay at T = 1 for M steps, some of which training scores: Algorithm 1 with n up to M, at the cost of only sampling
the other steps. Every scored step teaches the way back to the data, however long the chain has run.

Chains step with the current weights of the operator, in evaluation mode: layers track no statistics of their states.
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
from walkback.levels import tensor_levels
from walkback.model import Model
from walkback.operators import Conditional
from walkback.processes import require_stepwise
from walkback.sampling import COLD, last, steps
from walkback.schedules import Level
from walkback.state import State, device_of, leaves, map_state
from walkback.support.seeding import generator
from walkback.support.world import World
from walkback.walk import Heating, Start, by_cooling

Draw: TypeAlias = Callable[[int, torch.Generator], Start]
"""Maps a number of rows and a generator to the starts of walks from that many training examples."""

Rows: TypeAlias = dict[str, Tensor]
"""Leaves `(N, *E)` of chains by name: states, and context and origin, which a chain keeps for its lifetime."""


def chain_rows(settings: TrainingSettings) -> int:
    """Return the number of rows of each minibatch that start from persistent chains.

    Raises:
        ConfigurationError: The share amounts to less than one row, or there are fewer chains than rows.
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
    """A pool of chains at T = 1; each walk advances some of them and starts from their states.

    All randomness is a function of (seed, walk, rank); the chains are part of a training state.

    Args:
        model: The model in training.
        settings: See `TrainingSettings`; `chains.share` is positive.
        seed: The run's seed.
        world: The place of this process among others; each process has its own chains.
        compiled: Whether the operator is compiled.

    Raises:
        ConfigurationError: See `chain_rows`; or chains should heat and the process is not `Stepwise`.
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
        """Replace the first `rows` rows of `data` `(B, *E)` by states of chains, which are also their anchors.

        The replaced states become the new states of the chains that restart.

        Args:
            data: Starts of walks from data.
            walk: Number of the walk.
            draw: Draws the initial states of the pool.
        """
        device = device_of(data.state)
        if self._pool is None:
            first = generator(device, self._seed, "own-pool", walk, self._world.rank)
            self._pool = self._rows_of(draw(self._settings.pool, first))
        # Do not reorder the draws from `noise`, or results change: chosen chains, their steps, restarts.
        noise = generator(device, self._seed, "own-chains", walk, self._world.rank)
        chosen = torch.randperm(self._settings.pool, generator=noise, device=device)[: self.rows]
        replaced = {name: leaf[: self.rows] for name, leaf in self._rows_of(data).items()}
        used = {name: leaf[chosen] for name, leaf in self._pool.items()}
        used |= self._advance(used, data, noise)
        states = [leaf for name, leaf in used.items() if name.isdecimal()]
        # A chain that has diverged restarts from data at once. Select with `where` and no branch: on a device, reading
        # whether there is such a chain would wait for all queued work.
        lost = ~torch.stack([leaf.flatten(1).isfinite().all(1) for leaf in states]).all(0)
        used = _where(lost, replaced, used)
        restarted = torch.rand(self.rows, generator=noise, device=device) < self._settings.restart
        kept = _where(restarted, replaced, used)
        # This walk still uses the last states of chains that restart; only the pool gets the new ones.
        self._pool = {name: leaf.index_copy(0, chosen, kept[name]) for name, leaf in self._pool.items()}
        return self._joined(used, data)

    def state(self) -> dict[str, Tensor]:
        """Return the chains of all processes `(pool · processes, *E)` by leaf; must be called by all processes."""
        return {name: self._world.gather(leaf) for name, leaf in (self._pool or {}).items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the result of `state`; if the number of chains or processes has changed, new chains start from data."""
        pool = self._settings.pool
        rows = {name: leaf for name, leaf in tensors.items() if not name.startswith("origin.")}
        if self._heats:  # chains of cooling or of older files have no origin: use their states
            rows |= {f"origin.{name}": tensors.get(f"origin.{name}", leaf) for name, leaf in rows.items()}
        self._pool = None
        if rows and all(len(leaf) == pool * self._world.size for leaf in rows.values()):
            start = pool * self._world.rank
            self._pool = {
                name: leaf[start : start + pool].clone().to(self._model.device) for name, leaf in rows.items()
            }

    def _rows_of(self, start: Start) -> Rows:
        """Return the leaves that a chain from each row keeps; a heating chain also keeps its origin, for q."""
        found = _named("", start.state)
        if start.context is not None:
            found |= _named("context.", start.context)
        return found | (_named("origin.", start.state) if self._heats else {})

    def _joined(self, used: Rows, data: Start) -> Start:
        """Return `data` with its first rows replaced by those of chains."""
        anchor = data.state if data.anchor is None else data.anchor
        states, context = _unnamed("", used, data.state), data.context
        return replace(
            data,
            state=_first_rows(states, data.state),
            anchor=_first_rows(states, anchor),
            context=None if context is None else _first_rows(_unnamed("context.", used, context), context),
        )

    def _advance(self, used: Rows, data: Start, noise: torch.Generator) -> Rows:
        """Return the states of chains after `steps` further steps."""
        states = _unnamed("", used, data.state)
        level = tensor_levels((COLD,), device_of(states))[0] if self._compiled else COLD
        levels = repeat(level, self._settings.steps)
        context = None if data.context is None else _unnamed("context.", used, data.context)
        kernel = self._heating(used, data) if self._heats else by_cooling
        with self._model.evaluating():
            chains = steps(self._model.operator, states, levels, noise, context, kernel=kernel)
            return _named("", last(chains))

    def _heating(self, used: Rows, data: Start) -> Heating:
        """Return the kernel of the process with the origin of each chain, and not the state before these steps."""
        origin = _unnamed("origin.", used, data.state)

        def kernel(conditional: Conditional, source: State, level: Level, _: State) -> Kernel:
            return self._process.heating(conditional, source, level, origin)

        return kernel


def _named(prefix: str, state: State) -> Rows:
    """Return the leaves of a state by `prefix` and number."""
    return {f"{prefix}{number}": leaf for number, leaf in enumerate(leaves(state))}


def _unnamed(prefix: str, rows: Rows, like: State) -> State:
    """Invert `_named`; the state is a tuple if `like` is one."""
    found = tuple(rows[f"{prefix}{number}"] for number in range(len(leaves(like))))
    return found if isinstance(like, tuple) else found[0]


def _first_rows(states: State, rest: State) -> State:
    """Return `rest` `(B, *E)` with its first rows replaced by `states`."""
    return map_state(lambda own, leaf: torch.cat([own, leaf[len(own) :]]), states, rest)


def _where(chosen: Tensor, rows: Rows, others: Rows) -> Rows:
    """Return `rows` where `chosen` `(N,)` is true, and `others` elsewhere."""
    return {
        name: torch.where(chosen.reshape(-1, *(1,) * (leaf.dim() - 1)), leaf, others[name])
        for name, leaf in rows.items()
    }
