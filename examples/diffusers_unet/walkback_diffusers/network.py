"""`diffusers.UNet2DModel` as a network: log₂ T is its timestep, and the heads are groups of its output channels."""

from __future__ import annotations

from typing import Annotated, final

from diffusers import UNet2DModel
from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.networks import Network, Ports, Told


@final
class Backbone(nn.Module):
    """Maps images `(B, C, H, W)` to `heads` tensors `(B, C, H, W)`."""

    def __init__(self, ports: Ports, unet: UNet2DModel) -> None:
        super().__init__()
        self.unet = unet
        self._ports = ports
        for parameter in unet.conv_out.parameters():
            nn.init.zeros_(parameter)  # a new operator starts as its skip connection

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        label = None
        if self._ports.classes:  # the embedding after those of the classes means that there is no label
            none = state.new_full((len(state),), self._ports.classes).long()
            label = none if told.label is None else none.where(told.label < 0, told.label)
        timestep = 100 * told.log2_temperature  # its sinusoids are made for timesteps of 0 to 1,000
        (output,) = self.unet(state, timestep, class_labels=label, return_dict=False)
        return tuple(output.chunk(self._ports.heads, dim=1))


@final
class DiffusersUNet(Network):
    """The U-Net of diffusers, with self-attention at the coarsest resolution.

    Args:
        channels: Feature maps at each resolution, finest first: multiples of 8.
    """

    def __init__(
        self, *, channels: tuple[Annotated[int, Field(gt=0, multiple_of=8)], ...] = (32, 64)
    ) -> None:
        self._channels = channels

    def build(self, ports: Ports) -> Backbone:
        halved = len(self._channels) - 1
        if len(ports.shape) != 3 or any(side % 2**halved for side in ports.shape[1:]):
            raise ConfigurationError(
                f"Got data of shape {ports.shape}, expected images whose sides are multiples of {2**halved}."
            )
        unet = UNet2DModel(
            in_channels=ports.shape[0],
            out_channels=ports.heads * ports.shape[0],
            down_block_types=("DownBlock2D",) * halved + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * halved,
            block_out_channels=self._channels,
            layers_per_block=1,
            norm_num_groups=8,
            num_class_embeds=ports.classes + 1 if ports.classes else None,
        )
        return Backbone(ports, unet)
