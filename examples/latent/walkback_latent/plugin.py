"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl

PARTS = {"schedule": "geometric", "prior": "blocked", "process": "tied", "objective": "walkback"}


@hookimpl
def walkback_operators() -> Iterable[Component]:
    """One operator."""
    yield Component(
        "blocked",
        "walkback_latent.operator:Blocked",
        "Visible and latent units, updated in turn: h given v, then v given both",
        defaults={section: {"name": name} for section, name in PARTS.items()},
    )


@hookimpl
def walkback_priors() -> Iterable[Component]:
    """The prior of its states."""
    yield Component(
        "blocked", "walkback_latent.prior:BlockedPrior", "Tracked Gaussian of v, tracked bits of h"
    )
