"""Components that have options only, with annotations that are strings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class Gaussian:
    def __init__(
        self,
        space: object,
        *,
        sigma: PositiveFloat = 0.1,
        mean: Literal["mix", "preconditioned"] = "mix",
        widths: tuple[PositiveInt, ...] = (64,),
        blend: Annotated[float, Field(gt=0, lt=1)] | Literal["learned"] = 0.5,
        cutoff: float | None = None,
        norm: bool = False,
        label: str = "",
        copy: int = 1,
    ) -> None:
        """Every type of option there is."""


class Bernoulli:
    def __init__(self, space: object, *, width: PositiveInt = 32) -> None:
        """One option."""


class Doubling:
    def __init__(self, *, factor: Annotated[float, Field(gt=1)] = 2, n: NonNegativeInt = 3) -> None:
        """A default that is an int where a float is meant."""


class Listed:
    def __init__(self, *, levels: tuple[PositiveFloat, ...]) -> None:
        """An option without default."""


class Normal:
    def __init__(self, space: object, *, scale: PositiveFloat = 1.0) -> None:
        """One option."""


class Plain:
    """No options."""


class Points:
    def __init__(
        self,
        *,
        noise: NonNegativeFloat = 0.0,
        binarize: Literal["none", "stochastic"] = "none",
        path: Path | None = None,
    ) -> None:
        """Options that operators may propose."""


class Spiral:
    def __init__(self, *, turns: PositiveFloat = 1.5) -> None:
        """No option that operators propose."""


class WrongDefault:
    def __init__(self, *, size: PositiveInt = 0) -> None:
        """The default breaks the annotation."""


class UnreadableAnnotation:
    def __init__(self, *, size: DoesNotExist = 0) -> None:  # noqa: F821
        """The annotation names nothing."""


class OptionCalledName:
    def __init__(self, *, name: str = "") -> None:
        """A configuration keeps the component's own name there."""


NOT_A_CLASS = 3
