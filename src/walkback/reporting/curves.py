"""Logged metrics of training as series to plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from walkback.report import Series
from walkback.support.numbers import is_number

_BOUNDS = (
    ("validation_bits_per_dimension", "validation_bits_error", "upper bound (bits/dim)"),
    ("validation_nats", "validation_nats_error", "upper bound (nats per example)"),
)


def training_series(history: Sequence[Mapping[str, Any]]) -> tuple[Series, ...]:
    """Return loss and validation bound over the walks, from records of `metrics.jsonl`; empty series are omitted."""
    name, error, label = next(
        (bound for bound in _BOUNDS if any(bound[0] in record for record in history)), _BOUNDS[1]
    )
    found = (
        _series(history, "loss", "", "loss", "loss (nats/step)"),
        _series(history, name, error, "validation bound", label),
    )
    return tuple(series for series in found if series.x)


def _series(history: Sequence[Mapping[str, Any]], name: str, error: str, shown: str, label: str) -> Series:
    rows = [record for record in history if is_number(record.get(name))]
    errors = tuple(float(record[error]) for record in rows if error and is_number(record.get(error)))
    return Series(
        shown,
        tuple(float(record["step"]) for record in rows),
        tuple(float(record[name]) for record in rows),
        "walks",
        label,
        errors if rows and len(errors) == len(rows) else None,
    )


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Average each value with its neighbors, at most `window` values; at the ends there are fewer.

    >>> running_mean([1.0, 2.0, 6.0], 3)
    [1.5, 3.0, 4.0]
    """
    half = window // 2
    groups = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(group) / len(group) for group in groups]
