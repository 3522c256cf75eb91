"""What diffusers offers to walkback: lightweight records; importing this module imports neither torch nor diffusers."""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Command, Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_networks() -> Iterator[Component]:
    """One network."""
    yield Component(
        "diffusers-unet",
        "walkback_diffusers.network:DiffusersUNet",
        "UNet2DModel of diffusers, for images (extra diffusers)",
    )


@hookimpl
def walkback_commands() -> Iterator[Command]:
    """`walkback import diffusers`."""
    yield Command(
        "import", "walkback_diffusers.command:app", "Turn models of other libraries into checkpoints."
    )
