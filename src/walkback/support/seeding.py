"""Randomness by counter: a generator for every purpose and step, derived from one seed.

    generator(device, seed, "noise", walk)

The stream of a step depends on nothing that ran before it, so a resumed run, a validation in between or a different
number of processes cannot shift it, and no generator state has to be stored.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def derive_seed(seed: int, stream: str, *indices: int) -> int:
    """A 63-bit seed for one purpose (`stream`) and position (`indices`), well mixed by numpy's SeedSequence."""
    # As plain entropy, streams that differ in trailing zeros would be one: SeedSequence pads with zeros.
    key = (zlib.crc32(stream.encode()), len(indices), *indices)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(device: torch.device | str, seed: int, stream: str, *indices: int) -> torch.Generator:
    """A generator on `device` seeded by `derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, stream, *indices))
