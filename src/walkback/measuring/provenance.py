"""Provenance: the record of how a result was made, stored with every figure, sample and picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch

from walkback.building.assembly import LoadedModel
from walkback.building.devices import Precision
from walkback.data import DataInfo


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is needed to reproduce a result.

    Attributes:
        operator: Name of the operator's component, or of its class.
        device: Device of the computation.
        precision: Precision of the networks.
        seed: Seed from which all randomness is derived.
        weights: "ema" for the running average of the weights, "raw" for the last weights.
        trained_on: Name of the training data, if the model came from a checkpoint.
        checkpoint: Name of the checkpoint file.
        progress: Progress of training when the checkpoint was written.
        data: Description of the data used for the result.
        details: The request: sizes, options and the like.
    """

    operator: str
    device: torch.device
    precision: Precision
    seed: int
    weights: str | None = None
    trained_on: str | None = None
    checkpoint: str | None = None
    progress: Mapping[str, int | float] | None = None
    data: DataInfo | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, loaded: LoadedModel, seed: int, **details: Any) -> Provenance:
        """Return the provenance of a result of a trained model."""
        description = loaded.checkpoint.description
        return cls(
            operator=loaded.operator_name,
            device=loaded.device,
            precision=loaded.precision,
            seed=seed,
            weights=description.weights,
            trained_on=loaded.info.name,
            checkpoint=loaded.name,
            progress=description.progress,
            details=details,
        )

    def on(self, data: DataInfo | None) -> Provenance:
        """Return a copy that names the data used for the result."""
        return replace(self, data=data)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types, without unknown entries; details come last."""
        facts: dict[str, Any] = {
            "checkpoint": self.checkpoint,
            "operator": self.operator,
            "trained_on": self.trained_on,
            "progress": None if self.progress is None else dict(self.progress),
            "weights": self.weights,
            "walkback": version("walkback"),
            "torch": str(torch.__version__),
            "device": self.device.type,
            "precision": self.precision,
            "seed": self.seed,
        }
        known = {name: fact for name, fact in facts.items() if fact is not None}
        return {**known, **({} if self.data is None else _data_facts(self.data)), **self.details}


def _data_facts(info: DataInfo) -> dict[str, Any]:
    return {
        "data": info.name,
        "preprocessing": list(info.preprocessing),
        "fingerprint": info.fingerprint,
        **({"given": "label"} if info.classes else {}),
        "bins": info.bins,
        "dimensions": info.space.size,
        **({"units": "of the data; states are standardized"} if info.standardized else {}),
    }
