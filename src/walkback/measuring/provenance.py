"""What every measurement of a checkpoint shares: its protocol, and the data that it may be made on."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from walkback.building.assembly import LoadedModel
from walkback.building.data_of_model import data_for
from walkback.building.devices import Precision
from walkback.data import DataInfo, Dataset
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.sampling import SamplePlan
from walkback.schedules import Levels
from walkback.support.readouts import Readout


def protocol_of(
    loaded: LoadedModel, name: str, device: torch.device, precision: Precision, seed: int
) -> dict[str, Any]:
    """What every report says of the model and of where it was measured."""
    description = loaded.checkpoint.description
    operator = description.components.get("operator")
    return {
        "checkpoint": name,
        "operator": None if operator is None else operator.name,
        "trained_on": loaded.info.name,
        "progress": dict(description.progress),
        "weights": description.weights,
        "walkback": version("walkback"),
        "torch": str(torch.__version__),
        "device": device.type,
        "precision": precision,
        "seed": seed,
    }


def drawing_protocol(plan: SamplePlan, levels: Levels, source: str, readout: Readout) -> dict[str, Any]:
    """What samples say of how they were drawn, beside `protocol_of`; `source` is what the chains started from."""
    return {
        "from": source,
        "annealing_steps": len(levels),
        "extra": plan.extra,
        "chain": plan.chain,
        "readout": readout,
        "batch_size": plan.batch_size,
    }


def evaluation_data(
    loaded: LoadedModel, registry: Registry, source: str | None, overrides: list[str]
) -> Dataset:
    """The data to evaluate on, prepared: those of the checkpoint, or others whose likelihood is comparable.

    Raises:
        ConfigurationError: They differ in shape, support or grey levels, or are the checkpoint's by name and others
            by content.
        DataError: The data cannot be had.
    """
    dataset = data_for(loaded, registry, source, overrides)
    found, expected = dataset.info, loaded.info
    if found.bins != expected.bins:
        raise ConfigurationError(
            f"Got {found.name} with {found.bins} grey levels, expected {expected.bins} as in the checkpoint's data: "
            "their bits/dim are not comparable."
        )
    if source is None and found.fingerprint != expected.fingerprint:
        raise ConfigurationError(
            f"Got {found.name} with other content than the data that the checkpoint was trained on: its held-out "
            "split may hold training examples; name the data with --data if that is meant."
        )
    return dataset


def data_protocol(info: DataInfo) -> dict[str, Any]:
    """What a report says of the data that it was made on."""
    return {
        "data": info.name,
        "preprocessing": list(info.preprocessing),
        "fingerprint": info.fingerprint,
        "bins": info.bins,
        "dimensions": info.space.size,
    }
