"""Diagnostics: measurements of a trained operator, chosen by name (`walkback diagnose NAME CKPT`).

    Subject (model, data, seed, …) → Diagnostic.measure → Report (figures with errors, series, warnings)

A diagnostic reads its options from the keyword-only arguments of `__init__`, draws randomness from generators derived
of the subject's seed only, and raises `WalkbackError` rather than return a figure that it cannot stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, final

import torch
from torch import Tensor

from walkback.data import DataInfo, Dataset, Split
from walkback.errors import ConfigurationError
from walkback.model import Model
from walkback.operators import initial_state
from walkback.report import Report
from walkback.sampling import anneal, last
from walkback.state import State
from walkback.storage.work_cache import Ledger
from walkback.support.seeding import generator

Start: TypeAlias = Literal["annealed", "data"]
"""Where chains begin: cooled from the prior, or at held-out data."""


class Watch(Protocol):
    """Who is told how far the work is."""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """A stage of `total` units begins."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """`done` of its units are done."""


@final
class Unwatched:
    """Nobody."""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, and with what.

    Attributes:
        model: In evaluation mode, on `device`.
        info: The data it was trained on.
        data: Gives the prepared data set to compare with; called only by what needs data.
        device: Where to compute; the precision of networks is set around the measurement.
        seed: All randomness is derived from it.
        ledger: Keeps finished pieces of long work.
        watch: Is told of progress.
    """

    model: Model
    info: DataInfo
    data: Callable[[], Dataset]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    watch: Watch = field(default_factory=Unwatched)

    def generator(self, stream: str, *indices: int) -> torch.Generator:
        """A generator on the device for one purpose."""
        return generator(self.device, self.seed, f"diagnose-{stream}", *indices)

    def held_out(self, split: Split, num: int) -> Tensor:
        """States `(num, *E)` on the device of examples of a split, drawn without replacement.

        Raises:
            ConfigurationError: The split has fewer.
            DataError: The data cannot be had.
        """
        dataset = self.data()
        rows = dataset.examples(split)
        if num > len(rows):
            raise ConfigurationError(
                f"Got {num} states to take from the {split} split of {dataset.info.name}, "
                f"expected {len(rows)} at most."
            )
        order = torch.randperm(len(rows), generator=generator("cpu", self.seed, "diagnose-rows"))[:num]
        return dataset.states(rows[order].to(self.device), self.generator("data"))

    def training(self, most: int, stream: str) -> tuple[Tensor, Tensor]:
        """At most so many training examples drawn at random: their numbers `(N,)` on the CPU, and states `(N, *E)`.

        Raises:
            DataError: The data cannot be had.
        """
        dataset = self.data()
        rows = dataset.examples("train")
        draw = self.generator(stream)
        chosen = torch.randperm(len(rows), generator=draw, device=draw.device)[:most].cpu()
        return chosen, dataset.states(rows[chosen].to(self.device), draw)

    def start(self, start: Start, num: int) -> State:
        """Where `num` chains begin: states `(num, *E)`, latent parts included."""
        if start == "data":
            state, _ = initial_state(
                self.model.operator, self.held_out("test", num), self.generator("latent")
            )
            return state
        model = self.model
        return last(anneal(model.operator, model.prior, model.levels(), num, self.generator("anneal")))


class Diagnostic(ABC):
    """A measurement of a trained operator. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def measure(self, subject: Subject) -> Report:
        """Measure, with standard errors.

        Raises:
            WalkbackError: The figures would be wrong: a log-density is not finite, states are clipped, there are
                too few chains for an error.
        """
