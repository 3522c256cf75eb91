"""Random numbers that are the same on every device: they are drawn on the CPU and copied.

Generators of devices are different algorithms. Inside `SameNoise` a random operation runs on the CPU with a CPU
generator of the same seed, one for each generator that the code was given, and its result goes where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


@final
class SameNoise(TorchDispatchMode):
    """Draw on the CPU whatever is drawn inside.

    Attributes:
        draws: Number of random operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws = 0
        self._twins: dict[int, tuple[torch.Generator, torch.Generator]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        arguments = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in getattr(func, "tags", ()):
            return func(*args, **arguments)
        self.draws += 1
        device = _device(args, arguments)
        if "device" in arguments:
            arguments["device"] = torch.device("cpu")
        if arguments.get("generator") is not None:
            arguments["generator"] = self._twin(arguments["generator"])
        drawn = func(*tree_map(_cpu, args), **tree_map(_cpu, arguments))
        if func.__name__.split(".")[0].endswith("_"):  # in place: what it was called on must change
            return args[0].copy_(drawn)
        return tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, drawn)

    def _twin(self, given: torch.Generator) -> torch.Generator:
        """The CPU generator that stands for another, which is kept so that its id stays its own."""
        if id(given) not in self._twins:
            self._twins[id(given)] = (given, torch.Generator().manual_seed(given.initial_seed()))
        return self._twins[id(given)][1]


def _cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _device(args: tuple[Any, ...], arguments: Mapping[str, Any]) -> torch.device:
    if arguments.get("device") is not None:
        return torch.device(arguments["device"])
    return next((value.device for value in args if isinstance(value, Tensor)), torch.device("cpu"))
