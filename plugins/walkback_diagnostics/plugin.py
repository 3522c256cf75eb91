"""Components of this plugin: lightweight records; importing this module does not import torch."""

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
        "Entropy production and entropy rate of the chain (appendix H), and a rank test",
    )
    yield Component(
        "stationarity",
        "walkback_diagnostics.stationarity:Stationarity",
        "Whether the chain at T = 1 stays on the data, and when it leaves",
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
        "Whether the drift is the gradient of an energy: asymmetry of its Jacobian, and mirrored layers",
    )
