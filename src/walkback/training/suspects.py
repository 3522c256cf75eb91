"""Parts of a model that may be at fault when training meets numbers that are not finite."""

from __future__ import annotations

from walkback.model import Model
from walkback.objectives import AnyObjective
from walkback.training.finite import NotFiniteError
from walkback.training.shards import part

_LARGE_WEIGHT = 1e4
"""Magnitude of weights that indicates too high a learning rate; trained weights are of order 1."""


def suspecting_parts(error: NotFiniteError, model: Model, objective: AnyObjective) -> NotFiniteError:
    """Return the error, with the parts of the model as suspects unless the learning rate is to blame.

    Before any update, or with weights of ordinary magnitude, the numbers come from the code of the parts.
    """
    weights = [own for weight in model.operator.parameters() if (own := part(weight.detach())).numel()]
    if error.updates == 0 or all(bool(weight.abs().max() < _LARGE_WEIGHT) for weight in weights):
        error.suspecting(model.operator, model.process, objective, model.prior)
    return error
