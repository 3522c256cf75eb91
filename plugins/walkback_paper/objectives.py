"""The paper's local rule, and the bound itself.

    walkback    loss_t = -log p_{T_t}(s_{t-1} | s_t)
    elbo        loss   = Σ_t [ log q_{T_t}(s_t | s_{t-1}) - log p_{T_t}(s_{t-1} | s_t) ] - log p*(s_K) = -L   (eq. 5)

The gradient of the local rule reaches the operator only through the cooling kernel; the walk itself is not
differentiated. It is a term of the bound, not the bound: log q and log p* are left out.

The bound is differentiated through the path: s_t is a function of noise, of s_{t-1} and of the weights. log q(h_0 |
data) of operators with latent units is left out, a constant here: how h_0 is drawn is not differentiated. Moments that
the prior tracks are constants too; following those of s_K is what maximizes E[log p*(s_K)] in them, so that the
tracking prior and the gradient climb the same bound in turns.
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
        """Loss of one step for each row."""
        return -transition.log_p


@final
class NegativeBound(PathObjective):
    """-L, nats, `(B,)`; see the module's equation.

    Args:
        checkpointing: Whether the backward pass computes each step again, which saves memory: "auto" does on walks
            of 20 steps and more.
    """

    def __init__(self, *, checkpointing: Checkpointing = "auto") -> None:
        self._checkpointing: Checkpointing = checkpointing

    @property
    def checkpointing(self) -> Checkpointing:
        """As it was chosen."""
        return self._checkpointing

    def step(self, transition: Transition) -> Tensor:
        """log q - log p of one step, the work that it costs."""
        return transition.log_q - transition.log_p

    def end(self, log_prior: Tensor) -> Tensor:
        """-log p*(s_K)."""
        return -log_prior
