"""Published figures (`published.toml`): shown beside a comparison on request, never mixed with it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from pydantic import TypeAdapter

from walkback.configuration.documents import parse_toml


@dataclass(frozen=True, slots=True)
class Published:
    """A published figure.

    Attributes:
        method: The method, as its source names it.
        data: The data.
        figure: Name of the figure.
        value: Its value.
        unit: Its unit.
        error: Its error as published; None if there is none.
        bound: Whether it is an upper bound rather than the quantity itself.
        protocol: How it was measured, as far as the source says.
        source: Publication, and place in it.
    """

    method: str
    data: str
    figure: str
    value: float
    unit: str
    protocol: str
    source: str
    error: float | None = None
    bound: bool = False

    @property
    def text(self) -> str:
        """Value with sign and error, as published."""
        sign = "≤ " if self.bound else ""
        return f"{sign}{self.value:.2f}" + ("" if self.error is None else f" ± {self.error:g}")


def published_figures() -> tuple[Published, ...]:
    """Read the file."""
    text = files("walkback.comparing").joinpath("published.toml").read_text("utf-8")
    entries = parse_toml(text, "published.toml")["figures"]
    return TypeAdapter(tuple[Published, ...]).validate_python(entries)
