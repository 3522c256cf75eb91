"""Numbers: formatting with errors, and recognizing those in files."""

from __future__ import annotations

import math
from typing import TypeGuard

_MOST_PLACES = 8
_ROUNDING = 1e-12  # relative; a smaller error is floating-point rounding


def with_error(value: float, error: float | None) -> str:
    """Format a value to two digits of its error.

    >>> with_error(1.23456, 0.0123), with_error(1234.5, None)
    ('1.235 ± 0.012', '1234.5')
    """
    if error is None:
        return f"{value:.5g}"
    if error <= _ROUNDING * max(1.0, abs(value)):
        return f"{value:.5g} ± 0"
    places = max(0, 1 - math.floor(math.log10(error)))
    if places > _MOST_PLACES:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{places}f} ± {error:.{places}f}"


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value from a file is a finite number, and neither text nor a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
