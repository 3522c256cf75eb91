"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl

PARTS = {"schedule": "geometric", "prior": "gaussian", "process": "tied", "objective": "walkback"}


@hookimpl
def walkback_operators() -> Iterable[Component]:
    """One operator."""
    yield Component(
        "langevin",
        "walkback_langevin.operator:Langevin",
        "Langevin steps down a learned energy",
        defaults={section: {"name": name} for section, name in PARTS.items()},
    )
