"""Symbols that change at random, and a network that says into which.

    p_T(s' | s) = softmax( (c s + f(s, log T)) / T )   place by place,   c = log((1 - ε) (S - 1) / ε),   s one-hot

With f = 0 a symbol stays with probability 1 - ε at T = 1, and each of the other S - 1 takes its place with ε / (S - 1);
at c / T → 0 all are equally likely. The network adds what the other places tell.

    heating = "tied"     the same kernel (the paper): what forgets the data is what has learned them
    heating = "plain"    softmax(c s / T): the network takes no part

Both bounds hold, and the plain one is closer; but at T = 1 its chain is a denoiser without noise to undo, which drives
symbols to the likeliest. The chain of the tied operator stays on the data: see the example's test, and README.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import one_hot

from walkback.kernels import Kernel
from walkback.operators import Conditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State, StateSpace, leaves
from walkback_categorical.kernel import categorical_at, decode, places_and_bits

Heating: TypeAlias = Literal["tied", "plain"]

_FORGOTTEN = 0.2
"""c / T at which every symbol is within a fifth of equally likely."""


@final
class CategoricalConditional(Conditional):
    """Logits at T = 1 of both directions, `(B, L, S)` each."""

    def __init__(self, cooling: Tensor, heating: Tensor) -> None:
        self._cooling, self._heating = cooling, heating

    def cooling(self, level: Level) -> Kernel:
        """What was learned."""
        return categorical_at(self._cooling, level)

    def heating(self, level: Level) -> Kernel:
        """The same, or chance."""
        return categorical_at(self._heating, level)


@final
class CategoricalMLP(TransitionOperator):
    """Categorical operator with two hidden layers; see the module's equations.

    Args:
        space: Symbols as bits, support "binary", shape (L, b).
        replaced: ε, probability that a step at T = 1 replaces a symbol by another, without a network.
        heating: What heats.
        hidden: Units of each layer.

    Raises:
        ConfigurationError: The data are no symbols.
    """

    def __init__(
        self,
        space: StateSpace,
        *,
        replaced: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.2,
        heating: Heating = "tied",
        hidden: PositiveInt = 128,
    ) -> None:
        super().__init__()
        places, bits = places_and_bits(space, "categorical-mlp")
        self._symbols, self._tied = 2**bits, heating == "tied"
        self._kept_logit = math.log((1 - replaced) * max(1, self._symbols - 1) / replaced)
        units = places * self._symbols
        self.network = nn.Sequential(
            *(nn.Linear(units + 1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()),
            nn.Linear(hidden, units),
        )
        nn.init.zeros_(self.network[-1].get_parameter("weight"))
        nn.init.zeros_(self.network[-1].get_parameter("bias"))

    @property
    def max_temperature(self) -> float:
        """c over the logit that counts as forgotten."""
        return max(1.0, self._kept_logit / _FORGOTTEN)

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """The kernels at symbols `(B, L, b)`."""
        (bits,) = leaves(state)
        s = one_hot(decode(bits), self._symbols).to(bits.dtype)
        log_t = level.temperature_like(s.flatten(1)).log().expand(len(s), 1)
        learned = self.network(torch.cat([s.flatten(1), log_t], dim=1)).to(s.dtype).reshape(s.shape)
        kept = self._kept_logit * s
        return CategoricalConditional(kept + learned, kept + learned if self._tied else kept)
