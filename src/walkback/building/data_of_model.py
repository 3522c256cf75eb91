"""Data for a trained model: its own training data, or other compatible data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from walkback.building.assembly import LoadedModel, build_dataset
from walkback.building.origins import recorded_component
from walkback.configuration.components import ComponentConfig
from walkback.configuration.config import component, parse_document
from walkback.configuration.layering import resolve_data
from walkback.data import Batch, Dataset, Split, Standardized, batch_of, prepare_data, require_examples
from walkback.errors import ConfigurationError, WalkbackError, shortened
from walkback.extensions.registry import Registry
from walkback.support.seeding import generator
from walkback.support.textfile import read_text
from walkback.support.watch import Silent, Watch


def data_for(
    loaded: LoadedModel,
    registry: Registry,
    source: str | Dataset | None = None,
    overrides: Sequence[str] = (),
    *,
    trusted: bool = False,
    watch: Watch | None = None,
) -> Dataset:
    """Return a prepared dataset whose states are of the model's kind.

    Checkpoints are not trusted, and must not decide which data are read or downloaded. The data named by a checkpoint
    are used only if they are generated from their options alone, or if the checkpoint is in a run directory of the user
    with the same data.

    Args:
        loaded: The model, with the description of its data.
        registry: The plugins.
        source: A name, path, hub id or dataset; None takes the data that the model was trained on.
        overrides: `data.option=value` assignments for data given by name.
        trusted: Whether any data named by the checkpoint may be read and downloaded.
        watch: Receives progress of a long preparation.

    Raises:
        CheckpointError: The dataset of the checkpoint is not installed.
        ConfigurationError: The data do not exist, the data named by the checkpoint are not trusted, or the data differ
            from the checkpoint's in shape, support or classes.
        DataError: The data cannot be loaded.
    """
    dataset = _unprepared(loaded, registry, source, overrides, trusted)
    if isinstance(dataset, Standardized):
        dataset = dataset.standardized_as(loaded.info)
    prepare_data(dataset, watch or Silent())
    found, expected = dataset.info, loaded.info
    if (found.shape, found.support) != (expected.shape, expected.support):
        raise ConfigurationError(
            f"Got {found.name} of shape {found.shape} and {found.support} support, expected data like the "
            f"checkpoint's: shape {expected.shape}, {expected.support} support; choose others, or set their options."
        )
    if tuple(found.classes) != tuple(expected.classes):
        wanted = "the classes " + ", ".join(expected.classes) if expected.classes else "none"
        raise ConfigurationError(
            f"Got {found.name} with {len(found.classes)} classes, expected {wanted}, as in the checkpoint's data: "
            f"set data.condition to '{'label' if expected.classes else 'none'}', or choose others."
        )
    return dataset


def is_as_trained_on(dataset: Dataset, loaded: LoadedModel) -> bool:
    """Return whether prepared data have the content that the model was trained on."""
    return dataset.info.fingerprint == loaded.info.fingerprint


def require_comparable(dataset: Dataset, loaded: LoadedModel, *, own: bool) -> None:
    """Check that likelihoods on prepared data are comparable with those on the training data.

    Args:
        dataset: Data from `data_for`.
        loaded: The model.
        own: Whether they should be the data that the model was trained on.

    Raises:
        ConfigurationError: The data have another number of gray levels, or `own` data have changed.
    """
    found, expected = dataset.info, loaded.info
    if found.bins != expected.bins:
        raise ConfigurationError(
            f"Got {found.name} with {found.bins} gray levels, expected {expected.bins} as in the checkpoint's data: "
            "their bits/dim are not comparable."
        )
    if own and not is_as_trained_on(dataset, loaded):
        raise ConfigurationError(
            f"Got {found.name} with other content than the data that the checkpoint was trained on: its held-out "
            "split may hold training examples; name the data (--data, data=) if that is meant."
        )


def first_examples(dataset: Dataset, split: Split, num: int, seed: int) -> Batch:
    """Return states `(num, *E)` on the CPU of the first examples of a split, with their labels if there are classes.

    Raises:
        ConfigurationError: The split has fewer examples.
    """
    require_examples(dataset, split, num)
    return batch_of(dataset, split, slice(num), generator("cpu", seed, "held-out"))


def _unprepared(
    loaded: LoadedModel,
    registry: Registry,
    source: str | Dataset | None,
    overrides: Sequence[str],
    trusted: bool,
) -> Dataset:
    if isinstance(source, Dataset):
        return source
    if source is not None:
        return build_dataset(resolve_data(registry, source, overrides), registry)
    if loaded.dataset is not None:
        return loaded.dataset
    recorded = recorded_component(loaded.path, "data", loaded.checkpoint.description, registry)
    contained = registry.find("dataset", recorded.name).spec.self_contained
    if not (trusted or contained or _is_of_own_run(loaded.path, recorded, registry)):
        names = [
            f"{name} = {shortened(value, 60)!r}" for name, value in recorded.options.items() if _names(value)
        ]
        where = f" with {', '.join(names[:3])}" if names else ""
        raise ConfigurationError(
            f"Got {loaded.name}, whose data would be read or fetched because the file names them: "
            f"'{recorded.name}'{where}. Name the data yourself (--data, data=), or allow those (--trust-data, "
            "trust_data=True)."
        )
    return build_dataset(recorded, registry)


def _names(value: object) -> TypeGuard[str]:
    """Return whether an option may contain a path or an address."""
    return isinstance(value, str) and ("/" in value or "\\" in value or "." in value)


def _is_of_own_run(file: Path | None, recorded: ComponentConfig, registry: Registry) -> bool:
    """Return whether a checkpoint is in a run directory of this user whose configuration has the same data."""
    if file is None:
        return False
    file = file.resolve()
    directory = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    config = directory / "config.toml"
    try:
        if config.is_symlink() or not _is_own(config):
            return False
        document = parse_document(read_text(config), str(config), registry)
        return component(registry, "data", document.get("data", {})) == recorded
    except (WalkbackError, OSError):
        return False


def _is_own(file: Path) -> bool:
    """Return whether a file belongs to the user of this process; True on systems without user ids."""
    return not hasattr(os, "getuid") or file.stat().st_uid == os.getuid()
