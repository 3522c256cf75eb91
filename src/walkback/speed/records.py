"""What a benchmark is asked for, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from walkback.building.devices import Precision
from walkback.speed.by_hand import Variant
from walkback.speed.ceilings import Anatomy

UpdatesName: TypeAlias = Literal["online", "batch", "stacked"]


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """A plan of measurements.

    Attributes:
        repeats: Number of measurements of each way.
        compare: Whether to also measure alternatives to the configured way.
        chain_steps: Number of steps at T = 1 per measurement.
    """

    repeats: int = 9
    compare: bool = True
    chain_steps: int = 20


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute: the configured one, or an alternative with one option changed.

    Attributes:
        change: The changed value; "" for the configured way.
        updates: Value of `training.updates`.
        precision: Precision of the networks.
    """

    change: str
    updates: UpdatesName
    precision: Precision


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each repeat, in order, and peak memory in bytes; None if the device does not report it."""

    seconds: tuple[float, ...]
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Measurements of the ways that worked, the configured one first.

    Attributes:
        walks: Timings of one walk per repeat.
        heating: Timing of the walk without learning.
        chain: Timings of `BenchmarkPlan.chain_steps` steps per repeat.
        by_hand: Timings of a walk by hand, by variant.
        chain_by_hand: Timing of the same steps by hand; None unless alternatives were measured.
        ceilings: Timings of one product and one convolution, by name.
        anatomy: What a walk as configured consists of; None unless alternatives were measured.
        levels: K of the walk of each repeat.
        process_peak: Peak main memory of this process in bytes when only the configured way had trained; None if the
            system does not report it.
        lost: A sentence for each way that failed.
    """

    walks: Mapping[Way, Timing]
    heating: Timing
    chain: Mapping[Way, Timing]
    levels: tuple[int, ...]
    by_hand: Mapping[Variant, Timing] = field(default_factory=dict)
    chain_by_hand: Timing | None = None
    ceilings: Mapping[str, Timing] = field(default_factory=dict)
    anatomy: Anatomy | None = None
    process_peak: int | None = None
    lost: tuple[str, ...] = ()

    @property
    def configured(self) -> Timing:
        """Timing of walks as configured."""
        return next(iter(self.walks.values()))

    @property
    def configured_chain(self) -> Timing:
        """Timing of chains as configured."""
        return next(iter(self.chain.values()))
