"""Peak performance of the GPU: matrix products, a convolution, a copy, and the cost of launching a kernel.

    python ceilings.py [--tiny]          prints one JSON document

Medians over repeats on random numbers, timed with device events after a warm-up.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Problem sizes."""

    matrix: int
    images: int
    channels: int
    pixels: int
    bytes: int
    launches: int
    repeats: int


FULL = Sizes(matrix=8192, images=256, channels=128, pixels=32, bytes=2**31, launches=1000, repeats=20)
TINY = Sizes(matrix=64, images=2, channels=8, pixels=8, bytes=2**16, launches=10, repeats=3)


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median time of a piece of work."""
    for _ in range(3):
        work()
    found = []
    for _ in range(repeats):
        if CUDA:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            work()
            last.record()
            last.synchronize()
            found.append(first.elapsed_time(last) / 1e3)
        else:
            started = time.perf_counter()
            work()
            found.append(time.perf_counter() - started)
    return statistics.median(found)


def product(sizes: Sizes, dtype: torch.dtype, precision: str = "highest") -> float:
    """TFLOP/s of a square matrix product."""
    torch.set_float32_matmul_precision(precision)
    n = sizes.matrix
    first, second = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    out = torch.empty(n, n, device=DEVICE, dtype=dtype)
    return 2 * n**3 / seconds(lambda: torch.mm(first, second, out=out), sizes.repeats) / 1e12


def convolution(sizes: Sizes, dtype: torch.dtype, layout: torch.memory_format, tf32: bool = True) -> float:
    """TFLOP/s of a 3×3 convolution that keeps its size, forward and backward."""
    torch.backends.cudnn.allow_tf32 = tf32
    b, c, p = sizes.images, sizes.channels, sizes.pixels
    layer = torch.nn.Conv2d(c, c, 3, padding=1, bias=False, device=DEVICE, dtype=dtype).to(
        memory_format=layout
    )
    images = torch.randn(b, c, p, p, device=DEVICE, dtype=dtype).to(memory_format=layout).requires_grad_()
    gradient = torch.randn_like(images)
    parts = (images, layer.weight)
    work = seconds(lambda: torch.autograd.grad(layer(images), parts, gradient), sizes.repeats)
    return 3 * 2 * b * c * c * 9 * p * p / work / 1e12


def copy(sizes: Sizes) -> float:
    """GB/s of a copy on the device, bytes read and bytes written."""
    source = torch.randint(0, 256, (sizes.bytes,), device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * sizes.bytes / seconds(lambda: target.copy_(source), sizes.repeats) / 1e9


def launch(sizes: Sizes) -> float:
    """Microseconds between two small kernels that are started one after the other."""
    number = torch.zeros(1, device=DEVICE)

    def work() -> None:
        for _ in range(sizes.launches):
            number.add_(1)

    return seconds(work, sizes.repeats) / sizes.launches * 1e6


def main() -> None:
    """Measure, and print."""
    sizes = TINY if "--tiny" in sys.argv[1:] else FULL
    channels_last, contiguous = torch.channels_last, torch.contiguous_format
    bf16, fp32 = torch.bfloat16, torch.float32
    found = {
        "bf16 matrix product, TFLOP/s": product(sizes, bf16),
        "TF32 matrix product, TFLOP/s": product(sizes, fp32, "high"),
        "fp32 matrix product, TFLOP/s": product(sizes, fp32),
        "bf16 convolution, channels last, TFLOP/s": convolution(sizes, bf16, channels_last),
        "bf16 convolution, TFLOP/s": convolution(sizes, bf16, contiguous),
        "TF32 convolution, TFLOP/s": convolution(sizes, fp32, contiguous),
        "fp32 convolution, TFLOP/s": convolution(sizes, fp32, contiguous, tf32=False),
        "copy, GB/s": copy(sizes),
        "time from kernel to kernel, µs": launch(sizes),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
