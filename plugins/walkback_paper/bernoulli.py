"""Bernoulli operators for binary states: p_T(s' | s) = Π_d Bernoulli(s'_d; ρ_d), s ∈ {0, 1}^D.

    mean  mix               ρ = sigmoid( ((1 - α) s + α F(s)) / T )                             (section 3.3)
          preconditioned    ρ = sigmoid( (c (2 s - 1) + F(s, log T)) / T ),   c = log((1 - ε) / ε)

    heating  tied           the same kernel (the paper)
             flips          heating sigmoid(c (2 s - 1) / T): independent flips with probability ε at T = 1;
                            cooling sigmoid(c (2 s - 1) / T + F(s, log T))

With F = 0 the preconditioned operator flips every bit with probability ε at T = 1, as a Gaussian operator adds noise of
size σ. The mixing form starts as almost pure noise: (1 - α) s never exceeds 1, so the network must first learn to copy
its input.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import bernoulli_at
from walkback.networks import Network
from walkback.schedules import Level
from walkback.state import Context, StateSpace
from walkback_paper.logits import LogitConditional
from walkback_paper.parametrized import (
    Fraction,
    Mean,
    Mixing,
    Parametrization,
    Parametrized,
    single_tensor,
    told,
)

Heating: TypeAlias = Literal["tied", "flips"]
_FlipProbability: TypeAlias = Annotated[float, Field(gt=0.0, lt=0.5)]

_FORGOTTEN = 0.2  # a logit this small leaves a bit within 5 % of a fair coin


@final
class BernoulliParametrization(Parametrization):
    """Turns a network's output into a Bernoulli conditional; the equations are in the module's docstring.

    Args:
        mixing: Form of the logits.
        flip: ε, probability of a flip at T = 1 without a network.
        heating: The heating kernel.

    Raises:
        ConfigurationError: `heating` is "flips" and the mean is the mixing form, which does not support flips.
    """

    def __init__(self, mixing: Mixing, *, flip: float, heating: Heating) -> None:
        super().__init__()
        if mixing.mean == "mix" and heating == "flips":
            raise ConfigurationError(
                "Got operator.heating = 'flips' with operator.mean = 'mix', expected 'tied': "
                "only the preconditioned form has a flip probability to heat with."
            )
        self.mixing = mixing
        self._scale = math.log((1 - flip) / flip)
        self._heating: Heating = heating

    @property
    def max_temperature(self) -> float:
        """Returns the temperature at which a bit with logit c is within 5 % of a fair coin."""
        return max(1.0, self._scale / _FORGOTTEN)

    def forward(
        self, network: nn.Module, state: Tensor, level: Level, context: Context = None
    ) -> LogitConditional:
        """Runs `network` on bits `(B, *E)`."""
        signs = 2 * state - 1
        (output,) = network(signs, told(state, level, context))
        output = output.to(state.dtype)
        if self.mixing.mean == "mix":
            return LogitConditional(bernoulli_at, self.mixing(state, output), None)
        if self._heating == "tied":
            return LogitConditional(bernoulli_at, self._scale * signs + output, None)
        return LogitConditional(bernoulli_at, self._scale * signs, output)


@final
class Bernoulli(Parametrized):
    """Bernoulli operator with any network.

    Args:
        space: One binary tensor of any shape that the network supports.
        network: Learns the logits.
        mean: Form of the logits; "mix" is the paper's.
        alpha: α of the mixing form.
        learn_alpha: Whether α is learned, starting from `alpha`.
        flip: ε, probability of a flip at T = 1 without a network.
        heating: "tied" (the paper) or independent "flips".

    Raises:
        ConfigurationError: The space is not binary, the network does not support it, or options contradict each other.
    """

    def __init__(
        self,
        space: StateSpace,
        network: Network,
        *,
        mean: Mean = "preconditioned",
        alpha: Fraction = 0.5,
        learn_alpha: bool = False,
        flip: _FlipProbability = 0.02,
        heating: Heating = "flips",
    ) -> None:
        leaf = single_tensor(
            space,
            "binary",
            "a Bernoulli operator",
            "binarize the data (--set data.binarize=stochastic, where the dataset offers it) or choose a Gaussian "
            "operator",
        )
        mixing = Mixing(mean, alpha, learn_alpha)
        parametrization = BernoulliParametrization(mixing, flip=flip, heating=heating)
        super().__init__(leaf, parametrization, network, heads=1)
