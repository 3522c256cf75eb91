"""How close the work of a walk comes to what the device can do, and where its time goes.

    ceiling    GFLOP / seconds of one large matrix product, or of a convolution with its backward pass
    least      Σ over products and convolutions of GFLOP / ceiling,   share = least / seconds of the walk

The floating-point operations of a walk are counted by `torch.utils.flop_counter`, its parts by `torch.profiler`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import conv2d
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from walkback.building.devices import Precision, wait_for
from walkback.speed.race import Work

_GIGA = 1e9
_SIZE = 1024
_ROWS, _CHANNELS, _SIDE = 32, 64, 16

PRODUCT_FLOPS = 2 * _SIZE**3 / _GIGA
"""GFLOP of a call of `product`."""

CONVOLUTION_FLOPS = 3 * 2 * _ROWS * _CHANNELS**2 * 9 * _SIDE**2 / _GIGA
"""GFLOP of a call of `convolution`: forward, and backward to input and weights."""

_PARTS: Mapping[str, tuple[str, ...]] = {
    "products": ("::mm", "::addmm", "::bmm", "::baddbmm", "gemm", "cutlass", "attention"),
    "convolutions": ("conv", "cudnn", "fprop", "dgrad", "wgrad"),
    "copies": ("copy", "memcpy", "::cat", "catarray"),
    "norms": ("_norm", "batchnorm", "layernorm", "groupnorm", "bn_"),
    "optimizer": ("adam", "optimizer", "foreach", "multi_tensor"),
    "random": ("normal_", "uniform", "randn", "distribution"),
}
"""Words in the names of operations and kernels, by part; the first part that fits counts."""

OTHER = "elementwise"


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The work of one walk.

    Attributes:
        products: GFLOP of its matrix products.
        convolutions: GFLOP of its convolutions.
        levels: Its K.
        parts: Share of the time of all operations in each kind of operation, by name; they sum to 1.
    """

    products: float
    convolutions: float
    levels: int
    parts: Mapping[str, float]


def product(device: torch.device, precision: Precision) -> Work:
    """Return work that multiplies two square matrices."""
    first, second = (torch.ones(_SIZE, _SIZE, device=device, dtype=_dtype(precision)) for _ in range(2))
    return lambda: first @ second


def convolution(device: torch.device, precision: Precision) -> Work:
    """Return work that runs a 3×3 convolution and its backward pass."""
    options = {"device": device, "dtype": _dtype(precision)}
    images = torch.ones(_ROWS, _CHANNELS, _SIDE, _SIDE, **options, requires_grad=True)  # type: ignore[call-overload]
    weights = torch.ones(_CHANNELS, _CHANNELS, 3, 3, **options, requires_grad=True)  # type: ignore[call-overload]
    slope = torch.ones(_ROWS, _CHANNELS, _SIDE, _SIDE, **options)  # type: ignore[call-overload]
    return lambda: torch.autograd.grad(conv2d(images, weights, padding=1), [images, weights], slope)


def anatomy(walk: Work, levels: int, device: torch.device) -> Anatomy:
    """Run `walk` twice, and return what its first run of `levels` steps consists of."""
    with FlopCounterMode(display=False) as counter:
        walk()
    counts = counter.get_flop_counts().get("Global", {})
    convolved = sum(count for operation, count in counts.items() if "convolution" in str(operation))
    whole = sum(counts.values())
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        walk()
        wait_for(device)
    spent: defaultdict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        on_device = device.type == "cuda"
        spent[_part(event.key)] += event.self_device_time_total if on_device else event.self_cpu_time_total
    total = sum(spent.values()) or 1.0
    shares = {name: spent[name] / total for name in (*_PARTS, OTHER)}
    return Anatomy((whole - convolved) / _GIGA, convolved / _GIGA, levels, shares)


def _part(operation: str) -> str:
    name = operation.lower()
    return next((part for part, words in _PARTS.items() if any(word in name for word in words)), OTHER)


def _dtype(precision: Precision) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32
