"""What jobs work on: a model from a file, from a run or in memory, and data beside it."""

from __future__ import annotations

import os
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
from walkback.support.watch import Watch

PrecisionName: TypeAlias = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A trained model, and where and how it is to compute.

    Attributes:
        source: A checkpoint, the directory of a run, or a model in memory.
        device: "auto", "cpu" or "cuda[:i]".
        precision: Of the networks, see `open`.
    """

    source: Path | LoadedModel
    device: str = "auto"
    precision: PrecisionName = "auto"

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that the model is read from; none for a model in memory."""
        path = self.source.path if isinstance(self.source, LoadedModel) else checkpoint_in(self.source)
        return () if path is None else (path,)

    def open(self, registry: Registry, watch: Watch, *, densities: bool = False) -> LoadedModel:
        """The model on its device.

        Args:
            registry: The plugins.
            watch: Is told which file of a directory is taken.
            densities: Whether log-densities are to be computed: these are sums of thousands of terms, for which
                networks in bf16 are an approximation that must be asked for. "auto" is fp32 then, and otherwise bf16
                on CUDA devices that have it.

        Raises:
            CheckpointError: The file is no usable checkpoint, or needs a plugin that is not installed.
            ConfigurationError: There is no such device, or a model in memory is on another one.
            PluginError: A plugin that it needs is broken.
        """
        device = resolve_device(self.device)
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


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Data for a trained model.

    Attributes:
        source: A name, a path or a hub id, or a dataset; None takes the data that the model was trained on.
        settings: Options of data given by name, `OPTION=VALUE` or `data.OPTION=VALUE`.
        trusted: Whether the data that the model's checkpoint names may be read and fetched, see `data_for`.
    """

    source: str | Dataset | None = None
    settings: tuple[str, ...] = ()
    trusted: bool = False

    def check(self, say: Say) -> None:
        """Refuse options of data that no name is given of; raises ConfigurationError."""
        if self.settings and not isinstance(self.source, str):
            raise ConfigurationError(
                f"{say('set', self.settings[0])} sets an option of data given by name: add {say('data')}."
            )

    @property
    def name(self) -> str | None:
        """As the caller named them; None where they are the model's own, or a dataset."""
        return self.source if isinstance(self.source, str) else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file or folder that the user names as data; none for other data."""
        if not isinstance(self.source, str):
            return ()
        path = Path(os.path.expanduser(self.source))  # noqa: PTH111  leaves the name of an unknown user as it is
        return (path,) if os.path.exists(path) else ()  # noqa: PTH110  false where Path.exists raises

    def open(self, loaded: LoadedModel, registry: Registry, watch: Watch, *, comparable: bool) -> Dataset:
        """The dataset, prepared, with states of the model's kind.

        Args:
            loaded: The model.
            registry: The plugins.
            watch: Is told that data are prepared, and warned where the content of the model's own has changed since
                training.
            comparable: Whether log-densities of the data are to be measured: they must be quantized as the model's
                own are then, and its own must not have changed.

        Raises:
            CheckpointError: The checkpoint's own dataset is not installed.
            ConfigurationError: There are no such data, or they do not fit.
            DataError: The data cannot be had.
        """
        watch.stage(f"Preparing {self.name or loaded.info.name}", 0)
        overrides = [a if "." in a.partition("=")[0] else f"data.{a}" for a in self.settings]
        dataset = data_for(loaded, registry, self.source, overrides, trusted=self.trusted)
        own = self.source is None
        if comparable:
            require_comparable(dataset, loaded, own=own)
        elif own and not is_as_trained_on(dataset, loaded):
            watch.warn(
                f"{loaded.info.name} has changed since training: its held-out splits may hold training examples."
            )
        return dataset


def require_states(states: object, info: DataInfo, name: str) -> Tensor:
    """States `(N, *E)`, on the CPU in float32, of values that a caller gives in the units of the data.

    Raises:
        ConfigurationError: They are no finite states of the model's kind.
    """
    if not isinstance(states, Tensor) or states.shape[1:] != info.shape or not len(states):
        found = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        raise ConfigurationError(f"Got {found} as {name}, expected states (N, *{info.shape}).")
    if not bool(states.isfinite().all()):
        raise ConfigurationError(f"The states given as {name} contain NaN or infinity: remove these rows.")
    return info.states(states.detach().to("cpu", torch.float64)).float()
