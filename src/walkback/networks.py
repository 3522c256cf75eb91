"""Networks: the modules inside operators, independent of the kernel that an operator makes of their outputs.

    outputs = network(s, told)      one tensor `(B, *E)` per head, from s `(B, *E)`

A `Network` is a configuration that builds a module. The operator declares the ports it needs (a head for the mean, one
for the variance, …) and turns the outputs into a kernel, so any network can be combined with any operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Ports:
    """Inputs and outputs that a network is built for.

    Attributes:
        shape: Event shape E of the state and of each output.
        heads: Number of outputs.
        classes: Number of classes that it can be conditioned on; 0 if it is unconditional.
    """

    shape: tuple[int, ...]
    heads: int
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """Inputs of a network in addition to the state.

    Attributes:
        log2_temperature: log2 T, `(1,)` if all rows have the same temperature, else `(B,)`.
        label: Class of each row, `(B,)` int64, -1 for no label; None if no row has one.
    """

    log2_temperature: Tensor
    label: Tensor | None = None


class Network(ABC):
    """Abstract network that can be built for given ports. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def build(self, ports: Ports) -> nn.Module:
        """Build a new module, its weights drawn from torch's global generator.

        The module's forward takes a state `(B, *E)` and a `Told`, and returns a tuple of `ports.heads` tensors
        `(B, *E)`. If a head is initialized to zero, a new operator starts as its skip connection.

        Raises:
            ConfigurationError: The network does not support such states.
        """
