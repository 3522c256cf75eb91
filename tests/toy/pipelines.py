"""Small pipelines of diffusers, and the models that the program makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import walkback

import walkback as wb
from walkback.model import Model

diffusers = pytest.importorskip("diffusers", reason="needs walkback[diffusers]")

LEVELS = 12


def pipeline(**options: Any) -> Any:
    """A small pipeline whose weights are those of a new U-Net, moved."""
    torch.manual_seed(0)
    learned = options.get("variance_type", "").startswith("learned")
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=2 if learned else 1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
    ).eval()
    if options.get("variance_type") == "learned":
        unet.conv_out.bias.data[1] = 2.0  # a variance must be positive
    scheduler = diffusers.DDPMScheduler(**{"num_train_timesteps": LEVELS, **options})
    made = diffusers.DDPMPipeline(unet=unet, scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def saved(made: Any, folder: Path, **options: Any) -> Path:
    made.save_pretrained(folder, **options)
    return folder


def imported(made: Any, folder: Path) -> Model:
    """The model that the program makes of a pipeline."""
    out = folder / "model.safetensors"
    done = walkback("import", "diffusers", saved(made, folder / "pipeline"), "-o", out)
    assert done.code == 0, done.err
    return wb.load(out).model


def in_double(scheduler: Any) -> Any:
    """The scheduler with its tables in double precision: 1 - ᾱ_1 of single ones has four digits."""
    scheduler.betas = scheduler.betas.double()
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler
