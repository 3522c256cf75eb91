"""General ranges of all numbers among options, in addition to the range of each option.

integers    at most 10^9, because they are sizes and counts; seeds have 63 bits
numbers     0, or of magnitude 10^-18 to 10^18, so that their squares fit into single precision, like states
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel

from walkback.errors import ConfigurationError

LARGEST_COUNT = 10**9
LARGEST_SEED = 2**63 - 1
_SMALLEST, _LARGEST = 1e-18, 1e18


def require_in_range(path: str, value: object) -> None:
    """Check the numbers in the value of an option, including those in lists, tables and records.

    Args:
        path: Path of the option, for messages.
        value: Its value.

    Raises:
        ConfigurationError: A number is out of range.
    """
    if isinstance(value, bool | str):
        return
    if isinstance(value, int):
        _require_integer(path, value)
    elif isinstance(value, float):
        _require_number(path, value)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            require_in_range(f"{path}.{name}", part)
    elif isinstance(value, Sequence):
        for number, part in enumerate(value):
            require_in_range(f"{path}[{number}]", part)
    else:
        for name, part in _record(value).items():
            require_in_range(f"{path}.{name}", part)


def _require_integer(path: str, value: int) -> None:
    largest = LARGEST_SEED if path.rpartition(".")[2] == "seed" else LARGEST_COUNT
    if abs(value) > largest:
        raise ConfigurationError(f"{path}: got {value:.4g}, expected an integer of at most {largest:,}.")


def _require_number(path: str, value: float) -> None:
    if abs(value) > _LARGEST:
        raise ConfigurationError(f"{path}: got {value:g}, expected a number of at most {_LARGEST:g}.")
    if 0 < abs(value) < _SMALLEST:
        raise ConfigurationError(f"{path}: got {value:g}, expected 0 or a number of at least {_SMALLEST:g}.")


def _record(value: object) -> dict[str, Any]:
    """Return the fields of a record; empty for any other object."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if is_dataclass(value):
        return {entry.name: getattr(value, entry.name) for entry in fields(value)}
    return {}
