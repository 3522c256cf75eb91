"""Device and precision of computations, checked before any work starts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from walkback.errors import ConfigurationError

Precision: TypeAlias = Literal["fp32", "bf16"]

_NAME = re.compile(r"auto|cpu|cuda(?::(\d+))?")


def resolve_device(name: str) -> torch.device:
    """Resolve "auto" (CUDA if available), "cpu", "cuda" or "cuda:i" to a device.

    Raises:
        ConfigurationError: It is none of these, or a CUDA device that this machine does not have.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigurationError(f"Got device '{name}', expected auto, cpu, cuda or cuda:i.")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if available else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not available:
        raise ConfigurationError(
            f"Got device '{name}', but PyTorch {torch.__version__} sees no CUDA device on this machine: "
            "use --device cpu, or install a CUDA build of PyTorch."
        )
    index = int(match[1] or 0)
    if index >= available:
        raise ConfigurationError(
            f"Got device '{name}', expected an index below {available}, the number of CUDA devices here."
        )
    return torch.device("cuda", index)


def resolve_precision(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """Resolve "auto" to bf16 on CUDA devices that support it, and to fp32 elsewhere."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def has_bf16_units(device: torch.device) -> bool:
    """Return whether a device multiplies in bf16 itself, at more than the speed of fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: Callable[[], Mapping[str, Any]] = getattr(
        torch.cpu, "get_capabilities", dict
    )  # not in torch 2.7
    return any(capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished all queued work; does nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """If `wanted`, use only deterministic algorithms in the block; operations without one raise an error."""
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark
    # cuBLAS reads this variable on first use, and is deterministic only if it is set.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        mode, cudnn.deterministic, cudnn.benchmark = before
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run networks in `precision` in the block; states and densities stay in fp32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield


@contextmanager
def inference(module: nn.Module, device: torch.device, precision: Precision) -> Iterator[None]:
    """As `autocast`, without gradients, and casting each weight of `module` once in the block.

    Autocast keeps the copies of weights that require gradients, and casts others, like those of a trained model, in
    every run of the network.
    """
    frozen = [
        weight for weight in module.parameters() if weight.is_floating_point() and not weight.requires_grad
    ]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        with torch.no_grad(), autocast(device, precision):
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
