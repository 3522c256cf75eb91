"""The networks that walkback ships with: lightweight records; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_networks() -> Iterable[Component]:
    """The paper's two networks, and two designed for temperature conditioning."""
    yield Component("mlp", "walkback_networks.mlp:MLP", "Residual MLP, for states of any shape")
    yield Component(
        "plain-mlp",
        "walkback_networks.plain:PlainMLP",
        "Fully connected layers with norms, as the paper uses for the MNIST bound (2×1200 units)",
    )
    yield Component(
        "encoder-decoder",
        "walkback_networks.encoder_decoder:EncoderDecoder",
        "The paper's convolutional encoder-decoder, for images (Tables 2 to 5)",
    )
    yield Component("unet", "walkback_networks.unet:UNet", "Residual U-Net, for series, images and volumes")
