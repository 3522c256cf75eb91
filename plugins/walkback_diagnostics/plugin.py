"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_diagnostics() -> Iterable[Component]:
    """Measurements of a trained operator."""
    yield Component(
        "reversibility",
        "walkback_diagnostics.reversibility:Reversibility",
        "Entropy production of the chain, beside its entropy rate (appendix H), and a rank test",
    )
    yield Component(
        "stationarity",
        "walkback_diagnostics.stationarity:Stationarity",
        "Does the chain at T = 1 stay on the data, and when does it leave?",
    )
    yield Component(
        "mixing",
        "walkback_diagnostics.mixing:Mixing",
        "Autocorrelation time, effective sample size, R-hat, switching between classes, burn-in",
    )
    yield Component(
        "thermodynamics",
        "walkback_diagnostics.thermodynamics:Thermodynamics",
        "Work of heating and cooling, dissipation, free energy, entropy production by level",
    )
    yield Component(
        "symmetry",
        "walkback_diagnostics.symmetry:Symmetry",
        "Is the drift the gradient of an energy? Asymmetry of its Jacobian and of mirrored layers",
    )
