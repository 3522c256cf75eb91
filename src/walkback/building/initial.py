"""Training that starts from the operator of a checkpoint instead of random weights (`training.initial`).

Only the operator is taken, weights and buffers: the prior and the process of the new run are fitted to its data.
"""

from __future__ import annotations

from pathlib import Path

import torch

from walkback.building.assembly import load_model
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.operators import TransitionOperator


def initial_operator(file: str | None, registry: Registry) -> TransitionOperator | None:
    """Load the operator of a checkpoint file, on the CPU; None for None.

    Raises:
        CheckpointError: The file is not a usable checkpoint.
        ConfigurationError: There is no such file.
        PluginError: A required plugin is broken.
    """
    if file is None:
        return None
    path = Path(file)
    if not path.is_file():
        raise ConfigurationError(
            f"Got training.initial = '{file}', which is not a file, expected a checkpoint, such as the "
            "final.safetensors of another run."
        )
    return load_model(path, registry, torch.device("cpu")).model.operator


@torch.no_grad()
def adopt(operator: TransitionOperator, initial: TransitionOperator, file: str | None) -> None:
    """Copy weights and buffers of `initial` into `operator`, in place.

    Raises:
        ConfigurationError: They have different tensors.
    """
    own = {name: (tuple(t.shape), t.dtype) for name, t in operator.state_dict().items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in initial.state_dict().items()}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            raise ConfigurationError(
                f"Got training.initial = '{file}', whose operator {_described(found, name)}, but the one to train "
                f"{_described(own, name)}: use the operator options that the checkpoint was trained with."
            )
    operator.load_state_dict(initial.state_dict())


def _described(tensors: dict[str, tuple[tuple[int, ...], torch.dtype]], name: str) -> str:
    if name not in tensors:
        return f"has no tensor '{name}'"
    shape, dtype = tensors[name]
    return f"has '{name}' of shape {shape} and type {str(dtype).removeprefix('torch.')}"
