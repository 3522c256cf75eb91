"""The order of training examples: shuffled epochs, addressed by position.

    position i of the stream = permutation of epoch (i div N), at (i mod N)

Batch number b is a pure function of (seed, b), so resuming needs only the number of the next batch.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from walkback.errors import DataError
from walkback.support.seeding import generator


@final
class BatchOrder:
    """Indices of each training batch.

    Args:
        num_examples: Number of examples, N.
        batch_size: Number of rows of a batch in one process.
        seed: The run's seed.
        rank: Number of this process, below `world_size`; processes see disjoint parts of the stream.
        world_size: Number of processes.

    Raises:
        DataError: There are no examples.
    """

    def __init__(
        self, num_examples: int, batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        if num_examples < 1:
            raise DataError("The training split has no examples: check the source of the data.")
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._permutations: dict[int, Tensor] = {}

    def batch(self, number: int) -> Tensor:
        """Return the indices of batch `number` (from 0), `(B,)`."""
        # Processes take consecutive parts of one stream, so that together they see each example once per epoch.
        start = (number * self._world_size + self._rank) * self._batch_size
        positions = torch.arange(start, start + self._batch_size)
        epochs = positions // self._num_examples
        first, last = int(epochs[0]), int(epochs[-1])
        parts = [
            self._permutation(epoch)[positions[epochs == epoch] % self._num_examples]
            for epoch in range(first, last + 1)
        ]
        # Batches are requested in order, so permutations of earlier epochs are not needed again.
        for epoch in [epoch for epoch in self._permutations if epoch < first]:
            del self._permutations[epoch]
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._permutations:
            order = generator("cpu", self._seed, "order", epoch)
            self._permutations[epoch] = torch.randperm(self._num_examples, generator=order)
        return self._permutations[epoch]
