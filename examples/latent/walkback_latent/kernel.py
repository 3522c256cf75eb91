"""Blocked updates of visible and latent units: one block, then the other given it.

    heating   q(v', h') = q(v') q(h' | v')          the latent units last
    cooling   p(v', h') = p(h') p(v' | h')          the latent units first: a step back undoes the blocks in reverse

    codes     p(h) = softmax(logits)_k,   k = Σ_i 2^i h_i

`ProductKernel` of the core is the case where neither block looks at the other. Summed over h', cooling is a mixture of
2^H Gaussians: the visible units can jump, which one Gaussian cannot. That is why cooling has a logit for every code:
bits that were independent given v could not say which of them go together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from walkback.kernels import Kernel
from walkback.state import State, leaves

Given: TypeAlias = Callable[[Tensor], Kernel]
"""The first block, once it is there → the kernel of the second."""


@final
class BlockedKernel(Kernel):
    """A block, then the other given it; states are (v, h).

    Args:
        leads: Which block comes first.
        first: Its kernel.
        second: That of the other.
    """

    def __init__(self, leads: Literal["v", "h"], first: Kernel, second: Given) -> None:
        self._visible_leads = leads == "v"
        self._first = first
        self._second = second

    def sample(self, generator: torch.Generator) -> State:
        """(v', h')."""
        (a,) = leaves(self._first.sample(generator))
        (b,) = leaves(self._second(a).sample(generator))
        return (a, b) if self._visible_leads else (b, a)

    def log_prob(self, state: State) -> Tensor:
        """log p(first) + log p(second | first), `(B,)`, nats."""
        v, h = leaves(state)
        a, b = (v, h) if self._visible_leads else (h, v)
        return self._first.log_prob(a) + self._second(a).log_prob(b)


@final
class CodeKernel(Kernel):
    """One of 2^H codes of H bits.

    Args:
        logits: `(B, 2^H)`.
    """

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits
        self._powers = 2 ** torch.arange((logits.shape[-1] - 1).bit_length(), device=logits.device)

    def sample(self, generator: torch.Generator) -> Tensor:
        """`(B, H)`, in the dtype of the logits."""
        logits = self._logits.detach()
        code = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        return (code.bitwise_and(self._powers) > 0).to(logits.dtype)

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats."""
        code = (leaves(state)[0].long() * self._powers).sum(-1, keepdim=True)
        return self._logits.log_softmax(-1).gather(-1, code)[:, 0]
