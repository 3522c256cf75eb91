"""Small datasets without downloads, spaces without data, and finite Markov chains in closed form."""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component, DatasetSource
from walkback.hookspecs import hookimpl

_PARTS = {"schedule": {"name": "doubling"}, "process": {"name": "tied"}, "objective": {"name": "walkback"}}
"""Other components for known chains, which are at T = 1 at all levels."""

_PRIORS = {"real": "broad-gaussian", "binary": "fair-bits", "one-hot": "uniform-symbols"}
"""Prior of the initial states in each kind of space."""


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
    for support, prior in _PRIORS.items():
        yield Component(
            f"{support}-states",
            "walkback.data.spaces:EmptyData",
            f"A space of {support} states without examples, for known chains (option shape).",
            defaults={**_PARTS, "prior": {"name": prior}},
            preset={"support": support},
            self_contained=True,
        )


@hookimpl
def walkback_operators() -> Iterator[Component]:
    """Finite Markov chains."""
    yield Component(
        "markov",
        "walkback_toys.markov:Markov",
        "A finite Markov chain in closed form (option matrix); one-hot states",
        defaults={**_PARTS, "prior": {"name": "uniform-symbols"}},
    )


@hookimpl
def walkback_dataset_source(source: str) -> DatasetSource | None:
    """Reads spaces: real:2, binary:3,4, one-hot:12,3."""
    if source.partition(":")[0] not in _PRIORS or ":" not in source:
        return None
    from walkback.data.spaces import parse_space

    space = parse_space(source)
    return DatasetSource(f"{space.support}-states", {"shape": list(space.shape)})
