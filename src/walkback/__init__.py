"""walkback: learn transition operators, stochastic maps s → s' whose repeated application samples the data.

The way of one training step through the modules::

    data → walk (operators, kernels, schedules, processes) → objectives → training → checkpoint

What can be chosen by name comes from plugins, through `hookspecs` and `registry`. Importing `walkback` alone
costs nothing: the names below are imported when they are first asked for::

    import walkback as wb

    trained = wb.train("gaussian-mlp", data="swiss-roll", steps=2000)
    wb.sample(trained, 500, extra=100)
    wb.evaluate(trained)
    wb.diagnose("reversibility", trained)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from walkback.api.measuring import diagnose, evaluate
    from walkback.api.models import load
    from walkback.api.records import Samples, Trained
    from walkback.api.sampling import inpaint, sample
    from walkback.api.training import bench, train
    from walkback.report import Report
else:

    def __getattr__(name: str) -> object:
        """The name, imported now; raises AttributeError for one that is not offered."""
        from importlib import import_module

        places = {
            **dict.fromkeys(("diagnose", "evaluate"), "api.measuring"),
            **dict.fromkeys(("Samples", "Trained"), "api.records"),
            **dict.fromkeys(("inpaint", "sample"), "api.sampling"),
            "load": "api.models",
            **dict.fromkeys(("bench", "train"), "api.training"),
            "Report": "report",
        }
        if name not in places:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{places[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Everything that is there, imported or not."""
        return sorted({*globals(), *__all__})


__all__ = [
    "Report",
    "Samples",
    "Trained",
    "bench",
    "diagnose",
    "evaluate",
    "inpaint",
    "load",
    "sample",
    "train",
]
