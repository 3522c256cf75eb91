"""The last step of cooling for gray levels: its kernel gives each level a mass (`walkback.kernels.discretized`)."""

from __future__ import annotations

from typing import Literal, TypeAlias, final

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, NormalKernel, discretized_at
from walkback.operators import Conditional, Guidable
from walkback.schedules import Level
from walkback.state import Space

Last: TypeAlias = Literal["normal", "discretized"]


@final
class EndingConditional(Conditional, Guidable):
    """A conditional whose steps to data are of gray levels.

    Args:
        conditional: Makes normal kernels.
        levels: Number of gray levels.
    """

    def __init__(self, conditional: Conditional, levels: int) -> None:
        self._conditional = conditional
        self._levels = levels

    def cooling(self, level: Level) -> Kernel:
        """Returns the kernel of the conditional, discretized in rows at the first level."""
        kernel = self._conditional.cooling(level)
        return discretized_at(kernel, self._levels, level) if isinstance(kernel, NormalKernel) else kernel

    def heating(self, level: Level) -> Kernel:
        """Returns that of the conditional."""
        return self._conditional.heating(level)

    def guided(self, untold: Conditional, scale: float) -> EndingConditional:
        """Returns the guided conditional, with the same last step."""
        if not isinstance(untold, EndingConditional) or not isinstance(self._conditional, Guidable):
            raise TypeError(f"Got {type(untold).__name__}, expected an EndingConditional.")
        return EndingConditional(self._conditional.guided(untold._conditional, scale), self._levels)


def levels_of_last(last: Last, space: Space, mean: str) -> int | None:
    """Returns the number of gray levels of the last step; None for a last step of numbers.

    Raises:
        ConfigurationError: Data or mean have no such step.
    """
    if last == "normal":
        return None
    if space.bins is None:
        raise ConfigurationError(
            "Got operator.last = 'discretized' for data without gray levels, expected dequantized gray levels: leave "
            "out operator.last, or use images without data.noise."
        )
    if mean == "linear":
        raise ConfigurationError(
            "Got operator.last = 'discretized' with operator.mean = 'linear', expected another mean: the pixels of its "
            "kernel depend on each other."
        )
    return space.bins
