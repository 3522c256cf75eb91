"""Inputs of jobs: a model from a file, from a run or in memory, and data."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel, load_model
from walkback.building.data_of_model import data_for, is_as_trained_on, require_comparable
from walkback.building.devices import resolve_device, resolve_precision
from walkback.data import DataInfo, Dataset
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.job import Say
from walkback.storage.store import checkpoint_in
from walkback.support.processes import talks
from walkback.support.watch import Watch
from walkback.support.world import World, joined_world, local_device

PrecisionName: TypeAlias = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A trained model, with the device and precision of its computations.

    Attributes:
        source: A checkpoint, the directory of a run, or a model in memory.
        device: "auto", "cpu" or "cuda[:i]".
        precision: Precision of the networks, see `open`.
        launched: Whether this may be one of several processes started by a launcher to do a job together.
    """

    source: Path | LoadedModel
    device: str = "auto"
    precision: PrecisionName = "auto"
    launched: bool = False

    @property
    def writes(self) -> bool:
        """Whether this process writes files: the only one, or the first of several."""
        return talks() or not self.launched

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that the model is read from; empty for a model in memory."""
        path = self.source.path if isinstance(self.source, LoadedModel) else checkpoint_in(self.source)
        return () if path is None else (path,)

    def open(self, registry: Registry, watch: Watch, *, densities: bool = False) -> LoadedModel:
        """Return the model on its device.

        Args:
            registry: The plugins.
            watch: Notified of the checkpoint that is used if `source` is a directory.
            densities: Whether log-densities will be computed. As sums of thousands of terms, they are only approximate
                with networks in bf16, so "auto" then means fp32. Otherwise "auto" means bf16 on CUDA devices that
                support it.

        Raises:
            CheckpointError: The file is not a usable checkpoint, or needs a plugin that is not installed.
            ConfigurationError: The device does not exist, or a model in memory is on another one.
            PluginError: A required plugin is broken.
        """
        device = resolve_device(local_device(self.device) if self.launched else self.device)
        loaded = self._loaded(registry, watch, device)
        auto = self.precision == "auto"
        precision = "fp32" if auto and densities else resolve_precision(self.precision, loaded.device)
        return replace(loaded, precision=precision)

    def _loaded(self, registry: Registry, watch: Watch, device: torch.device) -> LoadedModel:
        if isinstance(self.source, LoadedModel):
            if self.device != "auto" and device != self.source.device:
                raise ConfigurationError(
                    f"The model is on {self.source.device} and cannot be used on {self.device}: save it, and load it "
                    "there."
                )
            return self.source
        path = checkpoint_in(self.source)
        if path != self.source:
            watch.note(f"Taking {path}.")
        return load_model(path, registry, device)


def joined(device: torch.device, launched: bool) -> AbstractContextManager[World]:
    """Join the processes that do a job together, see `joined_world`; a single process unless `launched`."""
    return joined_world(device) if launched else nullcontext(World())


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Data for a trained model.

    Attributes:
        source: A name, path, hub id or dataset; None takes the data that the model was trained on.
        settings: Options of a dataset given by name, as `OPTION=VALUE` or `data.OPTION=VALUE`.
        trusted: Whether the data named by the checkpoint may be read and downloaded, see `data_for`.
    """

    source: str | Dataset | None = None
    settings: tuple[str, ...] = ()
    trusted: bool = False

    def check(self, say: Say) -> None:
        """Raise ConfigurationError if options are given without the name of a dataset."""
        if self.settings and not isinstance(self.source, str):
            raise ConfigurationError(
                f"{say('set', self.settings[0])} sets an option of data given by name: add {say('data')}."
            )

    @property
    def name(self) -> str | None:
        """The name given by the caller; None for the model's own data, or a dataset."""
        return self.source if isinstance(self.source, str) else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file or folder given as data; empty for other data."""
        if not isinstance(self.source, str):
            return ()
        path = Path(os.path.expanduser(self.source))  # noqa: PTH111  keeps the name of an unknown user
        return (path,) if os.path.exists(path) else ()  # noqa: PTH110  false where Path.exists raises

    def open(self, loaded: LoadedModel, registry: Registry, watch: Watch, *, comparable: bool) -> Dataset:
        """Return the prepared dataset, whose states are of the model's kind.

        Args:
            loaded: The model.
            registry: The plugins.
            watch: Notified of the preparation, and warned if the model's own data have changed since training.
            comparable: Whether log-densities of the data will be measured. The data must then be quantized like the
                model's own, and the model's own data must not have changed.

        Raises:
            CheckpointError: The dataset of the checkpoint is not installed.
            ConfigurationError: The data do not exist or do not fit the model.
            DataError: The data cannot be read or downloaded.
        """
        watch.stage(f"Preparing {self.name or loaded.info.name}", 0)
        overrides = [a if "." in a.partition("=")[0] else f"data.{a}" for a in self.settings]
        dataset = data_for(loaded, registry, self.source, overrides, trusted=self.trusted, watch=watch)
        own = self.source is None
        if comparable:
            require_comparable(dataset, loaded, own=own)
        elif own and not is_as_trained_on(dataset, loaded):
            watch.warn(
                f"{loaded.info.name} has changed since training: its held-out splits may hold training examples."
            )
        return dataset


def require_states(states: object, info: DataInfo, name: str) -> Tensor:
    """Convert values in the units of the data to states `(N, *E)`, on the CPU in float32.

    Raises:
        ConfigurationError: The values are not finite, or not of the model's kind.
    """
    if not isinstance(states, Tensor) or states.shape[1:] != info.shape or not len(states):
        found = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        raise ConfigurationError(f"Got {found} as {name}, expected states (N, *{info.shape}).")
    if not bool(states.isfinite().all()):
        raise ConfigurationError(f"The states given as {name} contain NaN or infinity: remove these rows.")
    return info.states(states.detach().to("cpu", torch.float64)).float()
