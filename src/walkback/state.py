"""States: a tensor `(B, *E)`, or a tuple of such tensors that share the batch dimension B.

    s = x            one leaf, e.g. an image
    s = (x, h, …)    several leaves, e.g. visible and latent units

Everything that handles states goes through these few functions, so that nothing else needs to know which it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = Tensor | tuple[Tensor, ...]
Context: TypeAlias = State | None
"""What kernels are conditioned on beside the state: tensors `(B, …)` whose rows go with those of the state.

Class labels are `(B,)` int64, -1 for a row without one. None: nothing."""
Support: TypeAlias = Literal["real", "binary", "one-hot"]
"""What the entries of a leaf are: numbers; bits, of which all combinations are states; or symbols, bits of which
exactly one is 1 along the last dimension of the event. Bits of symbols are not free: bits/dim would mean nothing."""


@dataclass(frozen=True, slots=True)
class Space:
    """Where one leaf of a state lives.

    Attributes:
        shape: Event shape E.
        support: See `Support`.
        classes: Number of classes that states may be conditioned on; 0: none.
        noise: ν, standard deviation of the Gaussian noise that real data are smoothed by, in their units; 0: none.
    """

    shape: tuple[int, ...]
    support: Support = "real"
    classes: int = 0
    noise: float = 0.0

    @property
    def size(self) -> int:
        """Number of dimensions D, the product of the event shape."""
        return math.prod(self.shape)


StateSpace: TypeAlias = Space | tuple[Space, ...]


def leaves(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state.

    >>> len(leaves((torch.zeros(2, 3), torch.ones(2, 1))))
    2
    """
    return state if isinstance(state, tuple) else (state,)


def spaces(space: StateSpace) -> tuple[Space, ...]:
    """The spaces of a state's leaves, in order."""
    return space if isinstance(space, tuple) else (space,)


def map_state(function: Callable[..., Tensor], first: State, *others: State) -> State:
    """Apply `function` leaf by leaf to states of the same structure.

    >>> map_state(torch.add, (torch.ones(1, 1), torch.zeros(1, 2)), (torch.ones(1, 1), torch.ones(1, 2)))
    (tensor([[2.]]), tensor([[1., 1.]]))
    """
    if isinstance(first, tuple):
        rows = [leaves(state) for state in (first, *others)]
        return tuple(function(*row) for row in zip(*rows, strict=True))
    return function(first, *others)


def map_context(function: Callable[[Tensor], Tensor], context: Context) -> Context:
    """Apply `function` leaf by leaf; None stays None.

    >>> map_context(torch.neg, None) is None
    True
    """
    return None if context is None else map_state(function, context)


def concatenate_contexts(contexts: Sequence[Context]) -> Context:
    """Join the contexts of batches as `concatenate` joins their states; None where none has one."""
    known = [context for context in contexts if context is not None]
    return concatenate(known) if len(known) == len(contexts) and known else None


def batch_size(state: State) -> int:
    """B, the number of states in the batch."""
    return leaves(state)[0].shape[0]


def device_of(state: State) -> torch.device:
    """The device that holds the state."""
    return leaves(state)[0].device


def concatenate(states: Sequence[State]) -> State:
    """Join batches of states along the batch dimension: (B₁, *E), (B₂, *E), … → (ΣB, *E)."""
    return map_state(lambda *rows: torch.cat(rows), *states)


def sum_events(values: Tensor) -> Tensor:
    """Sum over all event dimensions: `(B, *E)` → `(B,)`."""
    return values.flatten(1).sum(1) if values.dim() > 1 else values


def dimensions(space: StateSpace) -> int:
    """Total number of dimensions of a state."""
    return sum(leaf.size for leaf in spaces(space))
