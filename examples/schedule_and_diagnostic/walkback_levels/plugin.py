"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_schedules() -> Iterable[Component]:
    """One schedule."""
    yield Component(
        "power-law",
        "walkback_levels.schedule:PowerLaw",
        "A given number of levels, even in a power of the standard deviation of the noise",
    )


@hookimpl
def walkback_diagnostics() -> Iterable[Component]:
    """One diagnostic, which judges schedules."""
    yield Component(
        "level-match",
        "walkback_levels.diagnostic:LevelMatch",
        "Do cooling walks pass through the states of heating walks, level by level?",
    )
