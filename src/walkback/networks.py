"""Networks: what an operator learns with, apart from what it makes of it.

    outputs = network(s, told)      one tensor `(B, *E)` a head, from s `(B, *E)`

A `Network` is a configuration that builds a module. The operator says which ports it needs (a head for the mean, one
for the variance, …) and turns the outputs into a kernel, so that one network serves every operator, and one operator
every network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Ports:
    """What a network is asked for.

    Attributes:
        shape: Event shape E of the state and of each output.
        heads: Number of outputs.
        classes: Number of class labels that it may be told; 0: none.
    """

    shape: tuple[int, ...]
    heads: int
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What a network is told beside the state.

    Attributes:
        log2_temperature: log2 T, `(1,)` where all rows are at one temperature, else `(B,)`.
        label: Class of each row, `(B,)` int64, -1 for no label; None: no row has one.
    """

    log2_temperature: Tensor
    label: Tensor | None = None


class Network(ABC):
    """A network that can be built for any ports. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def build(self, ports: Ports) -> nn.Module:
        """A new module, its weights drawn from torch's global generator.

        Its forward takes a state `(B, *E)` and a `Told`, and returns a tuple of `ports.heads` tensors `(B, *E)`. A head
        that is zero at first makes a new operator start as its skip connection.

        Raises:
            ConfigurationError: It cannot serve such states.
        """
