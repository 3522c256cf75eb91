"""Chains of Potts spins: sequences whose law, entropy and marginals are known exactly.

    p(x) = exp( J Σ_l [x_l = x_{l+1}] + h Σ_l x_l ) / Z,   x_l in 0 … S - 1,   S = 2^b

A chain of this kind is Markov. With M_kj = exp(J [k = j] + h j) and messages from the right

    b_L = 1,   b_l = M b_{l+1},   p(x_1) ∝ exp(h x_1) b_1(x_1),   p(x_{l+1} = j | x_l = k) = M_kj b_{l+1}(j) / b_l(k)

draws are independent and exact, and log Z = log Σ_k exp(h k) b_1(k).
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from walkback.data import SPLITS, DataInfo, Dataset, Split
from walkback.errors import DataError
from walkback_categorical.kernel import decode, encode

Array = npt.NDArray[np.float64]


@final
class PottsChain(Dataset):
    """Sequences of symbols as bits `(L, b)`, support "binary", drawn from the module's law.

    Args:
        length: L.
        bits: b; S = 2^b.
        coupling: J; positive values make neighbours equal.
        field: h; positive values favour late symbols.
        num: Sequences to train on.
        num_held_out: Sequences for validation, and for test.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        *,
        length: Annotated[int, Field(ge=2, le=256)] = 6,
        bits: Annotated[int, Field(ge=1, le=8)] = 2,
        coupling: Annotated[float, Field(ge=-10, le=10)] = 1.5,
        field: Annotated[float, Field(ge=-10, le=10)] = 0.3,
        num: PositiveInt = 10_000,
        num_held_out: PositiveInt = 2_000,
        seed: NonNegativeInt = 0,
    ) -> None:
        self._length, self._bits, self._seed = length, bits, seed
        self._symbols = symbols = 2**bits
        self._counts: dict[Split, int] = {"train": num, "validation": num_held_out, "test": num_held_out}
        index = np.arange(symbols)
        self._first: Array = np.exp(field * index)
        self._law = (
            f"Potts chain of {length} spins of {symbols} states, coupling {coupling:g}, field {field:g}"
        )
        self._step: Array = np.exp(coupling * np.eye(symbols)) * self._first
        self._rows: dict[Split, Tensor] = {}

    def messages(self) -> list[Array]:
        """b_1 … b_L, `(S,)` each."""
        found = [np.ones(self._symbols)]
        for _ in range(self._length - 1):
            found.insert(0, self._step @ found[0])
        return found

    def log_prob(self, state: Tensor) -> Tensor:
        """Exact log p of states `(B, L, b)`: `(B,)`, float64, nats."""
        x = decode(state)
        log_z = math.log(self._first @ self.messages()[0])
        first, step = torch.from_numpy(self._first).log(), torch.from_numpy(self._step).log()
        return first[x[:, 0]] + step[x[:, :-1], x[:, 1:]].sum(1) - log_z

    def prepare(self) -> None:
        """Draw all splits."""
        seeds = np.random.SeedSequence(self._seed).spawn(len(SPLITS))
        for split, seed in zip(SPLITS, seeds, strict=True):
            x = torch.from_numpy(self._draw(self._counts[split], np.random.default_rng(seed)))
            self._rows[split] = encode(x, self._bits)

    @property
    def info(self) -> DataInfo:
        """The protocol."""
        content = b"".join(self.examples(split).numpy().tobytes() for split in SPLITS)
        return DataInfo(
            name="potts",
            shape=(self._length, self._bits),
            support="binary",
            preprocessing=(self._law, "symbols as bits"),
            splits={split: self._counts[split] for split in SPLITS},
            fingerprint=hashlib.sha256(self._law.encode() + content).hexdigest()[:16],
        )

    def examples(self, split: Split) -> Tensor:
        """`(N, L, b)`, uint8."""
        if not self._rows:
            raise DataError("Got data 'potts' that is not prepared; call prepare() first.")
        return self._rows[split]

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The same as floats."""
        return rows.to(generator.device).float()

    def _draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        messages = self.messages()
        weights = np.broadcast_to(self._first * messages[0], (count, self._symbols))
        sequence: list[npt.NDArray[np.int64]] = []
        for place in range(self._length):
            if place:
                weights = self._step[sequence[-1]] * messages[place]
            below = np.cumsum(weights, 1) / weights.sum(1, keepdims=True)
            sequence.append((rng.random((count, 1)) >= below[:, :-1]).sum(1))
        return np.stack(sequence, 1)
