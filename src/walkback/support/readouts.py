"""Words that mean the same on the command line, in a configuration and in the mathematics; it imports nothing heavy."""

from __future__ import annotations

import re
from typing import TypeAlias

Readout: TypeAlias = str
"""What is shown of a state: `state`, `mean`, or `mean@T` with a temperature T, see `walkback.readout`."""

READOUTS = "state|mean|mean@T"

_READOUT = re.compile(r"state|mean(?:@(?P<temperature>[0-9]{1,9}(?:\.[0-9]{1,9})?))?")


def readout_temperature(readout: Readout) -> float | None:
    """T of the step whose mean is shown, 1 unless the readout names one; None where the state itself is.

    Raises:
        ValueError: It is no readout; the message says which there are.

    >>> readout_temperature("state"), readout_temperature("mean"), readout_temperature("mean@2.25")
    (None, 1.0, 2.25)
    """
    match = _READOUT.fullmatch(readout)
    temperature = float(match["temperature"] or 1) if match else 0.0
    if match is None or not temperature:
        raise ValueError('expected "state", "mean" or "mean@T" with a temperature T above 0, as "mean@2"')
    return None if readout == "state" else temperature
