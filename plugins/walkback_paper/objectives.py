"""The paper's local rule.

    loss_t = -log p_{T_t}(s_{t-1} | s_t)

Its gradient reaches the operator only through the cooling kernel; the walk itself is not differentiated. This is a
term of the bound, not the bound: log q and log p* are left out.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from walkback.objectives import Objective
from walkback.walk import Transition


@final
class WalkbackLoss(Objective):
    """-log p_{T_t}(s_{t-1} | s_t), nats, `(B,)`."""

    def __call__(self, transition: Transition) -> Tensor:
        """Loss of one step for each row."""
        return -transition.log_p
