"""Code shared by the paper's operators: a network inside a parametrization, and the mixing form.

operator(s, T)   parametrization(network, s, T)
mixing           (1 - α) s + α F(s) (section 3.3), α fixed or learned as sigmoid(a)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.networks import Network, Ports, Told
from walkback.operators import ClassConditional, Conditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, Space, State, StateSpace, Support, leaves
from walkback.temperature import TemperatureLaw

Mean: TypeAlias = Literal["mix", "preconditioned"]
Positive: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(gt=0.0, le=1.0)]


Variance: TypeAlias = Literal["fixed", "tied", "softplus", "reverse", "large", "range", "direct"]


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of a Gaussian operator.

    Attributes:
        sigma: σ, standard deviation at T = 1.
        share: σ / σ_d, from which data set σ; None keeps `sigma`.
        form: Form of the variance.
        law: How the temperature scales the variance.
    """

    sigma: float
    share: float | None
    form: Variance
    law: TemperatureLaw

    def variance_at_1(self, shape: tuple[int, ...]) -> Tensor:
        """Returns σ², `(1, 1, …)`, for events of a shape."""
        return torch.full((1, *(1,) * len(shape)), self.sigma**2)

    def fit(self, variance_at_1: Tensor, data_variance: Tensor) -> None:
        """Sets σ² in place from σ_d² if it is a share of that."""
        if self.share is not None:
            variance_at_1.fill_(self.share**2 * data_variance.item())


@final
class Mixing(nn.Module):
    """α of the mixing form.

    Args:
        mean: The form of the mean, or of the logits, in use.
        alpha: α; its initial value if it is learned.
        learned: Whether α is learned.

    Raises:
        ConfigurationError: α is learned but the form has none, or its initial value is 1, which no sigmoid reaches.
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
        """Returns (1 - α) state + α target, `(B, *E)`."""
        if self.logit is None:
            return torch.lerp(state, target, self._alpha)
        return torch.lerp(state, target, self.logit.sigmoid().to(state.dtype))


class Parametrization(nn.Module, ABC):
    """Turns the outputs of a network into a conditional."""

    @property
    @abstractmethod
    def max_temperature(self) -> float:
        """Returns T_max of an operator with this parametrization."""

    @abstractmethod
    def forward(
        self, network: nn.Module, state: Tensor, level: Level, context: Context = None
    ) -> Conditional:
        """Runs `network` on `state` `(B, *E)`."""


class Parametrized(TransitionOperator, ClassConditional):
    """Operator on one tensor: a network inside a parametrization.

    Args:
        space: Space of the tensor.
        parametrization: Makes the conditional.
        network: Built for the space.
        heads: Number of outputs that the parametrization takes.
        ending: Changes the last step of each conditional; None leaves it as it is.

    Raises:
        ConfigurationError: The network does not support the space.
    """

    def __init__(
        self,
        space: Space,
        parametrization: Parametrization,
        network: Network,
        heads: int,
        ending: Callable[[Conditional], Conditional] | None = None,
    ) -> None:
        super().__init__()
        self._ending = ending
        self.parametrization = parametrization
        self.network = network.build(Ports(space.shape, heads, space.classes))
        self._num_classes = space.classes

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """Runs the network on `state` `(B, *E)`."""
        conditional: Conditional = self.parametrization(self.network, leaves(state)[0], level, context)
        return conditional if self._ending is None else self._ending(conditional)

    @property
    def num_classes(self) -> int:
        """Returns as many as the space has."""
        return self._num_classes

    @property
    def max_temperature(self) -> float:
        """Returns T_max of the parametrization."""
        return self.parametrization.max_temperature


def single_tensor(space: StateSpace, support: Support, user: str, advice: str) -> Space:
    """Returns the space of one tensor of this support.

    Args:
        space: A space of states.
        support: The support that `user` needs.
        user: Description of the component for messages: "a Gaussian operator".
        advice: What to do about another space.

    Raises:
        ConfigurationError: The space has several parts or another support.
    """
    if isinstance(space, tuple) or space.support != support:
        found = f"a state of {len(space)} parts" if isinstance(space, tuple) else f"{space.support} states"
        raise ConfigurationError(f"Got {found} for {user}, expected one {support} tensor: {advice}.")
    return space


def told(state: Tensor, level: Level, context: Context) -> Told:
    """Builds the network's input for a state `(B, *E)` at a level; a context is class labels, `(B,)` int64."""
    label = None if context is None else leaves(context)[0]
    return Told(level.temperature_like(state).flatten().log2(), label)
