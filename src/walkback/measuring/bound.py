"""The variational bound of held-out data.

    L(s_0) = Σ_t [ log p_{T_t}(s_{t-1} | s_t) - log q_{T_t}(s_t | s_{t-1}) ] + log p*(s_K)         (eq. 5)

L of one heating path is an unbiased estimate of a lower bound on log p(s_0); -L is the work of the path. With latent
units, log q(h_0 | data) is subtracted.

Training validates with `estimate_bound`. An evaluation also heats its examples with `heat`, but needs the works for
more than the bound. Both summarize them as a `BoundEstimate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from walkback.data import Batch, DataInfo
from walkback.measuring.estimates import nll_figures, require_enough
from walkback.measuring.some_levels import bound_of_some_levels
from walkback.measuring.work import PathWork, heating_work
from walkback.model import Model
from walkback.report import Figure, number
from walkback.schedules import Levels
from walkback.state import Context
from walkback.support.world import World

NO_BOUND = (
    "There is no bound on the likelihood: this process teaches the operator to reconstruct examples, and defines no "
    "paths with a density; compare samples with data (`walkback evaluate --samples`)."
)
"""Remark on models of processes that are `walkback.processes.without_bound`."""


@dataclass(frozen=True, slots=True)
class BoundEstimate:
    """Negative variational bound -E[L], an upper bound on the negative log-likelihood.

    Attributes:
        figures: `bound`, the mean over examples in nats per example, with its standard error over examples (of each
            example's mean over its paths); and `bound_bits`, the same in bits/dim, if the data are quantized.
        examples: Number of examples.
        paths: Heating paths per example.
        levels: Number of levels K of the schedule.
    """

    figures: tuple[Figure, ...]
    examples: int
    paths: int
    levels: int

    @classmethod
    def of(cls, work: Tensor, info: DataInfo, levels: int) -> BoundEstimate:
        """Average the works `(N, P)`, nats, of P heating paths from each of N examples.

        Raises:
            WalkbackError: A work is not finite, or there are too few examples for a standard error.
        """
        # Validations are compared with one another: average in float64, so that rounding does not hide differences.
        nats = work.double().mean(1)
        meaning = f"variational bound, above the {likelihood_in_words(info)} (eq. 5)"
        figures = nll_figures("bound", nats, info, meaning, side="above")
        num, paths = work.shape
        return cls(tuple(figures), num, paths, levels)

    @property
    def nats(self) -> float:
        """Mean over examples, nats per example."""
        return self.figures[0].value

    @property
    def nats_error(self) -> float:
        """Its standard error, nats."""
        return self.figures[0].error or 0.0

    @property
    def bits_per_dimension(self) -> float | None:
        """The same in bits/dim; None for data that are not quantized."""
        return self.figures[1].value if len(self.figures) > 1 else None

    @property
    def bits_error(self) -> float | None:
        """Its standard error, bits/dim."""
        return self.figures[1].error if len(self.figures) > 1 else None

    def __str__(self) -> str:
        """Return the bound with its error, in nats and, if the data are quantized, in bits/dim."""
        return " = ".join(f"{number(replace(figure, side=None))} {figure.unit}" for figure in self.figures)

    def named(self, prefix: str) -> dict[str, float]:
        """Return the columns of a metrics file: `PREFIX_nats`, `PREFIX_nats_error`, and the same in bits/dim."""
        values = {
            "nats": self.nats,
            "nats_error": self.nats_error,
            "bits_per_dimension": self.bits_per_dimension,
            "bits_error": self.bits_error,
        }
        return {f"{prefix}_{name}": value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types, as in the summary of `walkback run --json`."""
        return {
            "nats": self.nats,
            "nats_error": self.nats_error,
            "bits_per_dimension": self.bits_per_dimension,
            "bits_error": self.bits_error,
            "examples": self.examples,
            "paths": self.paths,
            "levels": self.levels,
        }


def likelihood_in_words(info: DataInfo) -> str:
    """Return the name of the bounded quantity: the NLL, given the label if the model is class-conditional."""
    return "NLL given the label" if info.classes else "NLL"


def path_bound(
    model: Model, data: Tensor, levels: Levels, generator: torch.Generator, context: Context = None
) -> Tensor:
    """Return L of one heating path from each row of `data` `(B, *E)`, given its `context`: `(B,)`, nats."""
    return -heating_work(model, data, levels, generator, context).work


def heat(
    model: Model,
    batch: Batch,
    info: DataInfo,
    levels: Levels,
    generator: torch.Generator,
    paths: int,
    some: int | None = None,
) -> Iterator[PathWork]:
    """Heat each example of a batch `paths` times, one path after another for all rows, with one stream of noise.

    Works include the slopes of transforms, see `in_units`. With `some`, only so many levels of each path are visited,
    see `walkback.measuring.some_levels`.
    """
    for _ in range(paths):
        if some is None:
            path = heating_work(model, batch.states, levels, generator, batch.context)
        else:
            path = bound_of_some_levels(model, batch.states, levels, some, generator, batch.context)
        yield in_units(path, batch.states, info)


def in_units(path: PathWork, states: Tensor, info: DataInfo) -> PathWork:
    """Convert the work of paths from, or to, states `(B, *E)` to densities of values in the units of the data.

    Adds the part that depends on the state; the constant part, `DataInfo.log_volume`, is added to figures.
    """
    slopes = info.log_slopes(states)
    terms = None if path.terms is None else replace(path.terms, boundary=path.terms.boundary + slopes)
    return replace(path, boundary=path.boundary + slopes, terms=terms)


def estimate_bound(
    model: Model,
    batches: Sequence[Batch],
    info: DataInfo,
    generator: torch.Generator | Sequence[torch.Generator],
    *,
    paths: int = 1,
    world: World | None = None,
) -> BoundEstimate:
    """Estimate -E[L] over batches of data, `paths` heating paths each, on the schedule's fixed levels.

    Processes of a `world` divide the batches, each with a generator of its own, and all return the estimate.

    If batches have a context, e.g. class labels, the result bounds the likelihood of data given their context.

    Raises:
        WalkbackError: A path's bound is not finite, or there are too few examples for a standard error.
    """
    require_enough(sum(len(batch) for batch in batches), "examples", "their number")
    levels, world = model.levels(), world or World()
    noises = [generator] * len(batches) if isinstance(generator, torch.Generator) else generator
    works: dict[int, Tensor] = {}
    with model.evaluating():
        # Works stay on the device until all paths are drawn: reading one after each path would stall the device.
        for number in range(world.rank, len(batches), world.size):
            heated = heat(model, batches[number], info, levels, noises[number], paths)
            works[number] = torch.stack([path.bound.work for path in heated], 1)
    if world.size > 1:
        own = {str(number): work for number, work in works.items()}
        everything = [world.tensors_from(rank, own) for rank in range(world.size)]
        works = {int(number): work for part in everything for number, work in part.items()}
    return BoundEstimate.of(torch.cat([works[number] for number in range(len(batches))]), info, len(levels))
