"""States: a tensor `(B, *E)`, or a tuple of such tensors that share the batch dimension B.

    s = x            one leaf, e.g. an image
    s = (x, h, …)    several leaves, e.g. visible and latent units

All code that handles states uses the functions below, so no other module depends on which of the two a state is.
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
"""What kernels are conditioned on in addition to the state: tensors `(B, …)`, row by row like the state.

Class labels are `(B,)` int64, with -1 for a row without a label. None: unconditional."""
Support: TypeAlias = Literal["real", "binary", "one-hot"]
"""Kind of values in a leaf: "real" numbers; "binary" entries, where every combination is a state; or "one-hot" symbols,
where exactly one entry is 1 along the last event dimension. Entries of symbols are dependent, so bits/dim is undefined
for them."""


@dataclass(frozen=True, slots=True)
class Space:
    """The space of one leaf of a state.

    Attributes:
        shape: Event shape E.
        support: See `Support`.
        classes: Number of classes that states may be conditioned on; 0: none.
        noise: ν, standard deviation of the Gaussian noise that real data are smoothed by, in their units; 0: none.
        bins: Number of gray levels that real data on [0, 1] were dequantized from; None: not quantized.
    """

    shape: tuple[int, ...]
    support: Support = "real"
    classes: int = 0
    noise: float = 0.0
    bins: int | None = None

    @property
    def size(self) -> int:
        """Number of dimensions D, the product of the event shape."""
        return math.prod(self.shape)


StateSpace: TypeAlias = Space | tuple[Space, ...]


def leaves(state: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state.

    >>> len(leaves((torch.zeros(2, 3), torch.ones(2, 1))))
    2
    """
    return state if isinstance(state, tuple) else (state,)


def entry_sum(state: State) -> Tensor:
    """Return the sum of all entries, a scalar on the state's device.

    It is finite if they are, unless they are too large to be used anyway: a check that neither waits for a device nor
    needs memory.
    """
    sums = [leaf.detach().sum() for leaf in leaves(state) if leaf.is_floating_point()]
    return torch.stack(sums).sum() if sums else torch.zeros((), device=leaves(state)[0].device)


def spaces(space: StateSpace) -> tuple[Space, ...]:
    """Return the spaces of a state's leaves, in order."""
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
    """Join the contexts of batches as `concatenate` joins their states; None unless every batch has a context."""
    known = [context for context in contexts if context is not None]
    return concatenate(known) if len(known) == len(contexts) and known else None


def batch_size(state: State) -> int:
    """Return B, the number of states in the batch."""
    return leaves(state)[0].shape[0]


def device_of(state: State) -> torch.device:
    """Return the device of the state."""
    return leaves(state)[0].device


def concatenate(states: Sequence[State]) -> State:
    """Join batches of states along the batch dimension: (B₁, *E), (B₂, *E), … → (ΣB, *E)."""
    return map_state(lambda *rows: torch.cat(rows), *states)


def sum_events(values: Tensor) -> Tensor:
    """Sum over all event dimensions: `(B, *E)` → `(B,)`."""
    return values.flatten(1).sum(1) if values.dim() > 1 else values


def dimensions(space: StateSpace) -> int:
    """Return the total number of dimensions of a state."""
    return sum(leaf.size for leaf in spaces(space))
