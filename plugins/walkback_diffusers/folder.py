"""Reading a folder of `DDPMPipeline.save_pretrained`, which is not trusted: JSON texts and safetensors, never pickles.

    model_index.json                              the classes of the pipeline's parts
    scheduler/scheduler_config.json               β_t, what is predicted, how large the variance is
    unet/config.json                              options of UNet2DModel
    unet/diffusion_pytorch_model.safetensors      its weights

Early pipelines have all files in one folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from walkback.errors import ConfigurationError, shortened
from walkback.schedules import MOST_LEVELS
from walkback.support.extras import require
from walkback.support.text import one_line
from walkback.support.textfile import open_regular, read_text
from walkback_diffusers.network import options_of_config

Prediction: TypeAlias = Literal["epsilon", "sample", "v_prediction"]
VarianceType: TypeAlias = Literal[
    "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"
]
Model = TypeVar("Model", bound=BaseModel)

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Present names of the projections of attention by those of diffusers before 0.15."""


class Scheduler(BaseModel):
    """The options of a `DDPMScheduler` that define its chain."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, strict=True)

    num_train_timesteps: Annotated[int, Field(ge=1, le=MOST_LEVELS)] = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Annotated[str, Field(max_length=100)] = "linear"
    trained_betas: Annotated[list[float], Field(min_length=1, max_length=MOST_LEVELS)] | None = None
    variance_type: VarianceType = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: Annotated[float, Field(gt=0.0)] = 1.0
    prediction_type: Prediction = "epsilon"
    thresholding: bool = False
    rescale_betas_zero_snr: bool = False

    @property
    def learned(self) -> bool:
        """Whether the network has outputs for the variance."""
        return self.variance_type.startswith("learned")

    def betas(self) -> Tensor:
        """Return β_t `(K,)`, float64, from diffusers itself.

        Raises:
            ConfigurationError: The scheduler does something that no normal kernel does, or has no such β_t.
        """
        for name, why in (
            ("thresholding", "bounds every predicted image by its own quantile"),
            ("rescale_betas_zero_snr", "makes the last step forget everything, β = 1"),
        ):
            if getattr(self, name):
                raise ConfigurationError(
                    f"Got a scheduler with {name} = true, which {why}: this cannot be imported."
                )
        options = self.model_dump(exclude={"thresholding", "rescale_betas_zero_snr"})
        try:
            betas: Tensor = require("diffusers", "diffusers").DDPMScheduler(**options).betas.double()
        except (NotImplementedError, ValueError, TypeError) as error:
            raise ConfigurationError(f"The scheduler cannot be built: {one_line(error)}.") from error
        if len(betas) != self.num_train_timesteps or not bool(((betas > 0) & (betas < 1)).all()):
            raise ConfigurationError(
                f"Got {len(betas)} values of β from {betas.min():.3g} to {betas.max():.3g} for "
                f"{self.num_train_timesteps} timesteps, expected one of each timestep between 0 and 1."
            )
        return betas


class _Sizes(BaseModel):
    """What the configuration of a `UNet2DModel` says about its images."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    sample_size: (
        Annotated[int, Field(ge=1, le=2**14)]
        | Annotated[list[Annotated[int, Field(ge=1, le=2**14)]], Field(min_length=2, max_length=2)]
    )
    in_channels: Annotated[int, Field(ge=1, le=2**10)] = 3
    out_channels: Annotated[int, Field(ge=1, le=2**11)] = 3
    class_embed_type: str | None = None
    num_class_embeds: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, (C, H, W)."""
        size = self.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.in_channels, height, width)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A saved pipeline.

    Attributes:
        shape: Shape of an image, (C, H, W).
        scheduler: Options of the scheduler.
        options: Options of `DiffusersUNet` that the folder sets.
        weights: State dict of the U-Net, float32.
    """

    shape: tuple[int, int, int]
    scheduler: Scheduler
    options: Mapping[str, Any]
    weights: Mapping[str, Tensor]


