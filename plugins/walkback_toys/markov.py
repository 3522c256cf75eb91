"""Finite Markov chains in closed form.

p_T(s' = j | s = i) ∝ P_ij^(1/T)      at each position independently
"""

from __future__ import annotations

import math
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, categorical_at
from walkback.known import ChainOperator
from walkback.schedules import Level
from walkback.state import State, StateSpace, leaves, spaces

_Row = Annotated[tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...], Field(min_length=2)]
_ROUNDING = 1e-6


@final
class Markov(ChainOperator):
    """A chain with a given transition matrix.

    Args:
        space: Space of a one-hot tensor `(…, S)`.
        matrix: P, S rows of S probabilities, from state i to each state j.

    Raises:
        ConfigurationError: The matrix is not square, its rows do not sum to 1, or the space has another form.
    """

    log_matrix: Tensor

    def __init__(
        self, space: StateSpace, *, matrix: Annotated[tuple[_Row, ...], Field(min_length=2, max_length=4096)]
    ) -> None:
        super().__init__()
        size, leaf = len(matrix), spaces(space)[0]
        if any(len(row) != size or abs(math.fsum(row) - 1) > _ROUNDING for row in matrix):
            raise ConfigurationError(
                f"Got operator.matrix with {size} rows, expected as many columns, and rows that sum to 1."
            )
        if isinstance(space, tuple) or leaf.support != "one-hot" or leaf.shape[-1] != size:
            raise ConfigurationError(
                f"Got {leaf.support} states of shape {leaf.shape} for a chain of {size} states, expected one-hot ones: "
                f"--data one-hot:1,{size}."
            )
        self.register_buffer(
            "log_matrix", torch.tensor(matrix, dtype=torch.float64).log().float(), persistent=False
        )

    def kernel(self, state: State, level: Level) -> Kernel:
        """Returns the kernel at states `(B, …, S)`: rows of the matrix."""
        (x,) = leaves(state)
        logits = self.log_matrix.to(x.dtype)[x.argmax(-1)]
        return categorical_at(logits, level)
