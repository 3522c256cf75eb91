"""Categorical operators for one-hot states: p_T(s' | s) = Π_l softmax(logits_l)_{s'_l}, one of S symbols in each place.

    logits        (c s + F(s, log T)) / T,   c = log((1 - ε) (S - 1) / ε)

    heating  tied           the same kernel (the paper)
             replacements   heating c s / T: independent replacements with probability ε at T = 1;
                            cooling c s / T + F(s, log T)

With F = 0 a symbol stays with probability 1 - ε at T = 1, and each of the other S - 1 takes its place with probability
ε / (S - 1). S = 2 is the preconditioned Bernoulli operator.

At T = 1 the chain of the tied operator preserves its data if it has learned to be its own reverse. That of the other
form is a denoiser without the noise: it moves towards the likeliest symbols.

The network sees symbols as channels, `(B, S, …)`, with mean 0 and variance 1 if all are equally likely.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import categorical_at
from walkback.networks import Network
from walkback.schedules import Level
from walkback.state import Context, Space, StateSpace
from walkback_paper.logits import LogitConditional
from walkback_paper.parametrized import Parametrization, Parametrized, single_tensor, told

Heating: TypeAlias = Literal["tied", "replacements"]

_FORGOTTEN = 0.2
"""c / T at which every symbol is within about a fifth of equally likely."""


@final
class CategoricalParametrization(Parametrization):
    """Turns a network's output into a categorical conditional; the equations are in the module's docstring.

    Args:
        symbols: S, at least 2.
        replaced: ε, probability that a symbol is replaced at T = 1 without a network.
        heating: The heating kernel.
    """

    def __init__(self, symbols: int, *, replaced: float, heating: Heating) -> None:
        super().__init__()
        self._symbols = symbols
        self._scale = math.log((1 - replaced) * (symbols - 1) / replaced)
        self._heating: Heating = heating

    @property
    def max_temperature(self) -> float:
        """Returns the temperature at which c / T counts as forgotten."""
        return max(1.0, self._scale / _FORGOTTEN)

    def forward(
        self, network: nn.Module, state: Tensor, level: Level, context: Context = None
    ) -> LogitConditional:
        """Runs `network` on symbols `(B, *E)`."""
        channels = (self._symbols * state - 1).movedim(-1, 1) / math.sqrt(self._symbols - 1)
        (output,) = network(channels, told(channels, level, context))
        output = output.movedim(1, -1).to(state.dtype)
        kept = self._scale * state
        if self._heating == "tied":
            return LogitConditional(categorical_at, kept + output, None)
        return LogitConditional(categorical_at, kept, output)


@final
class Categorical(Parametrized):
    """Categorical operator with any network.

    Args:
        space: One one-hot tensor `(…, S)`.
        network: Learns the logits; its channels are the symbols.
        replaced: ε, probability that a symbol is replaced at T = 1 without a network.
        heating: "tied" (the paper) or independent "replacements".

    Raises:
        ConfigurationError: The space is not one-hot, or the network does not support it.
    """

    def __init__(
        self,
        space: StateSpace,
        network: Network,
        *,
        replaced: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1,
        heating: Heating = "tied",
    ) -> None:
        leaf = symbols_of(space, "a categorical operator")
        symbols = leaf.shape[-1]
        parametrization = CategoricalParametrization(symbols, replaced=replaced, heating=heating)
        channels_first = Space((symbols, *leaf.shape[:-1]), leaf.support, leaf.classes)
        super().__init__(channels_first, parametrization, network, heads=1)


def symbols_of(space: StateSpace, user: str) -> Space:
    """Returns the space of one one-hot tensor.

    Raises:
        ConfigurationError: It is another space, or has a single symbol.
    """
    advice = "choose data of symbols, such as data.name = 'symbols', or an operator for these states"
    leaf = single_tensor(space, "one-hot", user, advice)
    if leaf.shape[-1] < 2:
        raise ConfigurationError(f"Got states with one symbol for {user}, expected at least two.")
    return leaf
