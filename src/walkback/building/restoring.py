"""Loading a model from a checkpoint that is not trusted.

header → a model on the meta device, limited by the file → names, shapes, types → weights → model → ranges

A configuration of a few hundred bytes can describe a network of any size. The first model allocates no memory, and its
construction stops as soon as it has more parts than the file can fill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from walkback.building.growth import observed
from walkback.building.origins import unknown_configuration
from walkback.errors import CheckpointError, ConfigurationError, ConstructionError
from walkback.model import Model
from walkback.storage.checkpoint import Checkpoint, load_checkpoint
from walkback.storage.description import Description
from walkback.storage.tensorheader import DTYPES, TensorSpec
from walkback.support.constraints import violation
from walkback.support.text import one_line

# A constructor may register more than the file contains: parts that it later replaces, and constants.
_MORE_TENSORS, _MORE_MODULES, _MORE_ELEMENTS = 256, 1024, 2**24
_TENSORS_PER_STORED, _MODULES_PER_STORED, _SIZE_PER_STORED = 4, 16, 4

Build = Callable[[Description], Model]


@final
@dataclass(frozen=True, slots=True)
class Restoring:
    """Loads the model of one checkpoint file.

    Attributes:
        path: The file.
        build: Builds a new model for a description.
    """

    path: Path
    build: Build

    def load(self) -> tuple[Model, Checkpoint]:
        """Return the model with the weights of the file, on the CPU, and the checkpoint.

        Raises:
            CheckpointError: The file is not a usable checkpoint, or its tensors do not fit the model that it describes.
            PluginError: A required plugin is broken.
        """
        checkpoint = load_checkpoint(self.path, accept=self._require_fitting)
        return self._filled(checkpoint), checkpoint

    def restore(self, checkpoint: Checkpoint) -> Model:
        """Return the model of a checkpoint in memory that was made from `path`; raises the errors of `load`."""
        specs = {name: _spec(tensor) for name, tensor in checkpoint.tensors.items()}
        self._require_fitting(checkpoint.description, specs)
        return self._filled(checkpoint)

    def _filled(self, checkpoint: Checkpoint) -> Model:
        """Build the model, and load its tensors."""
        description = checkpoint.description
        specs = {name: _spec(tensor) for name, tensor in checkpoint.tensors.items()}
        model = self._built(description, specs)
        self._compare(model, description, specs)
        self._fill(model, checkpoint.tensors, description)
        for part, module in model.modules.items():
            problem = violation(module)
            if problem is not None:
                raise CheckpointError(
                    f"Got {self.path}, which cannot be used: in its {part}, the tensor {problem}."
                )
        return model

    def _built(self, description: Description, specs: Mapping[str, TensorSpec]) -> Model:
        """Build the model with initial weights; errors of a constructor may be the fault of the file."""
        try:
            return self._build(description, specs)
        except ConstructionError as error:
            raise CheckpointError(
                f"Got {self.path}, whose model cannot be built: {one_line(error)}; the file is damaged, or made for "
                "another version of the plugin."
            ) from error

    def _build(self, description: Description, specs: Mapping[str, TensorSpec]) -> Model:
        try:
            with self._within(specs):
                return self.build(description)
        except CheckpointError:
            raise
        except ConfigurationError as error:
            raise unknown_configuration(self.path, description, error) from error

    def _require_fitting(self, description: Description, specs: Mapping[str, TensorSpec]) -> None:
        """Compare the file with the model that it describes, without allocating memory for it."""
        try:
            with torch.device("meta"):
                model = self._build(description, specs)
        except ConstructionError:
            # A constructor that reads values cannot run on the meta device: compare the real model later.
            return
        self._compare(model, description, specs)
        self._fill(model, {name: _empty(spec) for name, spec in specs.items()}, description)

    def _compare(self, model: Model, description: Description, specs: Mapping[str, TensorSpec]) -> None:
        """Raise CheckpointError for tensors whose shape or type differs from those of the model.

        `load_state_dict` alone would accept a scalar for a vector of one element, and booleans for weights.
        """
        for name, tensor in model.tensors().items():
            found, expected = specs.get(name), _spec(tensor)
            if found is None:
                continue  # loading reports it, unless the module handles missing tensors
            if found.shape != expected.shape or not _castable(found.dtype, expected.dtype):
                said = f"{found.dtype} of shape {found.shape}, expected {expected.dtype} of shape {expected.shape}"
                self._refuse(name.partition(".")[0], f"its tensor '{name}' is {said}", description)

    def _fill(self, model: Model, tensors: Mapping[str, Tensor], description: Description) -> None:
        try:
            model.load_tensors(tensors)
        except RuntimeError as error:
            part, _, reason = str(error).partition(": ")
            self._refuse(part, " ".join(reason.partition("\n")[2].split())[:300].rstrip(". "), description)

    def _refuse(self, part: str, reason: str, description: Description) -> None:
        origin = description.components[part]
        raise CheckpointError(
            f"Got {self.path}, whose weights do not fit the {part} '{origin.name}' of this installation"
            f"{f' ({reason})' if reason else ''}; it was written with {origin.distribution} {origin.version}."
        )

    @contextmanager
    def _within(self, specs: Mapping[str, TensorSpec]) -> Iterator[None]:
        """Raise CheckpointError in the block if a constructor registers more than the file can fill."""
        budget = _Budget(self.path, specs)
        with observed(budget.tensor, budget.module):
            yield


@final
class _Budget:
    """Limits the tensors and modules that are registered during construction."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec]) -> None:
        self._path = path
        self._tensors = _MORE_TENSORS + _TENSORS_PER_STORED * len(specs)
        self._modules = _MORE_MODULES + _MODULES_PER_STORED * len(specs)
        self._elements = _MORE_ELEMENTS + _SIZE_PER_STORED * sum(spec.size for spec in specs.values())

    def tensor(self, module: nn.Module, name: str, tensor: Any) -> None:
        """Count a parameter or a buffer."""
        self._tensors -= 1
        self._elements -= tensor.numel() if isinstance(tensor, Tensor) else 0
        self._check()

    def module(self, module: nn.Module, name: str, part: Any) -> None:
        """Count a submodule."""
        self._modules -= 1
        self._check()

    def _check(self) -> None:
        if min(self._tensors, self._modules, self._elements) < 0:
            raise CheckpointError(
                f"Got {self._path}, whose configuration describes a larger model than the tensors in the file; "
                "expected a file of walkback."
            )


def _spec(tensor: Tensor) -> TensorSpec:
    name = str(tensor.dtype).removeprefix("torch.")
    dtype = next((stored for stored, (own, _) in DTYPES.items() if own == name), name)
    return TensorSpec(dtype, tuple(tensor.shape))


def _empty(spec: TensorSpec) -> Tensor:
    return torch.empty(spec.shape, dtype=getattr(torch, DTYPES[spec.dtype][0]), device="meta")


def _castable(found: str, expected: str) -> bool:
    """Return whether a stored type may be loaded as another: equal types, or two floating-point types."""
    floats = ("F64", "F32", "F16", "BF16")
    return found == expected or (found in floats and expected in floats)
