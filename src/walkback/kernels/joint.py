"""Kernels made of kernels: of the leaves of a state, and of the batches of a walk.

    Product   log p(x, h) = log p(x) + log p(h)

Functions of any kernel are here as well, because they look into products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from walkback.kernels.base import Divergent, Expecting, Kernel
from walkback.kernels.discrete import BernoulliKernel, CategoricalKernel
from walkback.kernels.normal import NormalKernel
from walkback.state import State, concatenate, leaves, map_state


@final
class ProductKernel(Kernel):
    """Independent kernels, one per leaf of a tuple state.

    Args:
        kernels: One per leaf, in the order of the leaves.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = tuple(kernels)

    def sample(self, generator: torch.Generator) -> State:
        """Draw one leaf from each kernel, in order."""
        return tuple(leaf for kernel in self.kernels for leaf in leaves(kernel.sample(generator)))

    def log_prob(self, state: State) -> Tensor:
        """Return the sum of the leaves' log-probabilities, `(B,)`, nats."""
        pairs = zip(self.kernels, leaves(state), strict=True)
        return torch.stack([kernel.log_prob(leaf) for kernel, leaf in pairs]).sum(0)


def expectation(kernel: Kernel) -> State | None:
    """Return E[s'] `(B, *E)`, or None if the kernel has no mean. A product has one if all of its parts do."""
    if isinstance(kernel, Expecting):
        return kernel.expectation()
    if isinstance(kernel, ProductKernel):
        parts = [part for part in map(expectation, kernel.kernels) if part is not None]
        if len(parts) == len(kernel.kernels):
            return tuple(leaf for part in parts for leaf in leaves(part))
    return None


def divergence(first: Kernel, second: Kernel) -> Tensor | None:
    """Return KL(first ‖ second), `(B,)`, nats, differentiably; None if it has no closed form.

    Of products it is the sum over their parts.
    """
    if isinstance(second, Divergent):
        return second.divergence_from(first)
    if isinstance(first, ProductKernel) and isinstance(second, ProductKernel):
        pairs = zip(first.kernels, second.kernels, strict=True)
        parts = [part for part in (divergence(*pair) for pair in pairs) if part is not None]
        return torch.stack(parts).sum(0) if len(parts) == len(second.kernels) else None
    return None


@final
class StackedKernel(Kernel):
    """Concatenation of several kernels along the batch, e.g. of the K steps of a walk: `(ΣB, *E)`.

    Args:
        kernels: One per batch of rows.
        rows: B, the number of rows of each kernel.
    """

    def __init__(self, kernels: Sequence[Kernel], rows: int) -> None:
        self.kernels = tuple(kernels)
        self._rows = rows

    def sample(self, generator: torch.Generator) -> State:
        """Draw all rows, kernel by kernel in order."""
        return concatenate([kernel.sample(generator) for kernel in self.kernels])

    def log_prob(self, state: State) -> Tensor:
        """Return `(ΣB,)`, nats; each kernel scores its own rows."""
        parts = [
            kernel.log_prob(map_state(lambda leaf, start=start: leaf[start : start + self._rows], state))
            for kernel, start in zip(
                self.kernels, range(0, len(self.kernels) * self._rows, self._rows), strict=True
            )
        ]
        return torch.cat(parts)


def stacked(kernels: Sequence[Kernel], rows: int) -> Kernel:
    """Concatenate kernels of `rows` rows each; kernels of one kind with a closed form stay of that kind."""
    normal = [kernel for kernel in kernels if isinstance(kernel, NormalKernel)]
    bits = [kernel for kernel in kernels if isinstance(kernel, BernoulliKernel)]
    symbols = [kernel for kernel in kernels if isinstance(kernel, CategoricalKernel)]
    if len(normal) == len(kernels):
        # Variances are often one number for all events: only their rows are repeated.
        shape = torch.broadcast_shapes(*(kernel.variance.shape[1:] for kernel in normal))  # type: ignore[no-untyped-call]
        variances = [kernel.variance.expand(rows, *shape) for kernel in normal]
        return NormalKernel(torch.cat([kernel.mean for kernel in normal]), torch.cat(variances))
    if len(bits) == len(kernels):
        return BernoulliKernel(torch.cat([kernel.logits for kernel in bits]))
    if len(symbols) == len(kernels):
        return CategoricalKernel(torch.cat([kernel.logits for kernel in symbols]))
    return StackedKernel(kernels, rows)
