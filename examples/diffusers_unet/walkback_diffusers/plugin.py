"""What this plugin offers: light records only, nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_networks() -> Iterable[Component]:
    """One network."""
    yield Component("diffusers-unet", "walkback_diffusers.network:DiffusersUNet", "UNet2DModel of diffusers")
