"""Components with records and components among their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor, nn

from walkback.metrics import Metric, Moment
from walkback.networks import Network, Ports
from walkback.schedules import Level
from walkback.temperature import TemperatureLaw


@dataclass(frozen=True, slots=True)
class Inner:
    """A record inside another.

    Attributes:
        depth: How deep.
    """

    depth: PositiveInt = 1
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """A record.

    Args:
        low: The lower end.
        high: The upper end.
    """

    low: float = 0.0
    high: float = 1.0
    inner: Inner = Inner()


class Needy(BaseModel):
    """A record of pydantic with a field that is required."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: PositiveFloat
    kind: Literal["a", "b"] = "a"


class Bare(Network):
    """Options of a network."""

    def __init__(self, *, width: PositiveInt = 8, widths: tuple[PositiveInt, ...] = ()) -> None:
        self.options = (width, widths)

    def build(self, ports: Ports) -> nn.Module:
        """Nothing to learn."""
        return nn.Identity()


class Wrapped(Network):
    """A network inside a network.

    Args:
        inner: What is wrapped.
        share: How much of it.
    """

    def __init__(self, inner: Network, *, share: PositiveFloat = 0.5) -> None:
        self.inner, self.share = inner, share

    def build(self, ports: Ports) -> nn.Module:
        """As the inner one."""
        return self.inner.build(ports)


class Power(TemperatureLaw):
    """A law."""

    def __init__(self, *, power: PositiveFloat = 1.0) -> None:
        self.power = power

    def variance(self, variance_at_1: Tensor, level: Level) -> Tensor:
        """A power of T."""
        return variance_at_1 * level.temperature_like(variance_at_1) ** self.power

    def max_temperature(self, largest: float, at_1: float) -> float:
        """Its inverse."""
        return float((largest / at_1) ** (1 / self.power))


class Composed:
    """An operator of parts.

    Args:
        network: What learns.
        law: What temperature does.
        more: Further networks.
        clip: Where values end.
    """

    def __init__(
        self,
        space: object,
        network: Network,
        *,
        sigma: PositiveFloat = 0.1,
        law: TemperatureLaw | None = None,
        more: tuple[Network, ...] = (),
        clip: Clip = Clip(high=2.0),
        needy: Needy | None = None,
    ) -> None:
        self.space, self.network, self.sigma = space, network, sigma
        self.law, self.more, self.clip, self.needy = law, more, clip, needy


class Misguided:
    """A default that is no None."""

    def __init__(self, *, network: Network = Bare()) -> None:  # noqa: B008
        """Nothing else."""


class Recorder:
    """A logger with an option."""

    def __init__(self, *, project: str = "none", every: PositiveInt = 1) -> None:
        self.project, self.every = project, every


class Count(Metric):
    """A metric with an option."""

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale

    def measure(self, moment: Moment) -> Mapping[str, float]:
        """The number of walks."""
        return {"count": self.scale * moment.walks}
