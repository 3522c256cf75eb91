"""Priors p*(s_K): the distribution that cooling starts from.

    cooling   s_K ~ p*,   then s_{t-1} ~ p_{T_t}(· | s_t)
    bound     … + log p*(s_K)

A prior is fitted to the data before training. During training it observes the last states of the heating walks
(Algorithm 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from walkback.state import State, StateSpace, leaves, spaces


class Prior(nn.Module, ABC):
    """Abstract distribution of the first state of cooling, built as `cls(space, **options)`.

    Learned quantities are buffers, so they are saved in the checkpoint.

    Args:
        space: Space of the chain's state.
    """

    def __init__(self, space: StateSpace) -> None:
        super().__init__()
        self.space = space

    @abstractmethod
    def log_prob(self, state: State) -> Tensor:
        """Return log p*(s), `(B,)`, nats."""

    @abstractmethod
    def sample(self, num: int, generator: torch.Generator) -> State:
        """Draw `num` states on the generator's device."""

    @abstractmethod
    def fit(self, state: State) -> None:
        """Match the moments of `state` `(N, *E)`; called once, with starting states s_0, before training."""

    @abstractmethod
    def observe(self, state: State) -> None:
        """Update the prior with the last states s_K `(B, *E)` of a heating walk in training."""


@final
class ProductPrior(Prior):
    """Independent priors, one per leaf of a tuple state.

    Args:
        space: Space of the tuple state.
        priors: One per leaf, in the order of the leaves.
    """

    def __init__(self, space: StateSpace, priors: Sequence[Prior]) -> None:
        super().__init__(space)
        if len(priors) != len(spaces(space)):
            raise ValueError(f"Got {len(priors)} priors, expected one per leaf: {len(spaces(space))}.")
        self.priors = nn.ModuleList(priors)

    def _parts(self) -> tuple[Prior, ...]:
        return tuple(prior for prior in self.priors if isinstance(prior, Prior))

    def log_prob(self, state: State) -> Tensor:
        """Return the sum of the leaves' log-probabilities, `(B,)`, nats."""
        pairs = zip(self._parts(), leaves(state), strict=True)
        return torch.stack([prior.log_prob(leaf) for prior, leaf in pairs]).sum(0)

    def sample(self, num: int, generator: torch.Generator) -> State:
        """Draw one leaf from each prior, in order."""
        return tuple(leaf for prior in self._parts() for leaf in leaves(prior.sample(num, generator)))

    def fit(self, state: State) -> None:
        """Fit each prior to its leaf."""
        for prior, leaf in zip(self._parts(), leaves(state), strict=True):
            prior.fit(leaf)

    def observe(self, state: State) -> None:
        """Update each prior with its leaf."""
        for prior, leaf in zip(self._parts(), leaves(state), strict=True):
            prior.observe(leaf)
