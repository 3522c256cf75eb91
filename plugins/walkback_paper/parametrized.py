"""What the paper's operators share: a network inside a parametrization.

network           (s, log2 T) → outputs `(B, *E)`, one a head
parametrization   outputs → the kernels conditioned on s
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Generic, TypeAlias, TypeVar

from pydantic import Field
from torch import Tensor, nn

from walkback.operators import Conditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import State, leaves

Fraction: TypeAlias = Annotated[float, Field(gt=0.0, le=1.0)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]


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

    def forward(self, state: State, level: Level) -> Conditional:
        """Run the network at `state` `(B, *E)`."""
        conditional: Conditional = self.parametrization(self.network, leaves(state)[0], level)
        return conditional

    @property
    def max_temperature(self) -> float:
        """The parametrization's T_max."""
        return self.parametrization.max_temperature
