"""Small datasets without downloads: 2-D points, and scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_datasets() -> Iterator[Component]:
    """Three 2-D datasets, and digits of 8×8 pixels."""
    figures = "walkback_toys.figures"
    for name, target, summary in (
        ("swiss-roll", f"{figures}:SwissRoll", "A thin spiral in the plane."),
        ("circle", f"{figures}:Circle", "A thin circle in the plane."),
        ("mog", f"{figures}:Mog", "A mixture of Gaussians in the plane, on a ring or a grid."),
        ("digits", "walkback_toys.digits:Digits", "Real handwritten digits, 8×8 gray, 17 levels."),
    ):
        yield Component(name, target, summary, self_contained=True)
