"""Small datasets without downloads: 2-D points, handwritten digits, Potts spins, and symbols in files."""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_datasets() -> Iterator[Component]:
    """Three 2-D datasets, digits of 8×8 pixels, rings of Potts spins, and symbols in files."""
    figures = "walkback_toys.figures"
    for name, target, summary in (
        ("swiss-roll", f"{figures}:SwissRoll", "A thin spiral in the plane."),
        ("circle", f"{figures}:Circle", "A thin circle in the plane."),
        ("mog", f"{figures}:Mog", "A mixture of Gaussians in the plane, on a ring or a grid."),
        ("digits", "walkback_toys.digits:Digits", "Real handwritten digits, 8×8 gray, 17 levels."),
        ("potts", "walkback_toys.potts:Potts", "Rings of Potts spins, one-hot, drawn from their exact law."),
    ):
        yield Component(name, target, summary, self_contained=True)
    yield Component(
        "symbols",
        "walkback_toys.symbols:SymbolFile",
        "Whole numbers (N, …) in a .npy file as one-hot states (option path).",
        instances=("walkback.data.symbols:SymbolData",),
    )
