"""Network calls whose rows are divided among processes that draw the same states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from walkback.errors import WalkbackError
from walkback.networks import Told
from walkback.support.world import World


@contextmanager
def divided_calls(operator: nn.Module, world: World) -> Iterator[None]:
    """Divide the rows of each network call in the block among processes that draw the same states.

    Rows do not depend on one another, so the outputs are those of one process, up to the rounding of products of
    matrices, which may depend on the number of rows. Only calls of modules with a state `(B, *E)` and a `Told` are
    divided, and none that record a graph.
    """
    if world.size == 1:
        yield
        return
    # The network that runs, and its number of rows: networks in it are not divided.
    running: list[tuple[nn.Module, int]] = []

    def take(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        match inputs:
            case (Tensor() as state, Told() as told) if not (running or torch.is_grad_enabled()):
                running.append((module, len(state)))
                each = -(-len(state) // world.size)
                # The last processes repeat the last row, because all gather equally many.
                rows = torch.arange(world.rank * each, (world.rank + 1) * each).clamp(max=len(state) - 1)
                return state[rows], _at(rows, told)
        return None

    def join(module: nn.Module, _: tuple[Any, ...], outputs: Any) -> tuple[Tensor, ...] | None:
        if not running or running[0][0] is not module:
            return None
        count = running.pop()[1]
        if not (isinstance(outputs, tuple) and all(isinstance(output, Tensor) for output in outputs)):
            raise WalkbackError(
                f"Got {type(outputs).__name__} from the network {type(module).__name__}, expected a tuple of tensors."
            )
        return tuple(world.gather(output)[:count] for output in outputs)

    hooks = [
        hook
        for module in operator.modules()
        for hook in (module.register_forward_pre_hook(take), module.register_forward_hook(join))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _at(rows: Tensor, told: Told) -> Told:
    """Return the inputs of some rows, by their numbers."""
    same = len(told.log2_temperature) == 1
    label = None if told.label is None else told.label[rows]
    return Told(told.log2_temperature if same else told.log2_temperature[rows], label)
