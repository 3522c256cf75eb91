"""The mean displacement of one step at T = 1, as arrows in the plane.

    v(s) = E[s' | s] - s,   s' ~ p_1(· | s)

The displacement vanishes at fixed points; elsewhere the arrows point back to the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from walkback.data import DataInfo
from walkback.data.tables import quoted
from walkback.kernels import expectation
from walkback.operators import Latent, TransitionOperator, initial_state, visible
from walkback.pictures.images import Window, quiver, save_png, window_of
from walkback.pictures.titles import footed
from walkback.sampling import COLD

GRID = 24
"""Arrows along one side."""

_REPEATS = 256
"""Draws of latent units, and samples that stand for a mean that the kernel does not tell."""

_MOST = 0.9  # of the distance between two arrows, that the longest one takes


@torch.no_grad()
def mean_step(
    operator: TransitionOperator, points: Tensor, generator: torch.Generator, repeats: int = _REPEATS
) -> Tensor:
    """v at `points` `(N, *E)`: exact where kernels tell their mean and nothing is latent, else an average.

    Latent units are drawn `repeats` times, and so are steps of kernels that do not tell their mean.

    Args:
        operator: In evaluation mode.
        points: Data, on the generator's device.
        generator: Draws latent units and samples.
        repeats: Draws a point.
    """
    total = torch.zeros_like(points)
    for _ in range(repeats):
        state, _ = initial_state(operator, points, generator)
        kernel = operator(state, COLD).cooling(COLD)
        mean = expectation(kernel)
        shown = visible(operator, kernel.sample(generator) if mean is None else mean)
        if mean is not None and not isinstance(operator, Latent):
            return shown - points
        total += shown
    return total / repeats - points


def draw_field(
    path: Path,
    operator: TransitionOperator,
    info: DataInfo,
    data: Tensor,
    generator: torch.Generator,
    protocol: Mapping[str, Any],
) -> None:
    """Write `v` on a grid around states `(N, 2)`, which are drawn in gray below, as one picture.

    All arrows are drawn at one scale, which the picture's title tells. Points are in the data's units. Two columns of a
    table, whose units differ, are standardized, which a line below tells.

    Raises:
        WalkbackError: The file cannot be written.
    """
    units = replace(info, standardized=None) if info.columns else info
    shown = units.values(data)
    window = _wider(window_of(shown))
    points = grid_points(window, GRID).to(shown)
    start = units.states(points).to(data)
    inside = start.isfinite().all(1)  # columns with bounds have no states beyond
    points, start = points[inside], start[inside]
    arrows = units.values(start + mean_step(operator, start, generator)) - units.values(start)
    longest = float(arrows.norm(dim=1).max())
    scale = _MOST * window[2] / GRID / longest if 0 < longest < float("inf") else 1.0
    title = f"E[s' | s] - s at T = 1, drawn {scale:.3g} times as long"
    picture = quiver(points, scale * arrows, shown, window, size=640, title=title)
    below = f"across and up: standardized {' and '.join(map(quoted, info.columns))}" if info.columns else ""
    save_png(path, footed(picture, below), protocol)


def grid_points(window: Window, num: int) -> Tensor:
    """The middles of `num` × `num` equal squares of a window, `(num², 2)`."""
    left, bottom, side = window
    middles = (torch.arange(num) + 0.5) * (side / num)
    return torch.cartesian_prod(left + middles, bottom + middles)


def _wider(window: Window) -> Window:
    """The same window with a fifth more of the plane around it."""
    left, bottom, side = window
    return (left - 0.1 * side, bottom - 0.1 * side, 1.2 * side)
