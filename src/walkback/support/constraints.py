"""Ranges of a module's tensors: the valid values of a checkpoint.

    class Noise(nn.Module, Constrained):
        constraints = {"variance": positive}

Checkpoints are not trusted. Loading one compares shapes and types and requires finite tensors. A module declares
further constraints, such as positive variances; a checkpoint that violates them is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import constraints as torch_constraints
from torch.distributions.constraints import Constraint, nonnegative, positive, unit_interval
from torch.nn.modules.batchnorm import _NormBase

__all__ = [
    "Constrained",
    "Constraint",
    "greater_than",
    "nonnegative",
    "positive",
    "unit_interval",
    "violation",
]

_STATISTICS: Mapping[str, Constraint] = {"running_var": nonnegative, "num_batches_tracked": nonnegative}
"""Ranges of the buffers of torch's batch norms."""


class Constrained(ABC):
    """Capability of a module (an operator, process, prior, or part of one) whose tensors have ranges."""

    @property
    @abstractmethod
    def constraints(self) -> Mapping[str, Constraint]:
        """Ranges of the module's own parameters and buffers by name, from `torch.distributions.constraints`."""


def greater_than(bound: float) -> Constraint:
    """Return the constraint x > `bound`."""
    constraint: Constraint = torch_constraints.greater_than(bound)  # type: ignore[no-untyped-call]
    return constraint


def constraints_of(module: nn.Module) -> Mapping[str, Constraint]:
    """Return the ranges of a module's own tensors, without those of its submodules."""
    if isinstance(module, Constrained):
        return module.constraints
    return _STATISTICS if isinstance(module, _NormBase) else {}


@torch.no_grad()
def violation(module: nn.Module) -> str | None:
    """Describe the first tensor of a module or its submodules that is not finite or is out of range; None without one.

    >>> norm = nn.BatchNorm1d(2)
    >>> violation(norm) is None, norm.running_var.fill_(-1.0) is None, violation(norm)
    (True, False, "'running_var' holds -1, expected at least 0")
    """
    for place, part in module.named_modules():
        prefix = f"{place}." if place else ""
        for name, tensor in _own_tensors(part).items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                return f"'{prefix}{name}' holds NaN or infinity in {str(tensor.dtype).removeprefix('torch.')}"
        ranges = constraints_of(part)
        for name, tensor in _own_tensors(part).items():
            inside = ranges[name].check(tensor) if name in ranges else None  # type: ignore[no-untyped-call]
            if inside is not None and not bool(inside.all()):
                worst = tensor[~inside].flatten()[0].item()
                return f"'{prefix}{name}' holds {worst:g}, expected {_in_words(ranges[name])}"
    return None


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _in_words(constraint: Constraint) -> str:
    lower, upper = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
    if isinstance(constraint, torch_constraints.greater_than):
        return f"more than {lower:g}"
    if lower is not None and upper is not None:
        return f"at least {lower:g} and at most {upper:g}"
    return f"at least {lower:g}" if lower is not None else str(constraint)
