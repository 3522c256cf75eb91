"""Small operators with weights, far from their initialization, in float64."""

from __future__ import annotations

from typing import TypeVar

import torch
from tests.toy.paper import bernoulli_mlp, gaussian_mlp
from tests.toy.statistics import rng
from torch import nn

from walkback.state import Space
from walkback_paper.bernoulli import Bernoulli
from walkback_paper.gaussian import Gaussian

Operator = TypeVar("Operator", bound=nn.Module)


def shaken(operator: Operator, seed: int = 0, size: float = 0.3) -> Operator:
    """The operator in float64 with random weights everywhere: its heads start at zero, where much would look equal."""
    operator.double()
    generator = rng(seed)
    with torch.no_grad():
        for weight in operator.parameters():
            weight.normal_(std=size, generator=generator)
    return operator


def blind_gaussian(size: int = 3, seed: int = 0) -> Gaussian:
    """A Gaussian operator whose network does not see the level."""
    operator = gaussian_mlp(
        Space((size,)), sigma=0.5, mean="mix", variance="reverse", hidden=8, depth=1, conditioning="none"
    )
    return shaken(operator, seed)


def blind_bernoulli(size: int = 3, seed: int = 0) -> Bernoulli:
    """A Bernoulli operator whose network does not see the level."""
    operator = bernoulli_mlp(
        Space((size,), "binary"), mean="mix", heating="tied", hidden=8, depth=1, conditioning="none"
    )
    return shaken(operator, seed)


def seeing_gaussian(size: int = 3, seed: int = 0, dropout: float = 0.0) -> Gaussian:
    """A Gaussian operator whose network sees the level."""
    operator = gaussian_mlp(Space((size,)), sigma=0.3, hidden=8, depth=1, dropout=dropout)
    return shaken(operator, seed)
