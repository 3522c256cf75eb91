"""`sample` and `inpaint`: states drawn from a model, equal to those of the commands of the same names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from walkback.api.inputs import Data, carry_out, data_request, model_request, renamed
from walkback.api.records import Samples, Trained
from walkback.data import Split
from walkback.jobs.inpaint import InpaintJob
from walkback.jobs.inputs import PrecisionName
from walkback.jobs.labels import LabelRequest
from walkback.jobs.sample import SampleJob
from walkback.support.readouts import Readout


def sample(
    model: Trained | str | os.PathLike[str],
    num: int | None = None,
    *,
    start: Tensor | str | os.PathLike[str] = "noise",
    split: Split | None = None,
    trust_data: bool = False,
    levels: int | None = None,
    extra: int = 0,
    chain: int = 0,
    every: int | None = None,
    excursion: int | None = None,
    label: int | str | None = None,
    guidance: float | None = None,
    readout: Readout = "state",
    batch_size: int = 1000,
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    compiled: bool = False,
    progress: bool = True,
    steps: int | None = None,
) -> Samples:
    """Draw samples: anneal from the prior, take extra steps at T = 1, and optionally record a chain.

    Equal arguments give the states of `walkback sample`. All frames are held in memory; for long chains, use the
    command, which streams them to a file.

    Args:
        model: Result of `train` or `load`, a checkpoint file, or the directory of a run.
        num: Number of samples, or of chains; None takes all initial states, or 64.
        start: "noise" to anneal from the prior; or initial states of chains at T = 1, without annealing: "data" for
            held-out examples, a file of samples or an image, or states `(N, *E)`.
        split: Split of "data"; None means test.
        trust_data: Whether the data named by the checkpoint may be read and downloaded, even if the file is not yours.
        levels: Number of annealing levels; None takes those of the schedule.
        extra: Number of steps at T = 1 before the recorded chain.
        chain: Number of recorded steps at T = 1.
        every: Steps between two recorded frames, the first of which precedes the chain; None records about 20 more.
        excursion: Levels that each step at T = 1 heats and cools back (`walkback.sampling.excursions`); None takes
            single steps.
        label: Class of the samples by name or number, for a class-conditional model, or "none" for unconditional
            samples. None takes the classes of the data that chains start from, or draws them as in the training data.
        guidance: Position between the unconditional (0) and the conditional (1) operator, or beyond; see
            `walkback.sampling.guidance`.
        readout: How states are shown: "state", or "mean" for the mean of a step from the state
            (`walkback.sampling.readout`).
        batch_size: Number of samples computed at a time; each batch has its own random stream.
        seed: Seed of all randomness.
        device: Device to compute on, for a checkpoint file.
        precision: Precision of the networks; "auto" means bf16 on CUDA devices that support it, else fp32.
        compiled: Whether steps at T = 1 are compiled, which pays for long chains.
        progress: Whether to show a bar in terminals and notebooks.
        steps: Old name of `levels`.

    Returns:
        The samples, with their protocol.

    Raises:
        ConfigurationError: The request is invalid.
        CheckpointError: The file is not a usable checkpoint.
        DataError: The data cannot be read or downloaded.
    """
    job = SampleJob(
        model=model_request(model, device, precision),
        num=num,
        start=start if isinstance(start, Tensor) else os.fspath(start),
        split=split,
        trust_data=trust_data,
        levels=renamed("steps", steps, "levels", levels),
        extra=extra,
        chain=chain,
        every=every,
        excursion=excursion,
        readout=readout,
        labels=LabelRequest(label, guidance),
        batch_size=batch_size,
        compiled=compiled,
        seed=seed,
    )
    drawn = carry_out(job, progress)
    return Samples(drawn.frames, drawn.steps, drawn.info, drawn.protocol, drawn.labels)


def inpaint(
    model: Trained | str | os.PathLike[str],
    keep: str | os.PathLike[str] | Tensor,
    *,
    known: Tensor | None = None,
    data: Data | None = None,
    settings: Mapping[str, Any] | None = None,
    trust_data: bool = False,
    split: Split = "test",
    num: int = 8,
    extra: int = 100,
    excursion: int | None = None,
    returns: int = 0,
    anneal: bool = True,
    label: int | str | None = None,
    guidance: float | None = None,
    readout: Readout = "state",
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: bool = True,
) -> Samples:
    """Inpaint states: keep a part of each fixed at every step of a chain that draws the rest.

    Args:
        model: Result of `train` or `load`, a checkpoint file, or the directory of a run.
        keep: "top", "bottom", "left", "right" or an image file, white where kept; or a bool tensor that broadcasts to
            `(N, *E)`, true where kept.
        known: States `(N, *E)`; None takes the first `num` examples of a split of the data.
        data: Name, path, hub id, instance or tensor `(N, *E)` of the model's shape; None takes the training data.
        settings: Options of data given by name.
        trust_data: Whether the data named by the checkpoint may be read and downloaded, even if the file is not yours.
        split: Split of the data.
        num: Number of examples.
        extra: Number of steps at T = 1, or of excursions, after annealing.
        excursion: Levels that each excursion heats and cools back; None takes steps at T = 1, or for known noise
            excursions of one level (`walkback.sampling.returning`).
        returns: How often annealing heats that many levels again, at every so many levels.
        anneal: Whether to cool from the prior first; otherwise, chains start at T = 1 from the known part and noise.
        label: See `sample`; None takes the classes of the data, and no class for `known` states.
        guidance: See `sample`.
        readout: How the drawn part is shown: "state", or "mean" for the mean of a step from the state
            (`walkback.sampling.readout`).
        seed: Seed of all randomness.
        device: Device to compute on, for a checkpoint file.
        precision: Precision of the networks; "auto" means bf16 on CUDA devices that support it, else fp32.
        progress: Whether to show a bar in terminals and notebooks.

    Returns:
        A single frame of inpainted states `(1, N, *E)`.

    Raises:
        ConfigurationError: The request is invalid: the mask has another shape, or there are no steps to take.
        CheckpointError: The file is not a usable checkpoint.
        DataError: The data cannot be read or downloaded.
        WalkbackError: A part of the operator's states cannot be held fixed.
    """
    job = InpaintJob(
        model=model_request(model, device, precision),
        keep=keep if isinstance(keep, Tensor) else os.fspath(keep),
        known=known,
        data=data_request(data, settings, trust_data),
        split=split,
        num=num,
        extra=extra,
        excursion=excursion,
        returns=returns,
        anneal=anneal,
        readout=readout,
        labels=LabelRequest(label, guidance),
        seed=seed,
    )
    made = carry_out(job, progress)
    return Samples(made.filled[None], (0,), made.info, made.protocol)
