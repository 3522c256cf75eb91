"""walkback: learn transition operators, stochastic maps s → s' whose repeated application samples the data.

Training: data → walk (operators, kernels, schedules, processes) → objectives → training → checkpoint.

Components that are chosen by name come from plugins (see `hookspecs` and `extensions.registry`). `import walkback`
is cheap: the names below are imported on first access::

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
    from walkback.api.runs import compare, runs, save_report, sweep
    from walkback.api.sampling import inpaint, sample
    from walkback.api.training import bench, chain, train
    from walkback.report import Report
else:

    def __getattr__(name: str) -> object:
        """Import `name` on first access; raises AttributeError if walkback does not export it."""
        from importlib import import_module

        places = {
            **dict.fromkeys(("diagnose", "evaluate"), "api.measuring"),
            **dict.fromkeys(("Samples", "Trained"), "api.records"),
            **dict.fromkeys(("compare", "runs", "save_report", "sweep"), "api.runs"),
            **dict.fromkeys(("inpaint", "sample"), "api.sampling"),
            "load": "api.models",
            **dict.fromkeys(("bench", "chain", "train"), "api.training"),
            "Report": "report",
        }
        if name not in places:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{places[name]}"), name)
        globals()[name] = value  # later accesses no longer come through here
        return value

    def __dir__() -> list[str]:
        """All exported names, including those not imported yet."""
        return sorted({*globals(), *__all__})


__all__ = [
    "Report",
    "Samples",
    "Trained",
    "bench",
    "chain",
    "compare",
    "diagnose",
    "evaluate",
    "inpaint",
    "load",
    "runs",
    "sample",
    "save_report",
    "sweep",
    "train",
]
