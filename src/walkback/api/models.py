"""Models from files, and the data that they are measured on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from walkback.api.inputs import assignments, installed
from walkback.api.records import Trained
from walkback.api.tensors import TensorData
from walkback.building.assembly import LoadedModel, load_model
from walkback.building.devices import Precision, resolve_device
from walkback.data import DataInfo, Dataset
from walkback.errors import ConfigurationError
from walkback.measuring.provenance import evaluation_data, protocol_of


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Trained:
    """The model in a checkpoint file; no code named in the file is run.

    Args:
        path: A `.safetensors` checkpoint of `walkback run` or `Trained.save`.
        device: "auto" (CUDA where there is one), "cpu" or "cuda[:i]".

    Raises:
        CheckpointError: The file is no usable checkpoint, or needs a plugin that is not installed.
        ConfigurationError: There is no such device.
        PluginError: A plugin that it needs is broken.
    """
    target = resolve_device(device)
    loaded = load_model(Path(path), installed(), target)
    return Trained(loaded.model, loaded.info, loaded.checkpoint, target, Path(path).name)


def trained_of(model: Trained | str | os.PathLike[str], device: str) -> Trained:
    """The model itself, or that in a file.

    Raises:
        ConfigurationError: A model in memory is to compute on another device than its own; else as `load`.
    """
    if not isinstance(model, Trained):
        return load(model, device=device)
    if device != "auto" and resolve_device(device) != model.device:
        raise ConfigurationError(
            f"Got device '{device}' for a model on {model.device}, expected its own: save it, and load it there."
        )
    return model


def loaded_of(trained: Trained) -> LoadedModel:
    """The same as the engine takes it."""
    return LoadedModel(trained.model, trained.info, trained.checkpoint)


def stamp_of(trained: Trained, precision: Precision, seed: int) -> dict[str, Any]:
    """What is said, of the model and of where it ran, of all that is measured on it or drawn from it."""
    stamp = protocol_of(loaded_of(trained), trained.name, trained.device, precision, seed)
    return {**stamp, "operator": trained.operator_name}


def comparable_data(
    trained: Trained, data: str | os.PathLike[str] | Dataset | Tensor | None, settings: Mapping[str, Any]
) -> Dataset:
    """The data to measure on, prepared.

    Args:
        trained: The model.
        data: A name, a path or a hub id, an instance, a tensor `(N, *E)`; None takes those it was trained on.
        settings: Options of data given by name, "data.OPTION" or "OPTION".

    Raises:
        ConfigurationError: The data are not comparable with those of the training, or `settings` fit nothing.
        DataError: They cannot be had.
    """
    if settings and not isinstance(data, str | os.PathLike):
        raise ConfigurationError(
            f"Got the setting {next(iter(settings))!r} for data that are not given by name, expected data=NAME."
        )
    dataset = trained.dataset if data is None else as_dataset(data)
    if dataset is not None:
        dataset.prepare()
        _require_alike(dataset.info, trained.info)
        return dataset
    named = {name if name.startswith("data.") else f"data.{name}": value for name, value in settings.items()}
    source = None if data is None else os.fspath(data)  # type: ignore[arg-type]
    return evaluation_data(loaded_of(trained), installed(), source, assignments(named))


def as_dataset(data: object) -> Dataset | None:
    """The data set that an argument is or holds; None of a name.

    Raises:
        ConfigurationError: It is something else.
        DataError: The tensor is no data set.
    """
    if data is None or isinstance(data, str | os.PathLike):
        return None
    if isinstance(data, Tensor):
        return TensorData(data)
    if isinstance(data, Dataset):
        return data
    what = type(data).__name__
    advice = ": pass torch.from_numpy(data)" if what == "ndarray" else ""
    raise ConfigurationError(
        f"Got a {what} as data, expected a name, a path, a hub id, a Dataset or a tensor (N, *E){advice}."
    )


def _require_alike(found: DataInfo, expected: DataInfo) -> None:
    if (found.shape, found.support, found.bins) != (expected.shape, expected.support, expected.bins):
        raise ConfigurationError(
            f"Got {found.name} of shape {found.shape}, {found.support} support and {found.bins} grey levels, expected "
            f"data like the model's: shape {expected.shape}, {expected.support} support, {expected.bins} grey levels."
        )
