"""Walks that start from the model's own chains at T = 1 instead of from data.

    x_i ← data                                                at first, and with probability p after each use
    x_i ← p_1(· | p_1(· | … x_i))   own_steps steps,          the s_0 of a walk

A walk from data visits only states near the data, so an operator is never told what to do where its own chain goes
later. The chains here live on from walk to walk, 1/p uses on average, as in persistent contrastive divergence: with ρ_m
the law of the chain after m steps, the pull away from what the chain does and the pull towards the data cancel between
neighbouring times, and what remains of them over a life of M steps is (ρ_M - ρ_0) / M. Spurious modes of the chain are
seen, and walked back from.

With `own_direction = "heating"` they step by q_1 instead, x ← q_1(· | x). Then they are heating walks from data that
stay at T = 1 for M steps, of which training scores some: Algorithm 1 with n up to M, at the price of its sampling
alone. Every scored step teaches the way back to data, however long the life is.

The chains follow the operator in training, in evaluation mode: no layer takes its statistics from their states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.model import Model
from walkback.sampling import COLD, chain, last
from walkback.schedules import tensor_levels
from walkback.state import State, batch_size, device_of, leaves, map_state
from walkback.support.seeding import generator
from walkback.training.distributed import World

Draw = Callable[[int, torch.Generator], State]
"""Number of rows, generator → as many states s_0 of training examples."""


def own_rows(settings: TrainingSettings) -> int:
    """Rows of each minibatch that start from the model's own chains.

    Raises:
        ConfigurationError: The share is less than a row of the minibatch, or there are fewer chains than such rows.
    """
    if not settings.own_starts:
        return 0
    rows = min(round(settings.own_starts * settings.batch_size), settings.batch_size - 1)
    if rows < 1:
        raise ConfigurationError(
            f"Got training.own_starts = {settings.own_starts} with training.batch_size = {settings.batch_size}, "
            "which is less than one walk: raise either, or set training.own_starts = 0."
        )
    if settings.own_pool < rows:
        raise ConfigurationError(
            f"Got training.own_pool = {settings.own_pool}, expected at least {rows}, the number of own starts in "
            "each minibatch: raise it."
        )
    return rows


@final
class OwnChains:
    """A pool of chains at T = 1, some of which each walk takes further and starts from.

    Everything random is a function of (seed, walk, rank); the states are part of a training state.

    Args:
        model: The model in training.
        settings: See `TrainingSettings`; `own_starts` is positive.
        seed: The run's seed.
        world: This process among others; each has chains of its own.
        compiled: Whether the operator is compiled.
    """

    def __init__(
        self, model: Model, settings: TrainingSettings, seed: int, world: World, *, compiled: bool = False
    ) -> None:
        self.rows = own_rows(settings)
        self._model = model
        self._settings = settings
        self._seed = seed
        self._world = world
        self._compiled = compiled
        self._pool: tuple[Tensor, ...] | None = None

    @torch.no_grad()
    def start(self, origin: State, walk: int, draw: Draw) -> State:
        """Replace the first `rows` rows of `origin` s_0 `(B, *E)`, states of data, by states of chains.

        The states that they replace restart the chains that are to be restarted.

        Args:
            origin: From data.
            walk: Number of the walk.
            draw: Gives the pool its first states.
        """
        device = device_of(origin)
        if self._pool is None:
            first = generator(device, self._seed, "own-pool", walk, self._world.rank)
            self._pool = leaves(draw(self._settings.own_pool, first))
        noise = generator(device, self._seed, "own-chains", walk, self._world.rank)
        chosen = torch.randperm(self._settings.own_pool, generator=noise, device=device)[: self.rows]
        data = map_state(lambda leaf: leaf[: self.rows], origin)
        used = tuple(leaf[chosen] for leaf in self._pool)
        states = self._advance(used if isinstance(origin, tuple) else used[0], noise)
        lost = ~torch.stack([leaf.flatten(1).isfinite().all(1) for leaf in leaves(states)]).all(0)
        states = _where(lost, data, states)
        restarted = torch.rand(self.rows, generator=noise, device=device) < self._settings.own_restart
        kept = leaves(_where(restarted, data, states))
        self._pool = tuple(
            pool.index_copy(0, chosen, leaf) for pool, leaf in zip(self._pool, kept, strict=True)
        )
        return map_state(lambda own, leaf: torch.cat([own, leaf[self.rows :]]), states, origin)

    def state(self) -> dict[str, Tensor]:
        """The chains of all processes `(pool · processes, *E)`, by number of the leaf; called by all together."""
        if self._pool is None:
            return {}
        return {str(number): leaf for number, leaf in enumerate(leaves(self._world.gather(self._pool)))}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `state`; other numbers of chains or of processes start chains anew from data."""
        pool = self._settings.own_pool
        parts = [tensors[name] for name in sorted(tensors, key=int)]
        self._pool = None
        if parts and all(len(leaf) == pool * self._world.size for leaf in parts):
            start = pool * self._world.rank
            self._pool = tuple(leaf[start : start + pool].clone() for leaf in parts)

    def _advance(self, states: State, noise: torch.Generator) -> State:
        level = tensor_levels((COLD,), device_of(states))[0] if self._compiled else COLD
        steps = self._settings.own_steps
        with self._model.evaluating():
            if self._settings.own_direction == "cooling":
                return last(chain(self._model.operator, states, steps, noise, level=level, every=steps))
            for _ in range(steps):
                states = self._model.operator(states, level).heating(level).sample(noise)
            return states


def _where(rows: Tensor, state: State, other: State) -> State:
    """`state` in the rows marked `(B,)`, `other` in the rest."""
    count = batch_size(state)
    return map_state(lambda a, b: torch.where(rows.reshape(count, *(1,) * (a.dim() - 1)), a, b), state, other)
