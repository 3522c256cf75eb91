"""The variational bound of held-out data.

    L(s_0) = Σ_t [ log p_{T_t}(s_{t-1} | s_t) - log q_{T_t}(s_t | s_{t-1}) ] + log p*(s_K)         (eq. 5)

L of one heating path is an unbiased estimate of a lower bound on log p(s_0); -L is the work of the path. Where the
operator has latent units, log q(h_0 | data) is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from walkback.data import Batch, DataInfo
from walkback.errors import WalkbackError
from walkback.measuring.estimates import require_enough
from walkback.measuring.work import heating_work
from walkback.model import Model
from walkback.schedules import Levels
from walkback.state import Context


@dataclass(frozen=True, slots=True)
class BoundEstimate:
    """Negative variational bound -E[L], an upper bound on the negative log-likelihood.

    Attributes:
        nats: Mean over examples, nats per example.
        nats_error: Standard error over examples (each example's mean over its paths), nats.
        bits_per_dimension: The same in bits/dim; None for data without quantum.
        bits_error: Its standard error.
        examples: Number of examples.
        paths: Heating paths per example.
        levels: Number of levels K of the schedule.
    """

    nats: float
    nats_error: float
    bits_per_dimension: float | None
    bits_error: float | None
    examples: int
    paths: int
    levels: int

    def __str__(self) -> str:
        """With errors, in nats and, where the data have such, bits/dim."""
        text = f"{self.nats:.2f} ± {self.nats_error:.2f} nats"
        if self.bits_per_dimension is None or self.bits_error is None:
            return text
        return f"{text} = {self.bits_per_dimension:.3f} ± {self.bits_error:.3f} bits/dim"

    def named(self, prefix: str) -> dict[str, float]:
        """The numbers that a metrics file has of it: `PREFIX_nats`, `PREFIX_nats_error`, and the same in bits/dim."""
        found = {f"{prefix}_nats": self.nats, f"{prefix}_nats_error": self.nats_error}
        if self.bits_per_dimension is None or self.bits_error is None:
            return found
        bits = {
            f"{prefix}_bits_per_dimension": self.bits_per_dimension,
            f"{prefix}_bits_error": self.bits_error,
        }
        return found | bits


def path_bound(
    model: Model, data: Tensor, levels: Levels, generator: torch.Generator, context: Context = None
) -> Tensor:
    """L of one heating path from each row of `data` `(B, *E)`, given its `context`: `(B,)`, nats."""
    return -heating_work(model, data, levels, generator, context).work


def estimate_bound(
    model: Model,
    batches: Sequence[Batch],
    info: DataInfo,
    generator: torch.Generator,
    *,
    paths: int = 1,
) -> BoundEstimate:
    """Estimate -E[L] over batches of data, `paths` heating paths each, on the schedule's fixed levels.

    Of data that have a context, e.g. class labels, it is the bound of the data given their context.

    Raises:
        WalkbackError: A path's bound is not finite, or there are too few examples for a standard error.
    """
    num_examples = sum(len(batch) for batch in batches)
    require_enough(num_examples, "examples", "their number")
    levels = model.levels()
    with model.evaluating():
        work = torch.cat(
            [
                -torch.stack(
                    [path_bound(model, batch.states, levels, generator, batch.context) for _ in range(paths)]
                ).mean(0)
                for batch in batches
            ]
        ).double()
    if not bool(work.isfinite().all()):
        count = int((~work.isfinite()).sum())
        raise WalkbackError(
            f"Got a bound that is not finite on {count} of {len(work)} examples, expected finite log-densities."
        )
    return _summarize(work, info, paths, len(levels))


def _summarize(work: Tensor, info: DataInfo, paths: int, num_levels: int) -> BoundEstimate:
    nats = work.mean().item()
    error = work.std().item() / math.sqrt(len(work))
    bits = info.bits_per_dimension(nats)
    # bits/dim is affine in nats, so its standard error is that of nats times the slope.
    slope = 1 / (math.prod(info.shape) * math.log(2))
    return BoundEstimate(
        nats=nats,
        nats_error=error,
        bits_per_dimension=bits,
        bits_error=None if bits is None else error * slope,
        examples=len(work),
        paths=paths,
        levels=num_levels,
    )
