"""The paper's local rule, and the bound itself.

    walkback    loss_t = -log p_{T_t}(s_{t-1} | s_t)
    elbo        loss   = Σ_t [ log q_{T_t}(s_t | s_{t-1}) - log p_{T_t}(s_{t-1} | s_t) ] - log p*(s_K) = -L   (eq. 5)

The gradient of the local rule reaches the operator only through the cooling kernel; the walk itself is not
differentiated. The loss is a term of the bound, not the bound: log q and log p* are left out.

The bound is differentiated through the path: s_t is a function of noise, of s_{t-1} and of the weights. For operators
with latent units, log q(h_0 | data) is left out as a constant: the sampling of h_0 is not differentiated. Moments
tracked by the prior are constants too. Setting them to the moments of s_K maximizes E[log p*(s_K)], so the tracking
prior and the gradient alternately increase the same bound.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from walkback.objectives import Checkpointing, Objective, PathObjective
from walkback.walk import Transition


@final
class WalkbackLoss(Objective):
    """-log p_{T_t}(s_{t-1} | s_t), nats, `(B,)`."""

    def __call__(self, transition: Transition) -> Tensor:
        """Returns the loss of one step for each row."""
        return -transition.log_p


@final
class NegativeBound(PathObjective):
    """Returns -L, nats, `(B,)`; the equation is in the module's docstring.

    Args:
        checkpointing: Whether the backward pass recomputes each step, which saves memory; "auto" does so on walks of 20
            steps and more.
    """

    def __init__(self, *, checkpointing: Checkpointing = "auto") -> None:
        self._checkpointing: Checkpointing = checkpointing

    @property
    def checkpointing(self) -> Checkpointing:
        """Returns the configured value."""
        return self._checkpointing

    def step(self, transition: Transition) -> Tensor:
        """Returns log q - log p of one step, its work."""
        return transition.log_q - transition.log_p

    def end(self, log_prior: Tensor) -> Tensor:
        """Returns -log p*(s_K)."""
        return -log_prior
