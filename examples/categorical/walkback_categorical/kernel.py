"""A symbol in each of L places, one of S = 2^b, independent of the others.

    log p(x) = Σ_l log softmax(logits_l)_{k_l},   k_l = Σ_i 2^i x_li the number of symbol l

A symbol is stored as the b bits of its number: leaves `(B, L, b)` of support "binary", of which every value is a state.
The bits of one symbol are not independent, which is what sets this apart from `BernoulliKernel`. Temperature divides
logits, as it does those of bits (section 3.3 of the paper).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.schedules import Level
from walkback.state import Space, State, StateSpace, leaves, sum_events

_MOST_BITS = 10


def encode(symbols: Tensor, bits: int) -> Tensor:
    """Numbers `(…, L)` → bits `(…, L, b)`, uint8.

    >>> encode(torch.tensor([[1, 2]]), 2).tolist()
    [[[1, 0], [0, 1]]]
    """
    return (symbols[..., None] >> torch.arange(bits, device=symbols.device)).bitwise_and(1).to(torch.uint8)


def decode(state: Tensor) -> Tensor:
    """Bits `(…, L, b)` → numbers `(…, L)`, int64."""
    return (state.long() << torch.arange(state.shape[-1], device=state.device)).sum(-1)


@final
class CategoricalKernel(Kernel):
    """Independent symbols.

    Args:
        logits: `(B, L, S)`; any constant may be added to those of a place.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, generator: torch.Generator) -> Tensor:
        """Bits in the dtype of the logits, `(B, L, b)`: of the symbol whose part of [0, 1) a uniform number is in."""
        logits = self.logits.detach()
        below = logits.softmax(-1).cumsum(-1)[..., :-1]
        uniform = torch.rand(logits.shape[:-1], generator=generator, dtype=logits.dtype, device=logits.device)
        symbols = (uniform[..., None] >= below).sum(-1)
        return encode(symbols, (logits.shape[-1] - 1).bit_length()).to(logits.dtype)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats."""
        chosen = decode(leaves(state)[0])[..., None]
        return sum_events(self.logits.log_softmax(-1).expand(*chosen.shape[:-1], -1).gather(-1, chosen))


def categorical_at(logits: Tensor, level: Level) -> CategoricalKernel:
    """The kernel at a level: softmax(logits / T)."""
    return CategoricalKernel(logits / level.temperature_like(logits))


def places_and_bits(space: StateSpace, name: str) -> tuple[int, int]:
    """(L, b) of a space of symbols.

    Raises:
        ConfigurationError: It is another space.
    """
    if isinstance(space, Space) and space.support == "binary" and len(space.shape) == 2:
        places, bits = space.shape
        if bits <= _MOST_BITS:
            return places, bits
    raise ConfigurationError(
        f"Got {space} for '{name}', expected one binary tensor of shape (places, bits) with at most {_MOST_BITS} "
        "bits: choose data.name = 'potts'."
    )
