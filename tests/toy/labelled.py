"""What is conditioned on a class, and known: operators that go home to a class, data that tell their class."""

from __future__ import annotations

from typing import final

import torch
from tests.toy.exact import Pair, filled
from torch import Tensor, nn

from walkback.data import DataInfo, Dataset, Labelled, Split
from walkback.kernels import NormalKernel
from walkback.operators import ClassConditional, Conditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State, leaves

SCALE = 10.0
"""Data of class k are 10 k, nearly."""


def home(context: Context, like: Tensor) -> tuple[Tensor, Tensor]:
    """10 k of each row, and whether it has a class at all, shaped to broadcast."""
    rows = (-1, *(1,) * (like.dim() - 1))
    if context is None:
        return like.new_zeros(len(like)).reshape(rows), torch.zeros(len(like), dtype=torch.bool).reshape(rows)
    (label,) = leaves(context)
    assert label.shape == (len(like),), "a context goes with the rows of its state"
    return SCALE * label.to(like).reshape(rows), (label >= 0).reshape(rows)


@final
class Homing(TransitionOperator, ClassConditional):
    """s' = 10 k, nearly, where a row has class k; s' = s, nearly, where it has none. Notes the contexts it sees."""

    def __init__(self, classes: int = 3, variance: float = 1e-8) -> None:
        super().__init__()
        self._classes = classes
        self._variance = variance
        self.seen: list[Context] = []

    @property
    def max_temperature(self) -> float:
        return 2.0

    @property
    def num_classes(self) -> int:
        return self._classes

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (x,) = leaves(state)
        self.seen.append(context)
        where, known = home(context, x)
        mean = torch.where(known, where.expand_as(x), x)
        return Pair(lambda _: NormalKernel(mean, filled(self._variance, x)))


@final
class Around(TransitionOperator, ClassConditional):
    """s' = m_k + a (s - m_k) + √(1 - a²) σ ε: in detailed balance with N(m_k, σ²).

    m is learned; the last is of no class.

    Args:
        means: m, `(K + 1, D)`.
        a: a.
        sigma: σ.
    """

    def __init__(self, means: Tensor, a: float = 0.6, sigma: float = 1.0) -> None:
        super().__init__()
        self.means = nn.Parameter(means.clone())
        self._a = a
        self._sigma = sigma

    @property
    def max_temperature(self) -> float:
        return 2.0

    @property
    def num_classes(self) -> int:
        return len(self.means) - 1

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (x,) = leaves(state)
        label = torch.full((len(x),), -1) if context is None else leaves(context)[0]
        mean = self.means[label]  # -1 is the last
        spread = filled((1 - self._a**2) * self._sigma**2, x)
        kernel = NormalKernel(mean + self._a * (x - mean), spread)
        return Pair(lambda _: kernel)


@final
class Told(Dataset, Labelled):
    """`num` examples a split, of K classes in turn; those of class k are 10 k with noise of size 0.01.

    Args:
        num: Examples a split.
        told: Whether a model is told the classes.
        classes: K.
    """

    def __init__(self, num: int = 60, *, told: bool = True, classes: int = 3) -> None:
        self._num = num
        self._told = told
        self._classes = classes

    def prepare(self) -> None:
        pass

    @property
    def info(self) -> DataInfo:
        counts = torch.bincount(self.labels("train"), minlength=self._classes).tolist()
        told = {f"class {number}": count for number, count in enumerate(counts)} if self._told else {}
        splits = {"train": self._num, "validation": self._num, "test": self._num}
        return DataInfo("told", (2,), splits=splits, fingerprint="told", classes=told)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"class {number}" for number in range(self._classes))

    def labels(self, split: Split) -> Tensor:
        return torch.arange(self._num) % self._classes

    def examples(self, split: Split) -> Tensor:
        noise = torch.randn(self._num, 2, generator=torch.Generator().manual_seed(len(split)))
        return SCALE * self.labels(split)[:, None] + 0.01 * noise

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows.to(generator.device).double()
