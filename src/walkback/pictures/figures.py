"""The pictures that a run writes: samples, chains at T = 1 started from them, walks, and the mean step of points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from walkback.configuration.settings import SampleSettings
from walkback.data import Batch, DataInfo, labels_in_turn
from walkback.model import Model
from walkback.pictures.field import draw_field
from walkback.pictures.frames import open_sink
from walkback.pictures.images import save_png
from walkback.pictures.states import draw_states
from walkback.pictures.walks import draw_walk
from walkback.sampling import anneal, chain, last
from walkback.sampling.finite import require_finite
from walkback.sampling.readout import read_out
from walkback.state import State, leaves, map_state
from walkback.walk import Start


def draw_samples(
    path: Path,
    model: Model,
    info: DataInfo,
    settings: SampleSettings,
    generator: torch.Generator,
    protocol: Mapping[str, Any],
    reference: Tensor | None = None,
) -> State:
    """Anneal `settings.num` samples, add `settings.extra` steps at T = 1, and write them as one picture.

    If the data have classes, samples cycle through classes 0, 1, 2, …, and so do the chains started from them.

    Args:
        path: The `.png` to write.
        model: Model, in evaluation mode.
        info: Description of the data.
        settings: Numbers of samples and steps.
        generator: Generator on the model's device.
        protocol: Written to the picture's metadata, with the readout.
        reference: Data to draw below points, in gray.

    Returns:
        The drawn states, `(num, *E)`.
    """
    context = labels_in_turn(info, settings.num, generator.device)
    state = last(anneal(model.operator, model.prior, model.levels(), settings.num, generator, context))
    if settings.extra:
        state = last(chain(model.operator, state, settings.extra, generator, context, every=settings.extra))
    shown = require_finite(read_out(model.operator, state, settings.readout, context), path.name)
    over = None if reference is None else info.values(reference)
    save_png(path, draw_states(info.values(shown), info, over), {**protocol, "readout": settings.readout})
    return state


def draw_chains(
    path: Path,
    model: Model,
    info: DataInfo,
    settings: SampleSettings,
    start: State,
    generator: torch.Generator,
    protocol: Mapping[str, Any],
    on_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Run chains at T = 1 from the first rows of `start` `(B, *E)` and write a filmstrip with one row per chain.

    Args:
        path: The `.png` to write.
        model: Model, in evaluation mode.
        info: Description of the data.
        settings: Number of chains, steps, and steps between frames.
        start: Initial states of the chains, which are also the first frame.
        generator: Generator on the model's device.
        protocol: Written to the picture's metadata, with the readout.
        on_step: Called after every frame with the number of steps taken.
    """
    state = map_state(lambda leaf: leaf[: settings.chains], start)
    num_chains = leaves(state)[0].shape[0]
    num_frames = settings.chain_steps // settings.chain_every + 1
    context = labels_in_turn(info, num_chains, generator.device)
    with open_sink(
        path,
        info,
        num_frames=num_frames,
        num_chains=num_chains,
        overwrite=True,
        protocol={**protocol, "readout": settings.readout},
    ) as sink:
        steps = (settings.chain_steps, settings.chain_every)
        for step, frame in frames(model, Start(state, context=context), *steps, generator):
            sink.add(step, info.values(read_out(model.operator, frame, settings.readout, context)))
            on_step(step)


def draw_walks(
    place: Callable[[str], Path],
    model: Model,
    info: DataInfo,
    data: Batch,
    generator: torch.Generator,
    protocol: Mapping[str, Any],
) -> tuple[Path, ...]:
    """Write `walk`, a heating walk from data and the cooling from the prior, and for points `field` (`draw_field`).

    Args:
        place: Maps the name of a picture to its path.
        model: Model, in evaluation mode.
        info: Description of the data.
        data: States `(N, *E)`, on the model's device.
        generator: Generator on the model's device.
        protocol: Written to the metadata of the pictures.

    Returns:
        The written files.
    """
    draw_walk(place("walk"), model, info, data, generator, protocol)
    if info.shape != (2,):
        return (place("walk"),)
    draw_field(place("field"), model.operator, info, data.states, generator, protocol)
    return place("walk"), place("field")


def frames(
    model: Model, start: Start, num_steps: int, every: int, generator: torch.Generator
) -> Iterator[tuple[int, State]]:
    """Yield (number of steps taken, state) at the start and after every `every` steps of a chain at T = 1."""
    yield 0, start.state
    steps = chain(model.operator, start.state, num_steps, generator, start.context, every=every)
    for number, frame in enumerate(steps, start=1):
        yield number * every, frame
