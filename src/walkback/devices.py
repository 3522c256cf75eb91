"""Where computation runs: device and precision, checked before any work starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch

from walkback.errors import ConfigurationError

Precision: TypeAlias = Literal["fp32", "bf16"]


def resolve_device(name: str) -> torch.device:
    """The device behind "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:i".

    Raises:
        ConfigurationError: A CUDA device is asked for and this machine has none, or not that many.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if available else torch.device("cpu")
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not available:
        raise ConfigurationError(
            f"Got device '{name}', but PyTorch {torch.__version__} sees no CUDA device on this machine: "
            "use --device cpu, or install a CUDA build of PyTorch."
        )
    index = device.index or 0
    if index >= available:
        raise ConfigurationError(
            f"Got device '{name}', expected an index below {available}, the number of CUDA devices here."
        )
    return torch.device("cuda", index)


def resolve_precision(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """Turn "auto" into bf16 on CUDA devices that have it and fp32 elsewhere."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Networks compute in bf16 inside where `precision` says so; states and densities stay in fp32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield
