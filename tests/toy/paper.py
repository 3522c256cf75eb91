"""The paper's operators with each of the shipped networks, the options of both in one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from walkback.networks import Network
from walkback.state import Space, StateSpace
from walkback.temperature import StandardDeviationLaw, TemperatureLaw, VarianceLaw
from walkback_networks.encoder_decoder import EncoderDecoder
from walkback_networks.mlp import MLP
from walkback_networks.plain import PlainMLP
from walkback_networks.unet import UNet
from walkback_paper.bernoulli import Bernoulli
from walkback_paper.gaussian import Gaussian

LAWS: Mapping[str, TemperatureLaw] = {"variance": VarianceLaw(), "std": StandardDeviationLaw()}

Operator = TypeVar("Operator", Gaussian, Bernoulli)


def _with(operator: type[Operator], network: type[Network]) -> Callable[..., Operator]:
    """A maker `make(space, **options)`, which gives the network those that it has."""
    own = inspect.signature(network).parameters

    def make(space: StateSpace, **options: Any) -> Operator:
        inner = {name: value for name, value in options.items() if name in own}
        outer = {name: value for name, value in options.items() if name not in own}
        if outer.pop("smoothing", 0.0):  # data smoothed by so much, which the operator makes use of
            assert isinstance(space, Space)
            space, outer = replace(space, noise=options["smoothing"]), {**outer, "smoothed": True}
        if "temperature_law" in outer:
            outer["temperature_law"] = LAWS[outer["temperature_law"]]
        return operator(space, network(**inner), **outer)

    return make


gaussian_mlp = _with(Gaussian, MLP)
gaussian_plain_mlp = _with(Gaussian, PlainMLP)
gaussian_conv = _with(Gaussian, EncoderDecoder)
gaussian_unet = _with(Gaussian, UNet)
bernoulli_mlp = _with(Bernoulli, MLP)
bernoulli_plain_mlp = _with(Bernoulli, PlainMLP)
bernoulli_conv = _with(Bernoulli, EncoderDecoder)
bernoulli_unet = _with(Bernoulli, UNet)
