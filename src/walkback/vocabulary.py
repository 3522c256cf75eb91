"""Words that mean the same on the command line, in a configuration and in the mathematics; it imports nothing heavy."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Readout: TypeAlias = Literal["state", "mean"]
"""What is shown of a state, see `walkback.readout`."""

READOUTS: tuple[Readout, ...] = get_args(Readout)
