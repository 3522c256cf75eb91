"""`diffusers.UNet2DModel` as a network: heads are groups of its output channels, labels rows of its class embedding.

    continuous   timestep = 100 log₂ T
    discrete     timestep = argmin_k |log₂ T - log₂ τ_k|,   k = 0 … K - 1

T stands for what the operator tells its network, a temperature or a diffusion time. The table log₂ τ_k is a buffer: an
imported network has that of its pipeline, and a new one τ_k = k + 1, the times of steps at T = 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.networks import Network, Ports, Told
from walkback.support.extras import require
from walkback.support.text import one_line

DownBlock: TypeAlias = Literal[
    "DownBlock2D",
    "AttnDownBlock2D",
    "ResnetDownsampleBlock2D",
    "KDownBlock2D",
]
UpBlock: TypeAlias = Literal[
    "UpBlock2D",
    "AttnUpBlock2D",
    "ResnetUpsampleBlock2D",
    "KUpBlock2D",
]
Size: TypeAlias = Annotated[int, Field(gt=0, le=2**14)]
Blocks: TypeAlias = Annotated[int, Field(gt=0, le=64)]
Timesteps: TypeAlias = Annotated[int, Field(gt=0, le=100_000)]
_MOST = Field(min_length=1, max_length=16)

_PER_DOUBLING = 100
"""Continuous timesteps per doubling of T: the sinusoids of the embedding are made for timesteps of 0 to 1,000."""


@final
class Backbone(nn.Module):
    """Maps images `(B, C, H, W)` to `heads` tensors `(B, C, H, W)`.

    Args:
        ports: Shape of the images, and the number of heads and labels.
        unet: A `UNet2DModel` with `heads` times C output channels.
        timesteps: K; None for continuous timesteps.
    """

    log2_times: Tensor | None

    def __init__(self, ports: Ports, unet: nn.Module, timesteps: int | None) -> None:
        super().__init__()
        self.unet = unet
        self._ports = ports
        times = None if timesteps is None else torch.arange(1, timesteps + 1, dtype=torch.float64).log2()
        self.register_buffer("log2_times", times)

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        """Returns one tensor `(B, C, H, W)` per head."""
        label = None
        if self._ports.classes:  # the embedding after those of the classes means that there is no label
            none = state.new_full((len(state),), self._ports.classes).long()
            label = none if told.label is None else none.where(told.label < 0, told.label)
        (output,) = self.unet(state, self.timestep(told), class_labels=label, return_dict=False)
        return tuple(output.chunk(self._ports.heads, dim=1))

    def timestep(self, told: Told) -> Tensor:
        """Returns the timestep of each row, or of all rows, `(B,)` or `(1,)`: int64 if timesteps are discrete."""
        if self.log2_times is None:
            return _PER_DOUBLING * told.log2_temperature
        middles = (self.log2_times[1:] + self.log2_times[:-1]) / 2
        return torch.bucketize(told.log2_temperature.to(middles), middles)


@dataclass(frozen=True, slots=True)
class Details:
    """Options of `UNet2DModel` that are rarely changed.

    Attributes:
        mid_block_type: Block at the coarsest resolution.
        mid_block_scale_factor: What the output of the middle block is divided by.
        add_attention: Whether the middle block has attention.
        attn_norm_num_groups: Groups of the norm before attention in the middle block; None takes norm_num_groups.
        norm_eps: ε of the group norms.
        act_fn: Activation function.
        resnet_time_scale_shift: How features are conditioned on the timestep.
        downsample_type: How resolution is halved.
        downsample_padding: Padding of the convolution that does so.
        upsample_type: How resolution is doubled.
        time_embedding_type: Embedding of the timestep; "learned" needs num_train_timesteps.
        time_embedding_dim: Size of the embedding; None takes four times the first feature maps.
        freq_shift: Shift of the sinusoids' frequencies.
        flip_sin_to_cos: Whether cosines come first.
        center_input_sample: Whether the network sees 2 s - 1 instead of s.
    """

    mid_block_type: Literal["UNetMidBlock2D", "none"] = "UNetMidBlock2D"
    mid_block_scale_factor: Annotated[float, Field(gt=0.0)] = 1.0
    add_attention: bool = True
    attn_norm_num_groups: Size | None = None
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5
    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    downsample_type: Literal["conv", "resnet"] = "conv"
    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 1
    upsample_type: Literal["conv", "resnet"] = "conv"
    time_embedding_type: Literal["positional", "fourier", "learned"] = "positional"
    time_embedding_dim: Size | None = None
    freq_shift: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    flip_sin_to_cos: bool = True
    center_input_sample: bool = False


@final
class DiffusersUNet(Network):
    """The U-Net of diffusers, with the options of `UNet2DModel`.

    Args:
        block_out_channels: Feature maps at each resolution, finest first.
        layers_per_block: Residual layers of each block.
        down_block_types: Blocks on the way down; None has attention at the coarsest resolution.
        up_block_types: Blocks on the way up; None has attention at the coarsest resolution.
        attention_head_dim: Feature maps per attention head; None has one head.
        norm_num_groups: Groups of the group norms, a divisor of all feature maps.
        dropout: Share of features left out in training.
        num_train_timesteps: K, number of timesteps that are distinguished; None for continuous timesteps.
        details: Other options.
    """

    def __init__(
        self,
        *,
        block_out_channels: Annotated[tuple[Size, ...], _MOST] = (32, 64),
        layers_per_block: Blocks = 1,
        down_block_types: Annotated[tuple[DownBlock, ...], _MOST] | None = None,
        up_block_types: Annotated[tuple[UpBlock, ...], _MOST] | None = None,
        attention_head_dim: Size | None = None,
        norm_num_groups: Size = 8,
        dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
        num_train_timesteps: Timesteps | None = None,
        details: Details | None = None,
    ) -> None:
        halved = len(block_out_channels) - 1
        more = asdict(details or Details())
        if more["mid_block_type"] == "none":
            more["mid_block_type"] = None
        self._options: dict[str, Any] = {
            "block_out_channels": block_out_channels,
            "layers_per_block": layers_per_block,
            "down_block_types": down_block_types or ("DownBlock2D",) * halved + ("AttnDownBlock2D",),
            "up_block_types": up_block_types or ("AttnUpBlock2D",) + ("UpBlock2D",) * halved,
            "attention_head_dim": attention_head_dim,
            "norm_num_groups": norm_num_groups,
            "dropout": dropout,
            "num_train_timesteps": num_train_timesteps,
            **more,
        }

    def build(self, ports: Ports) -> Backbone:
        """Builds a network whose output is 0; raises ConfigurationError for states or options that do not fit."""
        halved = len(self._options["block_out_channels"]) - 1
        if len(ports.shape) != 3 or any(side % 2**halved for side in ports.shape[1:]):
            raise ConfigurationError(
                f"Got data of shape {ports.shape} for the network 'diffusers-unet' of {halved + 1} resolutions, "
                f"expected images (channels, height, width) whose sides are multiples of {2**halved}."
            )
        cls = require("diffusers", "diffusers").UNet2DModel
        try:
            unet: nn.Module = cls(
                in_channels=ports.shape[0],
                out_channels=ports.heads * ports.shape[0],
                num_class_embeds=ports.classes + 1 if ports.classes else None,
                **self._options,
            )
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise ConfigurationError(
                f"The network 'diffusers-unet' cannot be built with these options: {one_line(error)}."
            ) from error
        for parameter in unet.get_submodule("conv_out").parameters():
            nn.init.zeros_(parameter)  # a new operator starts as its skip connection
        return Backbone(ports, unet, self._options["num_train_timesteps"])


def options_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of `DiffusersUNet` for a configuration of `UNet2DModel`, whose defaults and extras apply.

    Options that both leave out by None are omitted. Values are not checked.
    """
    theirs = inspect.signature(require("diffusers", "diffusers").UNet2DModel.__init__).parameters
    details = {field.name: field.default for field in fields(Details)}
    ours = {name: option.default for name, option in inspect.signature(DiffusersUNet).parameters.items()}
    found: dict[str, Any] = {"details": {}}
    for name, default in (ours | details).items():
        if name in theirs:
            value = config.get(name, theirs[name].default)
            if name == "mid_block_type" and value is None:
                value = "none"
            if value is not None or default is not None:
                (found["details"] if name in details else found)[name] = value
    return found
