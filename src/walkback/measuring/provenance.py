"""Provenance: the record of how figures, samples and pictures were made, which all of them carry."""

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
        operator: Name of the operator's component, or its class.
        device: Where it was computed.
        precision: Of the networks.
        seed: Of all randomness.
        weights: Whether the operator's are the running average ("ema") or the last ones ("raw").
        trained_on: Name of the data that the model was trained on, where it came from a checkpoint.
        checkpoint: Name of that file.
        progress: How far its training had come.
        data: The data that took part, with the steps that made them.
        details: What was asked for.
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
        """That of what a trained model does."""
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
        """The same with data that took part."""
        return replace(self, data=data)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without what is not known; the details come last."""
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
    }
