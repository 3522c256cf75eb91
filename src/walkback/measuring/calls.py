"""Network calls: the rows that an operator is evaluated at, counted while it runs.

    a walk of K steps       K + 1 calls a row        a chain        1 call a step and row
    updates = "stacked"     K more, with gradient    a path of jumps K calls a row

Nothing is assumed of processes, objectives and updates: a hook counts the rows of every forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from walkback.state import batch_size


@dataclass(slots=True)
class Calls:
    """A running count.

    Attributes:
        rows: Rows of all forward passes.
        with_gradient: Rows of those that record a graph, which cost about three times as much with the backward pass.
    """

    rows: int = 0
    with_gradient: int = 0


@contextmanager
def counted_calls(operator: nn.Module) -> Iterator[Calls]:
    """Count the calls of an operator in the block; a compiled operator must not be counted."""
    calls = Calls()

    def count(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any], __: Any) -> None:
        rows = batch_size(positional[0] if positional else named["state"])
        calls.rows += rows
        calls.with_gradient += rows * torch.is_grad_enabled()

    hook = operator.register_forward_hook(count, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()
