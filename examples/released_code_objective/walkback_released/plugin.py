"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_objectives() -> Iterable[Component]:
    """One objective, to compare with."""
    yield Component(
        "released-code",
        "walkback_released.objective:ReleasedCode",
        "-log p_T(s_t | s_t), what the paper's released code descends: it degenerates",
    )
