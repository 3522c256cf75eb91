"""`sample` and `inpaint`: states drawn from a model, those of the commands of these names."""

from __future__ import annotations

import os
from typing import Literal

import torch
from torch import Tensor

from walkback.api.inputs import at_least, progress_bar
from walkback.api.models import comparable_data, stamp_of, trained_of
from walkback.api.records import Samples, Trained
from walkback.building.data_of_model import first_states
from walkback.building.devices import autocast, resolve_precision
from walkback.errors import ConfigurationError
from walkback.inpainting import fill_in, fill_steps
from walkback.measuring.provenance import drawing_protocol
from walkback.pictures.inpainted import read_mask
from walkback.readout import read_out, require_readout
from walkback.sampling import SamplePlan, sample_frames
from walkback.schedules import Levels
from walkback.support.readouts import Readout


def sample(
    model: Trained | str | os.PathLike[str],
    num: int = 64,
    *,
    start: Tensor | None = None,
    steps: int | None = None,
    extra: int = 0,
    chain: int = 0,
    every: int = 1,
    readout: Readout = "state",
    batch_size: int = 1000,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    progress: bool = True,
) -> Samples:
    """Draw samples: anneal from the prior, take extra steps at T = 1, and record a chain if asked to.

    Equal arguments give the states of `walkback sample`. All frames are held in memory: write long chains there.

    Args:
        model: From `train` or `load`, or a checkpoint file.
        num: Number of samples, or of chains.
        start: States `(N, *E)` where chains start at T = 1 instead, `num` or not; nothing is annealed.
        steps: Annealing steps; None takes those of the schedule.
        extra: Further steps at T = 1 before anything is recorded.
        chain: Steps at T = 1 that are recorded then.
        every: Steps between two recorded frames; the first frame is that before the chain.
        readout: What is recorded of a state: itself, or "mean", that of a step from it (`walkback.readout`).
        batch_size: Samples computed at a time; each batch has its own noise.
        seed: Of all randomness.
        device: Where to compute with a checkpoint file.
        precision: Of the networks; "auto" is bf16 on CUDA.
        progress: Show a bar in terminals and notebooks.

    Raises:
        ConfigurationError: The request is wrong.
        CheckpointError: The file is no usable checkpoint.
    """
    at_least(1, num=num, steps=steps, every=every, batch_size=batch_size)
    at_least(0, extra=extra, chain=chain, seed=seed)
    if every > max(chain, 1):
        raise ConfigurationError(
            f"Got every = {every} with chain = {chain}, expected at most the chain's length."
        )
    if start is not None and steps is not None:
        raise ConfigurationError("Got steps with start, expected one of them: such a chain starts at T = 1.")
    trained = trained_of(model, device)
    require_readout(trained.model, readout)
    operator = trained.model.operator
    levels: Levels = ()
    if start is None:
        levels = trained.model.levels() if steps is None else trained.model.levels_of_length(steps)
    else:
        start = _states(start, trained, "start")
        num = len(start)
    plan = SamplePlan(num=num, extra=extra, chain=chain, every=every, seed=seed, batch_size=batch_size)
    chosen = resolve_precision(precision, trained.device)
    frames, numbers = [], []
    with progress_bar(progress) as bar, trained.model.evaluating(), autocast(trained.device, chosen):
        bar.stage("Sampling", plan.total_steps(levels))
        for done, number, state in sample_frames(trained.model, levels, plan, trained.device, start):
            if number is not None and state is not None:
                frames.append(read_out(operator, state, readout).float().cpu())
                numbers.append(number)
            bar.advance(done, {})
    protocol = {
        **stamp_of(trained, chosen, seed),
        **drawing_protocol(plan, levels, "noise" if start is None else "states", readout),
    }
    return Samples(torch.stack(frames), tuple(numbers), trained.info, protocol)


def inpaint(
    model: Trained | str | os.PathLike[str],
    keep: str | os.PathLike[str] | Tensor,
    *,
    known: Tensor | None = None,
    num: int = 8,
    extra: int = 100,
    anneal: bool = True,
    readout: Readout = "state",
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    progress: bool = True,
) -> Samples:
    """Fill in states: keep a part of each as it is at every step, and let the chain draw the rest.

    Args:
        model: From `train` or `load`, or a checkpoint file.
        keep: "top", "bottom", "left", "right" or an image file, white where kept; or a bool tensor that broadcasts to
            `(N, *E)`, true where kept.
        known: States `(N, *E)`; None takes the first `num` test examples of the training's data.
        num: Number of those.
        extra: Steps at T = 1 after annealing.
        anneal: Whether to cool from the prior first; else chains start at T = 1 from what is known, and noise.
        readout: What is filled in: states, or "mean", those of a step from them (`walkback.readout`).
        seed: Of all randomness.
        device: Where to compute with a checkpoint file.
        precision: Of the networks; "auto" is bf16 on CUDA.
        progress: Show a bar in terminals and notebooks.

    Returns:
        One frame, the filled states `(1, N, *E)`.

    Raises:
        ConfigurationError: The request is wrong: a mask of another shape, no steps to take.
        CheckpointError: The file is no usable checkpoint.
        DataError: The data cannot be had.
        WalkbackError: The operator's states cannot be held.
    """
    at_least(1, num=num)
    at_least(0, extra=extra, seed=seed)
    if not (anneal or extra):
        raise ConfigurationError("Got anneal=False and extra = 0, expected steps to take: raise extra.")
    trained = trained_of(model, device)
    require_readout(trained.model, readout)
    mask = keep if isinstance(keep, Tensor) else read_mask(os.fspath(keep), trained.info)
    if known is None:
        known = first_states(comparable_data(trained, None, {}), "test", num, seed)
    known = _states(known, trained, "known")
    _require_mask(mask, known)
    levels = trained.model.levels() if anneal else ()
    chosen, target = resolve_precision(precision, trained.device), trained.device
    with progress_bar(progress) as bar, trained.model.evaluating(), autocast(target, chosen):
        bar.stage("Inpainting", fill_steps(len(known), levels, extra))
        filled = fill_in(
            trained.model,
            known,
            mask,
            levels,
            extra=extra,
            readout=readout,
            seed=seed,
            device=target,
            on_step=lambda done: bar.advance(done, {}),
        )
    protocol = {
        **stamp_of(trained, chosen, seed),
        "annealing_steps": len(levels),
        "extra": extra,
        "readout": readout,
    }
    return Samples(filled[None], (0,), trained.info, protocol)


def _states(states: Tensor, trained: Trained, name: str) -> Tensor:
    """The states on the CPU, float32; raises ConfigurationError where they are not the model's kind."""
    if not isinstance(states, Tensor) or states.shape[1:] != trained.info.shape or not len(states):
        found = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        raise ConfigurationError(f"Got {found} as {name}, expected states (N, *{trained.info.shape}).")
    if not bool(states.isfinite().all()):
        raise ConfigurationError(f"Got NaN or infinity in {name}, expected finite states.")
    return states.detach().to("cpu", torch.float32)


def _require_mask(mask: Tensor, known: Tensor) -> None:
    sizes = zip(reversed(mask.shape), reversed(known.shape), strict=False)
    fits = mask.dim() <= known.dim() and all(own in (1, wanted) for own, wanted in sizes)
    if mask.dtype is not torch.bool or not fits:
        raise ConfigurationError(
            f"Got a mask of {mask.dtype} and shape {tuple(mask.shape)}, expected bool that broadcasts to "
            f"{tuple(known.shape)}: true where kept."
        )
