"""Rings of Potts spins, drawn from their exact law.

    p(x) = exp( J Σ_l [x_l = x_{l+1}] + h Σ_l x_l ) / Z,   x_l in 0 … S - 1,   x_{L+1} = x_1

With M_kj = exp(J [k = j] + h j), Z = tr M^L, and

    p(x_1 = a) = (M^L)_aa / Z,   p(x_l = j | x_{l-1} = k, x_1 = a) ∝ M_kj (M^{L-l+1})_ja
"""

from __future__ import annotations

import math
from typing import Annotated, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from typing_extensions import override

from walkback.data import SPLITS, Split
from walkback.data.deferred import Deferred
from walkback.data.symbols import SymbolDataset, SymbolRows

_Array = npt.NDArray[np.float64]


@final
class Potts(Deferred[SymbolDataset]):
    """Rings of Potts spins as one-hot states `(L, S)`.

    Args:
        sites: L.
        states: S.
        coupling: J; positive values favour equal neighbours.
        field: h; positive values favour late states.
        num: Number of rings to train on.
        num_held_out: Rings for validation, and for test.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        *,
        sites: Annotated[int, Field(ge=1, le=256)] = 12,
        states: Annotated[int, Field(ge=2, le=256)] = 3,
        coupling: Annotated[float, Field(ge=-10, le=10)] = 1.0,
        field: Annotated[float, Field(ge=-10, le=10)] = 0.0,
        num: PositiveInt = 50_000,
        num_held_out: PositiveInt = 5_000,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__("potts")
        self._sites, self._symbols, self._seed = sites, states, seed
        self._counts: dict[Split, int] = {"train": num, "validation": num_held_out, "test": num_held_out}
        self._law = f"ring of {sites} Potts spins of {states} states, coupling {coupling:g}, field {field:g}"
        self._log_step: _Array = coupling * np.eye(states) + field * np.arange(states)

    def log_prob(self, state: Tensor) -> Tensor:
        """Returns the exact log p of states `(B, L, S)`: `(B,)`, float64, nats."""
        spins = state.argmax(-1)
        powers, scale = self._powers()
        log_z = math.log(np.trace(powers[-1])) + self._sites * scale
        return torch.from_numpy(self._log_step)[spins, spins.roll(-1, 1)].sum(1) - log_z

    @override
    def read(self) -> SymbolDataset:
        seeds = np.random.SeedSequence(self._seed).spawn(len(SPLITS))
        rows = {
            split: torch.from_numpy(self._draw(self._counts[split], np.random.default_rng(seed)))
            for split, seed in zip(SPLITS, seeds, strict=True)
        }
        return SymbolDataset(SymbolRows("potts", self._symbols, rows, (self._law,)))

    def _powers(self) -> tuple[list[_Array], float]:
        """Returns M^0 … M^L without overflow: M^l = powers[l] exp(l scale)."""
        scale = float(self._log_step.max()) + math.log(self._symbols)
        step = np.exp(self._log_step - scale)
        powers = [np.eye(self._symbols)]
        for _ in range(self._sites):
            powers.append(powers[-1] @ step)
        return powers, scale

    def _draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Returns independent rings, `(count, L)`."""
        powers, _ = self._powers()
        first = _draw(np.broadcast_to(np.diag(powers[-1]), (count, self._symbols)), rng)
        spins = [first]
        for place in range(1, self._sites):
            back = powers[self._sites - place][:, first].T
            spins.append(_draw(powers[1][spins[-1]] * back, rng))
        return np.stack(spins, 1).astype(np.uint8)


def _draw(weights: _Array, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draws one number for each row of weights `(N, S)`."""
    below = np.cumsum(weights, 1) / weights.sum(1, keepdims=True)
    found: npt.NDArray[np.int64] = (rng.random((len(weights), 1)) >= below[:, :-1]).sum(1)
    return found
