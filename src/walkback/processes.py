"""Heating processes q: how a walk leaves the data.

    tied     q_T(s_t | s_{t-1}) = p_T(s_t | s_{t-1})      the paper: the operator destroys with itself

The process is a seam of its own because the bound (eq. 5) holds for any q: fixed noise (denoising autoencoders, NET)
and walks infused with the data differ from the paper's in nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from walkback.kernels import Kernel
from walkback.operators import Conditional
from walkback.schedules import Level
from walkback.state import State


class Process(ABC):
    """The destructive walk. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """q_{T_t}(· | s_{t-1}).

        Args:
            conditional: The operator at the source.
            source: s_{t-1}, `(B, *E)`.
            level: Level t.
            origin: s_0, `(B, *E)`, for walks that keep looking at where they came from.
        """


@final
class TiedProcess(Process):
    """The operator's own heating kernel (Algorithm 1)."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """The kernel that the operator offers for heating at this level."""
        return conditional.heating(level)


@final
class CoolingProcess(Process):
    """The operator's cooling kernel p_T in the place of q_T: a walk at one level is then a chain of the model."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """p_T(· | s)."""
        return conditional.cooling(level)
