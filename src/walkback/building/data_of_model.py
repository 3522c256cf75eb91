"""The data for a trained model: those of its checkpoint, or others that fit it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from walkback.building.assembly import LoadedModel, build_dataset
from walkback.building.origins import recorded_component
from walkback.configuration.layering import resolve_data
from walkback.data import Dataset, Split, require_examples, states_of
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.support.seeding import generator


def data_for(
    loaded: LoadedModel, registry: Registry, source: str | None = None, overrides: Sequence[str] = ()
) -> Dataset:
    """A prepared data set whose states are of the model's kind.

    Args:
        loaded: The model and what its checkpoint says of its data.
        registry: The plugins.
        source: A name, a path or a hub id; None takes the data set that the checkpoint names.
        overrides: `data.option=value` assignments for `source`.

    Raises:
        CheckpointError: The checkpoint's own data set is not installed.
        ConfigurationError: There are no such data, or they differ from the checkpoint's in shape or support.
        DataError: The data cannot be had.
    """
    if source is None:
        config = recorded_component(None, "data", loaded.checkpoint.description, registry)
    else:
        config = resolve_data(registry, source, overrides)
    dataset = build_dataset(config, registry)
    dataset.prepare()
    found, expected = dataset.info, loaded.info
    if (found.shape, found.support) != (expected.shape, expected.support):
        raise ConfigurationError(
            f"Got {found.name} of shape {found.shape} and {found.support} support, expected data like the "
            f"checkpoint's: shape {expected.shape}, {expected.support} support; choose others, or set their options."
        )
    return dataset


def first_states(dataset: Dataset, split: Split, num: int, seed: int) -> Tensor:
    """States `(num, *E)` on the CPU of the first examples of a split.

    Raises:
        ConfigurationError: The split has fewer.
    """
    require_examples(dataset, split, num)
    return states_of(dataset, split, slice(num), generator("cpu", seed, "held-out"))
