"""Diagnostics: measurements of a trained operator, chosen by name (`walkback diagnose NAME CKPT`).

    Subject (model, data, seed, …) → Diagnostic.measure → Report (figures with errors, series, warnings)

The options of a diagnostic are the keyword-only arguments of `__init__`. It draws all randomness from generators
derived from the subject's seed, and raises `WalkbackError` rather than return a figure that would be wrong.
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
"""Where chains begin: at states cooled from the prior, or at held-out data."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model to measure, and everything a diagnostic needs for it.

    Attributes:
        model: The model in evaluation mode, on `device`.
        info: Description of the training data.
        data: Returns the prepared dataset to compare with; called only if a diagnostic needs data.
        device: Device to compute on. The caller sets the precision of networks around the measurement.
        seed: Seed from which all randomness is derived.
        cache: Stores finished pieces of long computations.
        watch: Receives progress.
    """

    model: Model
    info: DataInfo
    data: Callable[[], Dataset]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    cache: WorkCache = field(default_factory=WorkCache)
    watch: Watch = field(default_factory=Silent)

    def generator(self, stream: str, *indices: int) -> torch.Generator:
        """Return a generator on the device for one purpose."""
        return generator(self.device, self.seed, f"diagnose-{stream}", *indices)

    def held_out(self, split: Split, num: int) -> Batch:
        """Draw `num` examples of a split without replacement: data `(num, *E)` on the device, and any labels.

        Raises:
            ConfigurationError: The split has fewer examples.
            DataError: The data cannot be loaded.
        """
        dataset = self.data()
        require_examples(dataset, split, num)
        order = generator("cpu", self.seed, "diagnose-rows")
        rows = torch.randperm(len(dataset.examples(split)), generator=order)[:num]
        return batch_of(dataset, split, rows, self.generator("data"))

    def training(self, most: int, stream: str) -> tuple[Tensor, Tensor]:
        """Draw up to `most` training examples: their indices `(N,)` on the CPU, and states `(N, *E)`.

        Raises:
            DataError: The data cannot be loaded.
        """
        dataset = self.data()
        draw = self.generator(stream)
        count = len(dataset.examples("train"))
        rows = torch.randperm(count, generator=draw, device=draw.device)[:most].cpu()
        return rows, states_of(dataset, "train", rows, draw)

    def labels(self, num: int) -> Context:
        """Draw labels `(num,)` for samples with their frequencies in training; None for an unconditional model."""
        return draw_labels(self.info, num, self.generator("labels"))

    def start(self, start: ChainStart, num: int) -> Start:
        """Return the start of `num` chains: states `(num, *E)` including latent parts, with their labels."""
        model = self.model
        if start == "data":
            data = self.held_out("test", num)
            state, _ = initial_state(model.operator, data.states, self.generator("latent"))
            return Start(state, context=data.context)
        context, noise = self.labels(num), self.generator("anneal")
        state = last(anneal(model.operator, model.prior, model.levels(), num, noise, context))
        return Start(state, context=context)


class Diagnostic(ABC):
    """Abstract measurement of a trained operator. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def measure(self, subject: Subject) -> Report:
        """Measure the subject and return figures with standard errors.

        Raises:
            WalkbackError: The figures would be wrong: a log-density is not finite, states are clipped, there are
                too few chains for an error.
        """
