"""A heating walk from data and a cooling walk from the prior, side by side (figures 7 to 9 of the paper).

    heated   s_0 ~ data → s_K      left to right, every few steps
    cooled   s_K ~ p*   → s_0      left to right, the same steps backwards

If the operator has learned to reverse its walk, a cooled panel looks like the heated one at the same t.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from walkback.data import Batch, DataInfo
from walkback.model import Model
from walkback.operators import initial_state, visible
from walkback.pictures.images import Picture, filmstrip, save_png, scatter, tile, window_of
from walkback.pictures.planes import Plane
from walkback.pictures.titles import footed, titled_columns
from walkback.processes import Bridged, Reconstructing, Stepwise
from walkback.sampling import anneal
from walkback.sampling.excursions import own_chain
from walkback.sampling.finite import require_finite
from walkback.schedules import Levels
from walkback.state import State
from walkback.walk import Start

_PANELS = 8
"""Largest number of steps shown."""

IMAGES = 6
"""Number of walks shown if the data are images."""

_PANEL = 200  # side of a scatter plot, in pixels
_GAP = 12  # between heated and cooled images, in pixels


@torch.no_grad()
def draw_walk(
    path: Path,
    model: Model,
    info: DataInfo,
    data: Batch,
    generator: torch.Generator,
    protocol: Mapping[str, Any],
) -> None:
    """Draw a heating walk from `data` and a cooling walk from the prior as one picture.

    Args:
        path: The `.png` to write.
        model: Model, in evaluation mode.
        info: Description of the data: images, of which `IMAGES` are shown, or states to show as points of a `Plane`.
        data: Initial states `(N, *E)` of heating; cooling starts from N states of the prior with the same context.
        generator: Generator on the model's device.
        protocol: Written to the picture's metadata.

    Raises:
        ConfigurationError: The process has no paths to draw.
        WalkbackError: The file cannot be written.
    """
    data = data[:IMAGES] if info.is_image else data
    levels = model.levels()
    shown = steps_shown(len(levels))
    origin, _ = initial_state(model.operator, data.states, generator)
    start = Start(origin, context=data.context, prior=model.prior)
    heated = _picked(model, chain([origin], _heated(model, start, levels, generator)), shown)
    cooling = anneal(own_chain(model).operator, model.prior, levels, len(data), generator, data.context)
    cooled = _picked(model, cooling, [len(levels) - t for t in reversed(shown)])
    for states in (heated, cooled):
        require_finite(states, path.name)
    up, down = info.values(heated), info.values(cooled)
    if info.is_image:
        save_png(path, _strips(up, down, shown, levels), protocol)
        return
    plane = Plane.of(up[0], info)
    points = [torch.stack([plane.points(frame) for frame in frames]) for frames in (up, down)]
    save_png(path, footed(_plots(points[0], points[1], shown, levels), plane.label), protocol)


def _heated(model: Model, start: Start, levels: Levels, generator: torch.Generator) -> Iterator[State]:
    """Yield s_1 … s_K: of a walk, of corruptions of the data, or of a path from its hot end."""
    process = model.process
    if isinstance(process, Reconstructing):
        return (process.corruption(start.state, level).sample(generator) for level in levels)
    if isinstance(process, Bridged) and not isinstance(process, Stepwise):
        return reversed([step.target for step in model.path(start, levels, generator)])
    return (step.target for step in model.walk(start, levels, generator))


def steps_shown(num_steps: int) -> list[int]:
    """Return at most `_PANELS` of the steps 0 … K, evenly spaced, including the first and the last.

    >>> steps_shown(14)
    [0, 2, 4, 6, 8, 10, 12, 14]
    """
    panels = min(_PANELS, num_steps + 1)
    return [round(index * num_steps / max(panels - 1, 1)) for index in range(panels)]


def _picked(model: Model, states: Iterable[State], numbers: list[int]) -> Tensor:
    """Return the data parts `(F, N, *E)` of the states with these numbers, counted from 0, on the CPU."""
    wanted = set(numbers)
    return torch.stack(
        [
            visible(model.operator, state).float().cpu()
            for number, state in enumerate(states)
            if number in wanted
        ]
    )


def _strips(heated: Tensor, cooled: Tensor, shown: list[int], levels: Levels) -> Picture:
    """Draw images with one row per walk: heating above, cooling below, each with titles of its columns."""
    up, down = _titles(shown, levels)
    upper, lower = titled_columns(filmstrip(heated), up), titled_columns(filmstrip(cooled), down)
    gap = np.full((_GAP, *upper.shape[1:]), 128, np.uint8)
    return np.concatenate([upper, gap, lower])


def _titles(shown: list[int], levels: Levels) -> tuple[list[str], list[str]]:
    """Return the titles of the heating and of the cooling steps."""
    temperatures = {level.step: level.temperature for level in levels}
    up = [f"t = {t}, T = {temperatures[t]:.3g}" if t else "data" for t in shown]
    return up, ["prior", *(f"t = {t}" for t in reversed(shown[:-1]))]


def _plots(heated: Tensor, cooled: Tensor, shown: list[int], levels: Levels) -> Picture:
    """Draw points as a row of scatter plots per direction, of the same window, over the data in gray."""
    window = window_of(heated.flatten(0, 1))
    up, down = _titles(shown, levels)
    panels = [
        scatter(frame, heated[0], window, _PANEL, title)
        for frame, title in zip((*heated, *cooled), (*up, *down), strict=True)
    ]
    return tile(np.stack(panels), len(shown), scale=1, background=255)
