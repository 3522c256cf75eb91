"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl

PARTS = {"schedule": "doubling", "prior": "categorical", "process": "tied", "objective": "walkback"}


@hookimpl
def walkback_operators() -> Iterable[Component]:
    """One operator."""
    yield Component(
        "categorical-mlp",
        "walkback_categorical.operator:CategoricalMLP",
        "Symbols in places, one-hot; residual logits from an MLP",
        defaults={section: {"name": name} for section, name in PARTS.items()},
    )


@hookimpl
def walkback_priors() -> Iterable[Component]:
    """One prior."""
    yield Component(
        "categorical",
        "walkback_categorical.prior:CategoricalPrior",
        "Independent symbols with the tracked frequencies of s_K",
    )


@hookimpl
def walkback_datasets() -> Iterable[Component]:
    """One data set."""
    yield Component(
        "potts", "walkback_categorical.potts:PottsChain", "Chains of Potts spins, drawn from their exact law"
    )
