"""Results: a trained model, and samples of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.data import DataInfo, Dataset
from walkback.errors import ConfigurationError
from walkback.measuring.bound import BoundEstimate
from walkback.measuring.recordings import to_arviz
from walkback.model import Model
from walkback.pictures.frames import open_sink
from walkback.pictures.sinks import FilmstripSink, Output
from walkback.reporting.curves import training_series
from walkback.storage.checkpoint import Checkpoint, save_checkpoint
from walkback.storage.files import require_target
from walkback.support import html as markup
from walkback.support.curves import drawn
from walkback.support.extras import require
from walkback.support.formats import SAFETENSORS
from walkback.support.text import printable

_NEEDED = ("operator", "schedule", "process", "prior")
"""The sections that are required to build the model of a checkpoint."""

_MOST_SAMPLES, _MOST_POINTS, _MOST_CHAINS, _MOST_FRAMES = 100, 1000, 10, 20
"""Maximum numbers shown in a notebook; files contain everything."""

_DPI = 100


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Trained:
    """A trained model, the result of `train` or `load`, in evaluation mode.

    Attributes:
        model: Operator, schedule, process and prior, on `device`.
        info: Description of the training data.
        checkpoint: Weights on the CPU, and a description: configuration, origins of components, progress. Components
            that were given as instances are missing in it.
        device: Device of the model.
        name: Name of its file, for protocols.
        dataset: The prepared training data, if available.
        directory: Directory of its run, if there is one.
        history: Logged metrics, one record per line of `metrics.jsonl`: `{"step": 50, "loss": 1.2}`. Losses are in nats
            per step and example, `validation_nats` in nats per example.
        bound: Upper bound on -log p of held-out data, in nats per example and bits/dim; None if the model was loaded.
        path: The file that it was loaded from; None if it was trained in this process.
    """

    model: Model
    info: DataInfo
    checkpoint: Checkpoint
    device: torch.device
    name: str
    dataset: Dataset | None = None
    directory: Path | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    bound: BoundEstimate | None = None
    path: Path | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The model in the form that jobs take."""
        return LoadedModel(
            self.model,
            self.info,
            self.checkpoint,
            self.device,
            self.name,
            dataset=self.dataset,
            path=self.path,
        )

    @property
    def operator_name(self) -> str:
        """Name of the operator's component, or of its class if it was an instance."""
        return self.loaded.operator_name

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the operator."""
        return sum(parameter.numel() for parameter in self.model.operator.parameters())

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a checkpoint (`.safetensors`) for `load` and the command line; returns its path.

        Raises:
            ConfigurationError: The file exists, has another extension, or a part of the model was an instance.
            WalkbackError: The file cannot be written.
        """
        target = Path(path)
        instances = [section for section in _NEEDED if section not in self.checkpoint.description.components]
        if instances:
            raise ConfigurationError(
                f"A checkpoint needs components by name, and {' and '.join(instances)} of this model was given as an "
                "instance: register the class in a plugin (docs/plugins.md) and train with its name."
            )
        require_target(target, (SAFETENSORS,), overwrite=overwrite, of_checkpoint=True)
        save_checkpoint(target, self.checkpoint)
        return target

    def plot(self) -> Any:
        """Draw loss and validation bound over the walks as a matplotlib figure (extra viz).

        Raises:
            ConfigurationError: There is no history (e.g. of a checkpoint without its run), or no matplotlib.
        """
        series = training_series(self.history)
        if not series:
            raise ConfigurationError(
                f"{self.name} has no history of its training: load the directory of its run."
            )
        return drawn("training", series)

    def __repr__(self) -> str:
        return printable(
            f"Trained({self.operator_name} on {self.info.name}, {self.num_parameters:,} parameters, "
            f"{self.checkpoint.description.progress.get('walks', 0):,} walks)"
        )

    def _repr_html_(self) -> str:
        description = self.checkpoint.description
        origins = {section: origin.name for section, origin in description.components.items()}
        rows: list[tuple[str, object]] = [
            ("operator", f"{self.operator_name}, {self.num_parameters:,} parameters"),
            *((section, name) for section, name in origins.items() if section not in ("operator", "data")),
            ("data", f"{self.info.name} {self.info.shape}, {self.info.support}"),
            ("training", ", ".join(f"{value:,} {name}" for name, value in description.progress.items())),
            ("weights", "running average" if description.weights == "ema" else "last"),
        ]
        if self.bound is not None:
            rows.append(("bound on -log p", str(self.bound)))
        rows.append(("file", self.name if self.directory is None else self.directory / self.name))
        return markup.table(rows)


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Samples:
    """States drawn from a model.

    Attributes:
        frames: Recorded states `(F, N, *E)` in the units of the data, on the CPU.
        steps: Number of steps at T = 1 before each frame, F in all.
        info: Description of the states.
        protocol: How the samples were made, as plain JSON types.
        labels: Class of each sample, `(N,)`, -1 for unconditional; None for unconditional models.
    """

    frames: Tensor
    steps: tuple[int, ...]
    info: DataInfo
    protocol: Mapping[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None

    @property
    def states(self) -> Tensor:
        """The last frame, `(N, *E)`."""
        return self.frames[-1]

    def __len__(self) -> int:
        """Return N, the number of samples, or of chains."""
        return self.frames.shape[1]

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the frames in the formats of `walkback sample`, with the protocol; returns the path.

        Raises:
            ConfigurationError: The extension is unknown, the file exists, or there are too many frames for one picture.
            WalkbackError: The file cannot be written.
        """
        target, (num_frames, num_chains) = Path(path), self.frames.shape[:2]
        sink = open_sink(
            target,
            self.info,
            num_frames=num_frames,
            num_chains=num_chains,
            overwrite=overwrite,
            protocol=self.protocol or None,
        )
        with sink as opened:
            for step, frame in zip(self.steps, self.frames, strict=True):
                opened.add(step, frame)
        return target

    def to_arviz(self) -> Any:
        """Return the frames as ArviZ has them: a DataTree whose `posterior` has one variable, `state` (chain, draw, …).

        Raises:
            MissingLibraryError: arviz-base (`walkback[arviz]`) is not installed.
        """
        return to_arviz(self.frames)

    def png(self) -> bytes:
        """Return a PNG that fits a screen: a grid, scatter plot or pair plot of one frame; a filmstrip of several.

        The picture contains the protocol, like the file of `save`.
        """
        every = -(-len(self.frames) // _MOST_FRAMES)
        most = _MOST_SAMPLES if self.info.is_image else _MOST_POINTS
        shown, steps = self.frames[::every, :most], self.steps[::every]
        if len(shown) > 1:
            shown = shown[:, :_MOST_CHAINS] if self.info.is_image else shown
        buffer = BytesIO()
        with ExitStack() as cleanup:
            output = Output(
                Path("samples.png"), buffer, self.info, tuple(shown.shape), cleanup, self.protocol or None
            )
            sink = FilmstripSink(output)
            for step, frame in zip(steps, shown, strict=True):
                sink.add(step, frame)
            sink.end()
        return buffer.getvalue()

    def plot(self) -> Any:
        """Draw `png` as a matplotlib figure (extra viz)."""
        picture = np.asarray(Image.open(BytesIO(self.png())).convert("RGB"))
        figure = require("matplotlib.figure", "viz").Figure(
            figsize=(picture.shape[1] / _DPI, picture.shape[0] / _DPI), dpi=_DPI
        )
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(picture)
        axes.set_axis_off()
        return figure

    def __repr__(self) -> str:
        num_frames, num = self.frames.shape[:2]
        return printable(f"Samples({num} states of shape {self.info.shape}, {num_frames} frame(s))")

    def _repr_html_(self) -> str:
        drawn = markup.picture(self.png(), repr(self))
        return drawn + markup.folded("protocol", markup.table(self.protocol.items()))
