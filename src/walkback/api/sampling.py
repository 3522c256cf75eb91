"""`sample` and `inpaint`: states drawn from a model, those of the commands of these names."""

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
    label: int | str | None = None,
    guidance: float | None = None,
    readout: Readout = "state",
    batch_size: int = 1000,
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: bool = True,
    steps: int | None = None,
) -> Samples:
    """Draw samples: anneal from the prior, take extra steps at T = 1, and record a chain if asked to.

    Equal arguments give the states of `walkback sample`. All frames are held in memory: write long chains there.

    Args:
        model: From `train` or `load`, a checkpoint file, or the directory of a run.
        num: Number of samples, or of chains; None: as many as the start has, else 64.
        start: "noise"; or where chains start at T = 1, and nothing is annealed: "data" for held-out examples, a file
            of samples or an image, or states `(N, *E)`.
        split: Of the data that "data" takes; None: test.
        trust_data: Whether the data that the checkpoint names may be read and fetched, wherever the file comes from.
        levels: Number of annealing levels; None takes those of the schedule.
        extra: Further steps at T = 1 before anything is recorded.
        chain: Steps at T = 1 that are recorded then.
        every: Steps between two recorded frames, of which the first is that before the chain; None: so many that there
            are 20 more.
        label: Class of the samples, by name or number, for a model that is told classes; "none" for no class. None: the
            classes of the data that chains start from, else such as the training data have.
        guidance: How far to go from the operator that is told no class (0) to the one that is told (1), or beyond; see
            `walkback.sampling.guidance`.
        readout: What is recorded of a state: itself, or "mean", that of a step from it (`walkback.sampling.readout`).
        batch_size: Samples computed at a time; each batch has its own noise.
        seed: Of all randomness.
        device: Where to compute with a checkpoint file.
        precision: Of the networks; "auto" is bf16 on CUDA.
        progress: Show a bar in terminals and notebooks.
        steps: The old name of `levels`.

    Raises:
        ConfigurationError: The request is wrong.
        CheckpointError: The file is no usable checkpoint.
        DataError: The data cannot be had.
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
        readout=readout,
        labels=LabelRequest(label, guidance),
        batch_size=batch_size,
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
    anneal: bool = True,
    label: int | str | None = None,
    guidance: float | None = None,
    readout: Readout = "state",
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: bool = True,
) -> Samples:
    """Fill in states: keep a part of each as it is at every step, and let the chain draw the rest.

    Args:
        model: From `train` or `load`, a checkpoint file, or the directory of a run.
        keep: "top", "bottom", "left", "right" or an image file, white where kept; or a bool tensor that broadcasts to
            `(N, *E)`, true where kept.
        known: States `(N, *E)`; None takes the first `num` examples of a split of the data.
        data: Name, path, hub id, instance or tensor `(N, *E)` of the model's shape; None takes the training's.
        settings: Options of data given by name.
        trust_data: Whether the data that the checkpoint names may be read and fetched, wherever the file comes from.
        split: Of the data.
        num: Number of examples.
        extra: Steps at T = 1 after annealing.
        anneal: Whether to cool from the prior first; else chains start at T = 1 from what is known, and noise.
        label: As in `sample`; None: the classes of the data, and none for states that are `known`.
        guidance: As in `sample`.
        readout: What is filled in: states, or "mean", those of a step from them (`walkback.sampling.readout`).
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
    job = InpaintJob(
        model=model_request(model, device, precision),
        keep=keep if isinstance(keep, Tensor) else os.fspath(keep),
        known=known,
        data=data_request(data, settings, trust_data),
        split=split,
        num=num,
        extra=extra,
        anneal=anneal,
        readout=readout,
        labels=LabelRequest(label, guidance),
        seed=seed,
    )
    made = carry_out(job, progress)
    return Samples(made.filled[None], (0,), made.info, made.protocol)