def read_pipeline(folder: Path) -> Pipeline:
    """Read a pipeline.

    Raises:
        ConfigurationError: The folder is not of a DDPMPipeline with a UNet2DModel and a DDPMScheduler, or cannot be
            represented.
    """
    _require_pipeline(_document(folder / "model_index.json"), folder)
    unet = _part(folder, "unet")
    config = _document(unet / "config.json")
    scheduler_file = _part(folder, "scheduler") / "scheduler_config.json"
    scheduler = _checked(Scheduler, _document(scheduler_file), scheduler_file)
    sizes = _checked(_Sizes, config, unet / "config.json")
    _require_outputs(sizes, scheduler)
    return Pipeline(sizes.shape, scheduler, options_of_config(config), _weights(unet))


def _require_outputs(sizes: _Sizes, scheduler: Scheduler) -> None:
    """Raises ConfigurationError for conditional U-Nets, and for numbers of outputs that do not fit the scheduler."""
    if sizes.class_embed_type is not None or sizes.num_class_embeds is not None:
        raise ConfigurationError(
            "Got a U-Net that is conditioned on classes, expected an unconditional one: a DDPMPipeline tells its U-Net "
            "no class."
        )
    wanted = sizes.in_channels * (2 if scheduler.learned else 1)
    if sizes.out_channels != wanted:
        raise ConfigurationError(
            f"Got a U-Net with {sizes.in_channels} input and {sizes.out_channels} output channels, expected {wanted} "
            f"of the latter for variance_type = '{scheduler.variance_type}'."
        )


def _require_pipeline(index: Mapping[str, Any], folder: Path) -> None:
    """Raises ConfigurationError unless the index names a DDPMPipeline of classes of diffusers."""
    expected = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    for key, value in expected.items():
        if index.get(key) != value:
            raise ConfigurationError(
                f"Got {folder} with {key} = {shortened(repr(index.get(key)), 80)} in model_index.json, "
                f"expected {value!r}."
            )


def _part(folder: Path, name: str) -> Path:
    """Returns the folder of a part."""
    inner = folder / name
    return inner if inner.is_dir() else folder


def _document(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; raises ConfigurationError if there is none."""
    try:
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read as JSON: {one_line(error)}.") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"Got {path} with {shortened(repr(document), 40)}, expected a JSON object.")
    return document


def _checked(model: type[Model], document: Mapping[str, Any], path: Path) -> Model:
    """Returns the options that a model knows; like diffusers, ignores others."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(key) for key in first["loc"][:1])
        raise ConfigurationError(
            f"Got {where} = {shortened(repr(first['input']), 60)} in {path}: {first['msg']}."
        ) from error


def _weights(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of the safetensors file in a folder, in float32."""
    import safetensors
    import safetensors.torch

    path = folder / _WEIGHTS
    if not path.exists():
        raise ConfigurationError(_missing(folder))
    try:
        # Parsed in memory: with the memory-mapped reader, a file that is truncated later kills the process.
        with open_regular(path) as file:
            tensors = safetensors.torch.load(file.read())
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigurationError(f"{path} cannot be read: {one_line(error)}.") from error
    return {_present(name): _single(path, name, tensor) for name, tensor in tensors.items()}


def _missing(folder: Path) -> str:
    """Returns what to do about missing weights."""
    if any(folder.glob("*.bin")):
        return (
            f"Got {folder} with weights in a .bin file only, which is a pickle and may run any code: save the pipeline "
            "again with safe_serialization=True."
        )
    others = sorted(path.name for path in folder.glob("*.safetensors*"))[:3]
    found = f" ({', '.join(others)})" if others else ""
    return f"Got {folder} without {_WEIGHTS}{found}: save the pipeline in one file, without a variant."


def _single(path: Path, name: str, tensor: Tensor) -> Tensor:
    """Returns weights in float32."""
    if not tensor.is_floating_point():
        raise ConfigurationError(
            f"Got {path} with the tensor {shortened(repr(name), 80)} of type {tensor.dtype}, expected numbers."
        )
    return tensor.to(torch.float32)


def _present(name: str) -> str:
    """Returns the name of a tensor in present versions of diffusers."""
    former = re.fullmatch(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", name)
    return name if former is None else f"{former[1]}.{_FORMER[former[2]]}.{former[3]}"
