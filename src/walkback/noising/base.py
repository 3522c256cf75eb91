"""The interface of noise with closed forms."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from walkback.kernels import Kernel
from walkback.schedules import Level
from walkback.state import State


class Noise(nn.Module, ABC):
    """Noise whose marginals and posteriors are known. Rows may be at different levels."""

    @abstractmethod
    def step(self, source: State, level: Level) -> Kernel:
        """Return q(s_t | s_{t-1}) at s_{t-1} `(B, *E)`."""

    @abstractmethod
    def marginal(self, origin: State, level: Level) -> Kernel:
        """Return q(s_t | s_0) at s_0 `(B, *E)`."""

    @abstractmethod
    def posterior(self, target: State, origin: State, level: Level) -> Kernel:
        """Return q(s_{t-1} | s_t, s_0) at s_t and s_0, both `(B, *E)`.

        At the first level, where s_{t-1} is s_0, it is concentrated at s_0: sampled states are s_0 to rounding, and its
        density has no meaning.
        """


def time_like(time: float | Tensor, leaf: Tensor) -> Tensor:
    """Return a time, one number or `(B,)`, in float64 on the device of `leaf`, shaped to broadcast against it.

    Closed forms are evaluated in double precision: differences of long times would be rounded away.
    """
    ones = (1,) * (leaf.dim() - 1)
    if isinstance(time, Tensor):
        return time.to(leaf.device, torch.float64).reshape(-1, *ones)
    return leaf.new_full((1, *ones), time, dtype=torch.float64)
