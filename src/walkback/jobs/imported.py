"""The request to make a checkpoint of a model that another library trained.

choices, tensors → RunConfig → Checkpoint, checked as if it were read from a file
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from walkback.building.assembly import build_dataset, restoring
from walkback.building.origins import origins
from walkback.configuration.layering import resolve
from walkback.configuration.overrides import assignments
from walkback.data import prepare_data
from walkback.extensions.registry import Registry
from walkback.storage.checkpoint import Checkpoint, save_checkpoint
from walkback.storage.description import describe
from walkback.storage.files import require_target
from walkback.support.formats import SAFETENSORS
from walkback.support.watch import Watch


@dataclass(frozen=True, slots=True)
class ImportJob:
    """Write a model of another library as a checkpoint.

    Attributes:
        source: Where the model comes from, for messages.
        components: Names of operator, schedule, process, prior and data, by section.
        settings: Values by `section.option`.
        tensors: All parameters and buffers of the model, named as in a checkpoint; not trusted.
        out: Checkpoint to write.
        overwrite: Whether to overwrite an existing file.
    """

    source: Path
    components: Mapping[str, str]
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    out: Path
    overwrite: bool = False

    def check(self, registry: Registry, watch: Watch) -> CheckedImport:
        """See `Job`; a CheckpointError says which tensors do not fit the components."""
        require_target(self.out, (SAFETENSORS,), overwrite=self.overwrite, of_checkpoint=True)
        config = resolve(registry, components=self.components, overrides=assignments(self.settings))
        dataset = build_dataset(config.data, registry)
        prepare_data(dataset, watch)
        description = describe(
            config=config.to_dict(),
            components=origins(config, registry),
            data=dataset.info.to_dict(),
            progress={},
            weights="raw",
        )
        checkpoint = Checkpoint(description, self.tensors)
        restoring(self.source, registry).restore(checkpoint)
        return CheckedImport(checkpoint, self.out)


@dataclass(frozen=True, slots=True)
class CheckedImport:
    """A checkpoint that can be written.

    Attributes:
        checkpoint: The checkpoint.
        out: See `ImportJob`.
    """

    checkpoint: Checkpoint
    out: Path

    def run(self, watch: Watch) -> Checkpoint:
        """Write the checkpoint, and return it."""
        save_checkpoint(self.out, self.checkpoint)
        return self.checkpoint
