"""Names of readouts, for the command line, configurations and `walkback.sampling.readout`; imports no torch."""

from __future__ import annotations

import re
from typing import TypeAlias

Readout: TypeAlias = str
"""How states are shown: `state`, `mean`, or `mean@T` with a temperature T; see `walkback.sampling.readout`."""

READOUTS = "state|mean|mean@T"

_READOUT = re.compile(r"state|mean(?:@(?P<temperature>[0-9]{1,9}(?:\.[0-9]{1,9})?))?")


def readout_temperature(readout: Readout) -> float | None:
    """Return T of the step whose mean is shown, 1 by default; None if the state itself is shown.

    Raises:
        ValueError: The readout is unknown; the message lists the valid ones.

    >>> readout_temperature("state"), readout_temperature("mean"), readout_temperature("mean@2.25")
    (None, 1.0, 2.25)
    """
    match = _READOUT.fullmatch(readout)
    temperature = float(match["temperature"] or 1) if match else 0.0
    if match is None or not temperature:
        raise ValueError('expected "state", "mean" or "mean@T" with a temperature T above 0, as "mean@2"')
    return None if readout == "state" else temperature
