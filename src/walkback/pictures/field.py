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
"""Number of draws of latent units, and of samples that estimate a mean that the kernel does not report."""

_MOST = 0.9  # length of the longest arrow, relative to the distance between two arrows


@torch.no_grad()
def mean_step(
    operator: TransitionOperator, points: Tensor, generator: torch.Generator, repeats: int = _REPEATS
) -> Tensor:
    """Return v at `points` `(N, *E)`: exact if kernels report their mean and there are no latent units, else estimated.

    Latent units, and steps of kernels that do not report their mean, are averaged over `repeats` draws.

    Args:
        operator: Operator, in evaluation mode.
        points: Data, on the generator's device.
        generator: Draws latent units and samples.
        repeats: Number of draws per point.
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
    """Draw `v` on a grid around states `(N, 2)`, over the states in gray.

    All arrows have the same scale, which the title states. Points are in the units of the data. Two columns of a table
    have different units: they are standardized, which a line below states.

    Raises:
        WalkbackError: The file cannot be written.
    """
    units = replace(info, standardized=None) if info.columns else info
    shown = units.values(data)
    window = _wider(window_of(shown))
    points = grid_points(window, GRID).to(shown)
    start = units.states(points).to(data)
    inside = start.isfinite().all(1)  # points beyond the bounds of a column have no state
    points, start = points[inside], start[inside]
    arrows = units.values(start + mean_step(operator, start, generator)) - units.values(start)
    longest = float(arrows.norm(dim=1).max())
    scale = _MOST * window[2] / GRID / longest if 0 < longest < float("inf") else 1.0
    title = f"E[s' | s] - s at T = 1, drawn {scale:.3g} times as long"
    picture = quiver(points, scale * arrows, shown, window, size=640, title=title)
    below = f"across and up: standardized {' and '.join(map(quoted, info.columns))}" if info.columns else ""
    save_png(path, footed(picture, below), protocol)


def grid_points(window: Window, num: int) -> Tensor:
    """Return the centers of `num` × `num` equal squares of a window, `(num², 2)`."""
    left, bottom, side = window
    middles = (torch.arange(num) + 0.5) * (side / num)
    return torch.cartesian_prod(left + middles, bottom + middles)


def _wider(window: Window) -> Window:
    """Return the window, enlarged by a fifth of its side around the same center."""
    left, bottom, side = window
    return (left - 0.1 * side, bottom - 0.1 * side, 1.2 * side)
