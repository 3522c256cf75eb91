"""Spaces without examples: where a known chain moves.

"real:2"   "binary:3,4"   "one-hot:12,3"
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Annotated, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from typing_extensions import override

from walkback.data.dataset import SPLITS, DataInfo, Dataset, Split
from walkback.errors import ConfigurationError
from walkback.state import Space, Support

_SPACE = re.compile(r"(real|binary|one-hot):(\d+(?:,\d+)*)")


def parse_space(text: str) -> Space:
    """Read `SUPPORT:SIZE[,SIZE]…`.

    Raises:
        ConfigurationError: `text` is not a space.
    """
    match = _SPACE.fullmatch(text)
    shape = () if match is None else tuple(int(size) for size in match[2].split(","))
    if match is None or 0 in shape or math.prod(shape) > 2**28:
        raise ConfigurationError(
            f"Got the space {text!r:.80}, expected SUPPORT:SIZE,…, such as real:2, binary:5 or one-hot:12,3."
        )
    support: Support = match[1]  # type: ignore[assignment]  # one of the pattern's words
    return Space(shape, support)


@final
class EmptyData(Dataset):
    """A space without examples.

    Args:
        shape: Event shape.
        support: Kind of values.
        bins: Number of gray levels of data on [0, 1]; None if real values are not quantized.
    """

    def __init__(
        self,
        *,
        shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)],
        support: Support = "real",
        bins: Annotated[int, Field(ge=2, le=2**16)] | None = None,
    ) -> None:
        if bins is not None and support != "real":
            raise ConfigurationError(
                f"Got data.bins = {bins} for {support} states, expected real ones: leave out data.bins."
            )
        self._space = Space(shape, support)
        self._bins = bins

    @override
    def prepare(self) -> None:
        """Do nothing: there are no files to prepare."""

    @property
    @override
    def info(self) -> DataInfo:
        space = self._space
        name = f"{space.support}:{','.join(map(str, space.shape))}"
        described = name if self._bins is None else f"{name} of {self._bins} gray levels"
        return DataInfo(
            name=name,
            shape=space.shape,
            support=space.support,
            bins=self._bins,
            splits=dict.fromkeys(SPLITS, 0),
            fingerprint=hashlib.sha256(described.encode()).hexdigest()[:16],
        )

    @override
    def examples(self, split: Split) -> Tensor:
        return torch.zeros(0, *self._space.shape)

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows.to(generator.device).float()
