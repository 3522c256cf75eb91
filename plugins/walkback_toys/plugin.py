"""Small datasets without downloads: 2-D points, and scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_datasets() -> Iterator[Component]:
    """Three 2-D datasets, and digits of 8×8 pixels."""
    figures = "walkback_toys.figures"
    yield Component("swiss-roll", f"{figures}:SwissRoll", "A thin spiral in the plane.")
    yield Component("circle", f"{figures}:Circle", "A thin circle in the plane.")
    yield Component("mog", f"{figures}:Mog", "A mixture of Gaussians in the plane, on a ring or a grid.")
    yield Component("digits", "walkback_toys.digits:Digits", "Real handwritten digits, 8×8 gray, 17 levels.")
