"""Diagnostics: measurements of a trained operator, chosen by name (`walkback diagnose NAME CKPT`).

    Subject (model, data, seed, …) → Diagnostic.measure → Report (figures with errors, series, warnings)

A diagnostic reads its options from the keyword-only arguments of `__init__`, draws randomness from generators derived
of the subject's seed only, and raises `WalkbackError` rather than return a figure that it cannot stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from walkback.data import Batch, DataInfo, Dataset, Split, batch_of, draw_labels, require_examples, states_of
from walkback.model import Model
from walkback.operators import initial_state
from walkback.report import Report
from walkback.sampling import anneal, last
from walkback.state import Context
from walkback.storage.work_cache import WorkCache
from walkback.support.seeding import generator
from walkback.support.watch import Silent, Watch
from walkback.walk import Start

ChainStart: TypeAlias = Literal["annealed", "data"]
"""Where chains begin: cooled from the prior, or at held-out data."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, and with what.

    Attributes:
        model: In evaluation mode, on `device`.
        info: The data it was trained on.
        data: Gives the prepared data set to compare with; called only by what needs data.
        device: Where to compute; the precision of networks is set around the measurement.
        seed: All randomness is derived from it.
        cache: Keeps finished pieces of long work.
        watch: Is told of progress.
    """

    model: Model
    info: DataInfo
    data: Callable[[], Dataset]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    cache: WorkCache = field(default_factory=WorkCache)
    watch: Watch = field(default_factory=Silent)

    def generator(self, stream: str, *indices: int) -> torch.Generator:
        """A generator on the device for one purpose."""
        return generator(self.device, self.seed, f"diagnose-{stream}", *indices)

    def held_out(self, split: Split, num: int) -> Batch:
        """Data `(num, *E)` on the device of examples of a split, drawn without replacement; with their labels, if told.

        Raises:
            ConfigurationError: The split has fewer.
            DataError: The data cannot be had.
        """
        dataset = self.data()
        require_examples(dataset, split, num)
        order = generator("cpu", self.seed, "diagnose-rows")
        rows = torch.randperm(len(dataset.examples(split)), generator=order)[:num]
        return batch_of(dataset, split, rows, self.generator("data"))

    def training(self, most: int, stream: str) -> tuple[Tensor, Tensor]:
        """At most so many training examples drawn at random: their numbers `(N,)` on the CPU, and states `(N, *E)`.

        Raises:
            DataError: The data cannot be had.
        """
        dataset = self.data()
        draw = self.generator(stream)
        count = len(dataset.examples("train"))
        rows = torch.randperm(count, generator=draw, device=draw.device)[:most].cpu()
        return rows, states_of(dataset, "train", rows, draw)

    def labels(self, num: int) -> Context:
        """Labels `(num,)` for samples, as frequent as in training; None for a model that is told none."""
        return draw_labels(self.info, num, self.generator("labels"))

    def start(self, start: ChainStart, num: int) -> Start:
        """Where `num` chains begin: states `(num, *E)`, latent parts included, and the labels that go with them."""
        model = self.model
        if start == "data":
            data = self.held_out("test", num)
            state, _ = initial_state(model.operator, data.states, self.generator("latent"))
            return Start(state, context=data.context)
        context, noise = self.labels(num), self.generator("anneal")
        state = last(anneal(model.operator, model.prior, model.levels(), num, noise, context))
        return Start(state, context=context)


class Diagnostic(ABC):
    """A measurement of a trained operator. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def measure(self, subject: Subject) -> Report:
        """Measure, with standard errors.

        Raises:
            WalkbackError: The figures would be wrong: a log-density is not finite, states are clipped, there are
                too few chains for an error.
        """
