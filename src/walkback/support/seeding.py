"""Counter-based randomness: one generator per purpose and step, all derived from one seed.

    generator(device, seed, "noise", walk)

The stream of a step is independent of everything that ran before it. Resuming a run, validating in between or changing
the number of processes does not shift it, and no generator state has to be saved.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, stream: str, *indices: int) -> int:
    """Derive a 63-bit seed for one purpose (`stream`) and position (`indices`), mixed by numpy's SeedSequence."""
    # A spawn key, not plain entropy: SeedSequence pads entropy with zeros, so (1,) and (1, 0) would coincide.
    key = (zlib.crc32(stream.encode()), len(indices), *indices)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def lent_seed(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators with `seed` in the block, and restore their state afterwards.

    Initialization uses the CPU generator; layers such as dropout use the generator of their device.

    Args:
        seed: Seed of both generators.
        device: Device whose generator is seeded in addition to the CPU's. Generators of other devices are not
            touched, unlike with `torch.manual_seed`.
    """
    cuda = device if device is not None and device.type == "cuda" else None
    with torch.random.fork_rng([] if cuda is None else [cuda]):
        torch.default_generator.manual_seed(seed)
        if cuda is not None:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(seed)
        yield


def generator(device: torch.device | str, seed: int, stream: str, *indices: int) -> torch.Generator:
    """Return a generator on `device`, seeded by `derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, stream, *indices))
