"""Randomness by counter: a generator for every purpose and step, derived from one seed.

    generator(device, seed, "noise", walk)

The stream of a step depends on nothing that ran before it, so a resumed run, a validation in between or a different
number of processes cannot shift it, and no generator state has to be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, stream: str, *indices: int) -> int:
    """A 63-bit seed for one purpose (`stream`) and position (`indices`), well mixed by numpy's SeedSequence."""
    # As plain entropy, streams that differ in trailing zeros would be one: SeedSequence pads with zeros.
    key = (zlib.crc32(stream.encode()), len(indices), *indices)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def lent_seed(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside, the global generators start from `seed`; afterwards they are as they were.

    Initialization draws from that of the CPU; layers such as dropout draw from that of their device.

    Args:
        seed: For both.
        device: Whose generator is lent a seed beside the CPU's; those of other devices are left alone, which
            `torch.manual_seed` would not do.
    """
    cuda = device if device is not None and device.type == "cuda" else None
    with torch.random.fork_rng([] if cuda is None else [cuda]):
        torch.default_generator.manual_seed(seed)
        if cuda is not None:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(seed)
        yield


def generator(device: torch.device | str, seed: int, stream: str, *indices: int) -> torch.Generator:
    """A generator on `device` seeded by `derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, stream, *indices))
