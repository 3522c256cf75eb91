"""Laws of metrics: figures by name; the model is unchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from walkback.metrics import Metric, Moment
from walkback.state import Space
from walkback.testing.cases import Case, ConformanceError, Suite
from walkback.testing.probes import drawn_from, same
from walkback.testing.reference import reversible_model

METRICS = Suite()

_SPACE = Space((2,))
_TAKEN = frozenset(
    {"step", "nonfinite", "loss", "seconds", "gradient_norm", "learning_rate", "calls", "gradient_calls"}
)


def _moment() -> Moment:
    model = reversible_model(_SPACE)
    model.operator.requires_grad_(True)
    model.operator.train()
    return Moment(
        walks=100,
        loss=1.5,
        gradient_norm=0.3,
        learning_rate=1e-3,
        seconds=12.0,
        model=model,
        averaged=reversible_model(_SPACE),
    )


def _measured(case: Case, moment: Moment) -> Mapping[str, float]:
    metric: Metric = case.build("metric")
    figures = metric.measure(moment)
    if not isinstance(figures, Mapping):
        raise ConformanceError(f"Got {type(figures).__name__} of measure, expected figures by name.")
    return figures


@METRICS.check("builds", "it is a metric, built from its options")
def _builds(case: Case) -> None:
    case.build("metric")


@METRICS.check("figures", "figures are plain numbers by name, and no name is one of the trainer's own")
def _figures(case: Case) -> None:
    for name, value in _measured(case, _moment()).items():
        if not isinstance(name, str) or not name or name in _TAKEN:
            raise ConformanceError(
                f"Got a figure called {name!r}, expected a name of its own: none of {', '.join(sorted(_TAKEN))}."
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConformanceError(
                f"Got {type(value).__name__} as {name!r}, expected a number: convert a tensor with `.item()`."
            )


@METRICS.check("nonfinite", "a loss of nan and an infinite gradient raise no error")
def _nonfinite(case: Case) -> None:
    _measured(case, replace(_moment(), loss=math.nan, gradient_norm=math.inf))


@METRICS.check("model", "the model, its mode and its gradients are unchanged")
def _model(case: Case) -> None:
    moment = _moment()
    before = {name: value.clone() for name, value in moment.model.operator.state_dict().items()}
    _measured(case, moment)
    operator = moment.model.operator
    if not operator.training:
        raise ConformanceError(
            "Got an operator left in evaluation mode, expected its mode unchanged: use `with model.evaluating()`."
        )
    if any(weight.grad is not None for weight in operator.parameters()):
        raise ConformanceError("Got gradients in the model, expected none: compute under torch.no_grad().")
    if not all(same(value, before[name]) for name, value in operator.state_dict().items()):
        raise ConformanceError("Got a model whose state changed, expected it unchanged.")


@METRICS.check("generator", "global randomness is neither read nor changed")
def _generator(case: Case) -> None:
    def figures(_: torch.Generator) -> torch.Tensor:
        return torch.tensor(list(_measured(case, _moment()).values()), dtype=torch.float64)

    drawn_from(figures, "a metric")
