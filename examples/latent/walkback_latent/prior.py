"""p*(v, h) = p*(v) p*(h): a Gaussian and independent bits, with the tracked moments of s_K."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.priors import Prior, ProductPrior
from walkback.state import State, StateSpace
from walkback_paper.priors import BernoulliPrior, GaussianPrior


@final
class BlockedPrior(Prior):
    """A prior of walkback for each leaf.

    Args:
        space: A real tensor and a binary one.

    Raises:
        ConfigurationError: The state is something else.
    """

    def __init__(self, space: StateSpace) -> None:
        super().__init__(space)
        if not isinstance(space, tuple) or [leaf.support for leaf in space] != ["real", "binary"]:
            raise ConfigurationError(
                f"Got {space} for the prior 'blocked', expected a real and a binary tensor: choose another prior."
            )
        self.both = ProductPrior(space, [GaussianPrior(space[0]), BernoulliPrior(space[1])])

    def log_prob(self, state: State) -> Tensor:
        """log p*(v) + log p*(h), `(B,)`, nats."""
        return self.both.log_prob(state)

    def sample(self, num: int, generator: torch.Generator) -> State:
        """(v, h)."""
        return self.both.sample(num, generator)

    def fit(self, state: State) -> None:
        """Take the moments of both leaves."""
        self.both.fit(state)

    def observe(self, state: State) -> None:
        """Average in the moments of s_K."""
        self.both.observe(state)
