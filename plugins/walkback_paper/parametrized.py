"""What the paper's operators share: a network inside a parametrization.

network           (s, log2 T) → outputs `(B, *E)`, one a head
parametrization   outputs → the kernels conditioned on s
mixing            (1 - α) s + α F(s) (section 3.3), α fixed or learned as sigmoid(a)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Generic, Literal, TypeAlias, TypeVar, final

import torch
from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.operators import Conditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State, leaves

Mean: TypeAlias = Literal["mix", "preconditioned"]
Positive: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(gt=0.0, le=1.0)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]


@final
class Mixing(nn.Module):
    """α of the mixing form.

    Args:
        mean: The form in use.
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
        self._alpha = alpha
        self.logit = nn.Parameter(torch.tensor(math.log(alpha / (1 - alpha)))) if learned else None

    def forward(self, state: Tensor, target: Tensor) -> Tensor:
        """(1 - α) state + α target, `(B, *E)`."""
        if self.logit is None:
            return torch.lerp(state, target, self._alpha)
        return torch.lerp(state, target, self.logit.sigmoid().to(state.dtype))


@final
class Ratio:
    """a / b of two buffers of one entry, read off the device when one has changed, not for the levels of every walk."""

    def __init__(self) -> None:
        self._known: tuple[tuple[Tensor, Tensor], tuple[int, int], float] | None = None

    def __call__(self, a: Tensor, b: Tensor) -> float:
        """The number; tensors count what is written into them (`_version`), and `Module.to` makes others of them."""
        versions = a._version, b._version
        known = self._known
        if known is None or known[0][0] is not a or known[0][1] is not b or known[1] != versions:
            self._known = known = (a, b), versions, (a / b).item()
        return known[2]


class Parametrization(nn.Module, ABC):
    """Turns a network's outputs into a conditional."""

    @abstractmethod
    def forward(self, network: nn.Module, state: Tensor, level: Level) -> Conditional:
        """Run `network` at `state` `(B, *E)`."""

    @property
    @abstractmethod
    def max_temperature(self) -> float:
        """T_max, see `TransitionOperator.max_temperature`."""


Form = TypeVar("Form", bound=Parametrization)


class ParametrizedOperator(TransitionOperator, Generic[Form]):
    """An operator made of the two; each adds its options, from which it builds them.

    Args:
        parametrization: Makes the kernels.
        network: `(B, *E)` and log2 T `(1,)` or `(B,)` → one tensor `(B, *E)` a head.
    """

    @abstractmethod
    def __init__(self, parametrization: Form, network: nn.Module) -> None:
        super().__init__()
        self.parametrization: Form = parametrization
        self.network = network

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """Run the network at `state` `(B, *E)`."""
        conditional: Conditional = self.parametrization(self.network, leaves(state)[0], level)
        return conditional

    @property
    def max_temperature(self) -> float:
        """The parametrization's T_max."""
        return self.parametrization.max_temperature
