"""What the paper's operators share: the mixing form, and how they ask their network.

mixing   (1 - α) s + α F(s) (section 3.3), α fixed or learned as sigmoid(a)
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.networks import Told
from walkback.schedules import Level
from walkback.state import Context, leaves

Mean: TypeAlias = Literal["mix", "preconditioned"]
Positive: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(gt=0.0, le=1.0)]


@final
class Mixing(nn.Module):
    """α of the mixing form.

    Args:
        mean: The form of the mean, or of the logits, in use.
        alpha: α, in the beginning where it is learned.
        learned: Whether it is.

    Raises:
        ConfigurationError: α is to be learned where there is none, or from 1, which no sigmoid reaches.
    """

    def __init__(self, mean: Mean, alpha: float, learned: bool) -> None:
        super().__init__()
        if learned and mean != "mix":
            raise ConfigurationError(
                f"Got operator.learn_alpha = true with operator.mean = '{mean}', expected 'mix': "
                "only the mixing form has an α."
            )
        if learned and alpha == 1:
            raise ConfigurationError(
                "Got operator.alpha = 1 with operator.learn_alpha = true, expected less than 1: "
                "α is learned as a sigmoid, which does not reach 1."
            )
        self.mean: Mean = mean
        self._alpha = alpha
        self.logit = nn.Parameter(torch.tensor(math.log(alpha / (1 - alpha)))) if learned else None

    def forward(self, state: Tensor, target: Tensor) -> Tensor:
        """(1 - α) state + α target, `(B, *E)`."""
        if self.logit is None:
            return torch.lerp(state, target, self._alpha)
        return torch.lerp(state, target, self.logit.sigmoid().to(state.dtype))


def told(state: Tensor, level: Level, context: Context) -> Told:
    """What the network is told of a state `(B, *E)` at a level; a context is class labels, `(B,)` int64."""
    label = None if context is None else leaves(context)[0]
    return Told(level.temperature_like(state).flatten().log2(), label)


@final
class Numbers:
    """Two buffers of one entry as numbers, read off the device when one has changed and not for every walk."""

    def __init__(self) -> None:
        self._known: tuple[tuple[Tensor, Tensor], tuple[int, int], tuple[float, float]] | None = None

    def __call__(self, a: Tensor, b: Tensor) -> tuple[float, float]:
        """Both; tensors count what is written into them (`_version`), and `Module.to` makes others of them."""
        versions = a._version, b._version
        known = self._known
        if known is None or known[0][0] is not a or known[0][1] is not b or known[1] != versions:
            first, second = torch.stack([a.flatten()[0], b.flatten()[0]]).tolist()
            self._known = known = (a, b), versions, (first, second)
        return known[2]
