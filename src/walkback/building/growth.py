"""What modules register while they are built: a constructor that never ends is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from walkback.errors import ConfigurationError
from walkback.storage.tensorheader import MAX_TENSORS
from walkback.support.sizes import machine_memory

_BYTES = 8  # of a weight and its copy, in single precision

Registered = Callable[[nn.Module, str, Any], None]


@contextmanager
def observed(tensor: Registered, module: Registered) -> Iterator[None]:
    """Call `tensor` for each parameter and buffer that a module registers in the block, and `module` for each part."""
    handles = (
        hooks.register_module_parameter_registration_hook(tensor),
        hooks.register_module_buffer_registration_hook(tensor),
        hooks.register_module_module_registration_hook(module),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def savable() -> Iterator[None]:
    """Stop a construction in the block whose tensors do not fit into a checkpoint, or twice into this machine.

    Twice, because they are there two times when they are loaded, and when their gradient is.

    Raises:
        ConfigurationError: It registers too much.
    """
    memory = machine_memory()
    most = math.inf if memory is None else memory // _BYTES
    counts = {"tensors": 0, "layers": 0, "weights": 0}

    def count(what: str, number: int, limit: float) -> None:
        counts[what] += number
        if counts[what] > limit:
            raise ConfigurationError(
                f"Got a model of more than {limit:,.0f} {what}, which fits into no checkpoint or not into memory: "
                "choose fewer or smaller layers."
            )

    def tensor(module: nn.Module, name: str, value: Any) -> None:
        count("tensors", 1, MAX_TENSORS)
        if isinstance(value, Tensor) and not value.is_meta:
            count("weights", value.numel(), most)

    with observed(tensor, lambda *_: count("layers", 1, MAX_TENSORS)):
        yield
