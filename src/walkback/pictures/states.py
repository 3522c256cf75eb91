"""Pictures of states, depending on the data: a grid of images, points in the plane, or a pair plot of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from walkback.data import DataInfo
from walkback.pictures.images import Picture, filmstrip, grid, scatter, tile, window_of
from walkback.pictures.pairs import pairs
from walkback.pictures.planes import Plane
from walkback.pictures.titles import footed, titled_columns

PANEL = 240
"""Side of a scatter plot in a filmstrip of points, in pixels."""

_PANELS_A_ROW = 5


def draw_states(values: Tensor, info: DataInfo, reference: Tensor | None = None) -> Picture:
    """Draw values `(N, *E)` in the units of the data.

    Args:
        values: At least one state.
        info: Description of the data.
        reference: Data `(M, *E)` to draw below points, in gray; ignored for images.
    """
    if info.is_image:
        return grid(values)
    if info.shape == (2,) and not info.columns:
        return scatter(values, reference)
    return pairs(values, info, reference)


def draw_frames(frames: Tensor, info: DataInfo, steps: Sequence[int]) -> Picture:
    """Draw frames `(F, N, *E)` of N chains, with the number of steps above each.

    Images have one row per chain. Other states are projected to a `Plane` common to all frames, and drawn over the
    states of all frames in gray.
    """
    titles = [f"t = {step}" for step in steps]
    if info.is_image:
        return titled_columns(filmstrip(frames), titles)
    plane = Plane.of(frames.flatten(0, 1), info)
    points = [plane.points(frame) for frame in frames]
    together = torch.cat(points)
    window = window_of(together)
    panels = [
        scatter(frame, together, window, size=PANEL, title=title)
        for frame, title in zip(points, titles, strict=True)
    ]
    strip = tile(np.stack(panels), min(_PANELS_A_ROW, len(panels)), scale=1, background=255)
    return footed(strip, plane.label)
