"""Do layers mirror one another? cos(W, W'ᵀ) of the first linear map on the way from s to m(s) and the last, and so on.

    cos(A, B) = Σ A B / (‖A‖ ‖B‖)        of unrelated weights: 0 ± 1 / √n, n entries

A fully connected layer mirrors another that has the transposed matrix; a convolution the transposed convolution with
the very same weights, or a convolution with channels exchanged and the kernel turned by 180°. Networks of an
energy have tied weights; the paper leaves them free (section 6.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from walkback.kernels import Kernel
from walkback.operators import TransitionOperator
from walkback.report import Figure, Series
from walkback.schedules import Level
from walkback.state import leaves
from walkback.walk import Start

Parameters: TypeAlias = Callable[[Kernel], Tensor]

_DOWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_UP = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_KINDS = (nn.Linear, *_DOWN, *_UP)


def mirrored_layers(
    operator: TransitionOperator, start: Start, level: Level, parameters: Parameters
) -> tuple[Figure | None, Series | None, tuple[str, ...]]:
    """The mean cosine of mirrored layers, the cosines by depth, and warnings.

    Args:
        operator: In evaluation mode.
        start: `(1, *E)`; it is sent through the network to see which layers are on the way.
        level: Where.
        parameters: m of a kernel.
    """
    pairs = [
        (depth, cosine)
        for depth, cosine in enumerate(_cosines(linear_maps(operator, start, level, parameters)), start=1)
        if cosine is not None
    ]
    if not pairs:
        return None, None, ("No two layers mirror one another in shape: their weights are not compared.",)
    values = [value for _, (value, _) in pairs]
    errors = [1 / math.sqrt(count) for _, (_, count) in pairs]
    figure = Figure(
        "mirrored_layers",
        sum(values) / len(values),
        "1",
        meaning=f"mean cosine of {len(values)} pairs of mirrored layers, exact: 1 if tied; unrelated weights have "
        f"0 ± {math.hypot(*errors) / len(errors):.2g}",
    )
    series = Series(
        "mirrored_layers",
        tuple(float(depth) for depth, _ in pairs),
        tuple(values),
        "depth (layers from either end)",
        "cosine of mirrored weights",
        tuple(errors),
        marks=True,
    )
    return figure, series, ()


def linear_maps(
    operator: TransitionOperator, start: Start, level: Level, parameters: Parameters
) -> list[nn.Module]:
    """Linear maps on the way from the state to m, in the order in which they run; what serves T or v alone is not."""
    ran: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if output.requires_grad:  # weights are held fixed: it depends on the state
            ran.append((module, output))

    hooks = [part.register_forward_hook(note) for part in operator.modules() if isinstance(part, _KINDS)]
    frozen = {name: tensor.detach() for name, tensor in operator.named_parameters()}
    try:
        with torch.enable_grad():
            rows = tuple(leaf.detach().clone().requires_grad_() for leaf in leaves(start.state))
            inputs = rows if isinstance(start.state, tuple) else rows[0]
            conditional = torch.func.functional_call(operator, frozen, (inputs, level, start.context))
            m = parameters(conditional.cooling(level))
    finally:
        for hook in hooks:
            hook.remove()
    if not (ran and m.requires_grad):
        return []
    reached = torch.autograd.grad(m.sum(), [output for _, output in ran], allow_unused=True)
    return [module for (module, _), gradient in zip(ran, reached, strict=True) if gradient is not None]


def _cosines(maps: list[nn.Module]) -> list[tuple[float, int] | None]:
    """Cosine and number of entries of each pair; None where shapes do not fit or weights are zero."""
    return [_cosine(maps[index], maps[-1 - index]) for index in range(len(maps) // 2)]


def _cosine(first: nn.Module, last: nn.Module) -> tuple[float, int] | None:
    weight, other = _weight(first), _mirrored(first, last)
    if other is None or weight.shape != other.shape:
        return None
    norms = float(weight.norm() * other.norm())
    return (float((weight * other).sum()) / norms, weight.numel()) if norms else None


def _mirrored(first: nn.Module, last: nn.Module) -> Tensor | None:
    """The weights of `last`, laid out as `first` would have them if it were its transpose."""
    weight = _weight(last)
    if isinstance(first, nn.Linear) and isinstance(last, nn.Linear):
        return weight.T
    if (isinstance(first, _DOWN) and isinstance(last, _UP)) or (
        isinstance(first, _UP) and isinstance(last, _DOWN)
    ):
        return weight
    if (isinstance(first, _DOWN) and isinstance(last, _DOWN)) or (
        isinstance(first, _UP) and isinstance(last, _UP)
    ):
        return weight.transpose(0, 1).flip(tuple(range(2, weight.dim())))
    return None


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"Got {type(module).__name__} without weights.")
    return weight.detach().double()
