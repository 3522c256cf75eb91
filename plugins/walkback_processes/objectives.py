"""Objectives of processes whose posteriors are known.

    kl    KL(q(s_{t-1} | s_t, s_0) ‖ p_{T_t}(s_{t-1} | s_t)),   -log p(s_0 | s_1) at the first level

The terms of the bound of Sohl-Dickstein et al. (2015). The gradient is on average that of the paper's local rule,
-log p(s_{t-1} | s_t), which samples what is integrated here.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.objectives import Objective, Restricted
from walkback.walk import Transition


@final
class PosteriorDivergence(Objective, Restricted):
    """The term of one step in the bound, nats, `(B,)`."""

    def __call__(self, transition: Transition) -> Tensor:
        """Returns the loss of one step for each row.

        Raises:
            ConfigurationError: The process does not know q(s_{t-1} | s_t, s_0).
        """
        term = transition.term
        if term is None:
            raise ConfigurationError(
                "The objective 'kl' needs q(s_{t-1} | s_t, s_0), which this process does not know: choose "
                "process.name = 'diffusion', or objective.name = 'walkback'."
            )
        return term

    def require_fitting(self, transition: Transition) -> None:
        """Raises ConfigurationError as a call does."""
        self(transition)
