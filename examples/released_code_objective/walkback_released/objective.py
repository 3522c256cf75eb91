"""What the code released with the paper descends, in the place of the paper's own rule.

    the paper            loss_t = -log p_{T_t}(s_{t-1} | s_t)       the operator at s_t is asked for where it came from
    the released code    loss_t = -log p_{T_t}(s_t | s_t)           it is asked for the state that it is given

For a Gaussian operator N(μ(s), v(s)) the second is

    ½ Σ_d [ (s_d - μ_d(s))² / v_d(s) + log v_d(s) + log 2π ]

which no data enter except as the places where it is evaluated. The identity μ(s) = s makes the first term 0, and then
v → 0 makes the rest as small as one likes: there is no minimum, and no way back to learn. With a mixing mean
μ = (1 - α) s + α F(s) the same says F(s) = s.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from walkback.objectives import Objective
from walkback.walk import Transition


@final
class ReleasedCode(Objective):
    """-log p_{T_t}(s_t | s_t), nats, `(B,)`: for comparison only."""

    def __call__(self, transition: Transition) -> Tensor:
        """Loss of one step for each row."""
        return -transition.reverse.log_prob(transition.target)
