"""Optimizer, learning rate and weight average.

    lr(w) = lr · min(1, (w + 1) / warmup) · [ 1, or ½ (1 + cos(π z)) ],   z = completed share of training
    θ̄ ← d_u θ̄ + (1 - d_u) θ,   d_1 = 0,   d_u = min(d, (1 + u) / (10 + u)) for updates u = 2, 3, …

The average starts with the weights after the first update, and its decay starts small, so that initial weights do not
dominate the average of a short run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from walkback.configuration.settings import TrainingSettings
from walkback.model import Model
from walkback.training.shards import divided_like, part, whole


def build_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    """Return fused AdamW (decoupled weight decay; with weight_decay = 0 this is Adam)."""
    return torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of the optimizer by `"<index of the parameter>.<name>"`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, slots in state.items() for name, value in slots.items()}


def load_moments(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Load the result of `moments` into an optimizer.

    Raises:
        ValueError: The moments do not fit `parameters`; the fused optimizer would read past their ends.
    """
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        slots.setdefault(int(number), {})[name] = value
    if not slots:
        raise ValueError("it has no optimizer moments")
    for index, found in slots.items():
        shape = parameters[index].shape
        expected = {"step": torch.Size(()), "exp_avg": shape, "exp_avg_sq": shape}
        if {name: value.shape for name, value in found.items()} != expected:
            raise ValueError(f"its moments of parameter {index} are not those of this operator")
        slots[index] = divided_like(dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters[index]), found)
    # Keep the parameter groups of this run: settings may have changed, and the file contains only moments.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def share_done(settings: TrainingSettings, walks: int, seconds: float) -> float:
    """Return the completed share of training: z = max(walks / steps, seconds / budget).

    Training ends when z reaches 1. Without `training.minutes` there is no time budget.
    """
    share = walks / max(1, settings.steps)
    return share if settings.minutes is None else max(share, seconds / (60 * settings.minutes))


def learning_rate(settings: TrainingSettings, walk: int, seconds: float = 0.0) -> float:
    """Return the learning rate of walk number `walk` (from 0), which starts after `seconds` of training."""
    rate = settings.lr
    if settings.warmup:
        rate *= min(1.0, (walk + 1) / settings.warmup)
    if settings.lr_schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, share_done(settings, walk, seconds))))
    return rate


@final
class WeightAverage:
    """Exponential moving average of the weights of all parts but the prior; buffers are copied from the model.

    Args:
        model: The model in training.
        decay: d; 0 makes the average equal to the model.

    Attributes:
        model: The model with averaged weights; the prior is shared with the model in training, and so is a schedule
            without weights.
        updates: Number of updates, u.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        learning = {name: module for name, module in model.modules.items() if name != "prior"}
        self._names = tuple(learning)
        self._learning = tuple(learning.values())
        # Not torch's AveragedModel: it copies its counter from the CPU to the device at each update, which blocks the
        # CPU.
        averages: dict[str, Any] = {
            name: deepcopy(module).requires_grad_(False) for name, module in learning.items()
        }
        self._averages: tuple[nn.Module, ...] = tuple(averages.values())
        self._parts: list[Tensor] = []
        self.model = replace(model, **averages)

    def divide(self, is_main: bool) -> None:
        """Average only the parts of this process from now on, after weights have been divided among processes.

        `model` is then up to date after `collect`, and only in the main process; the others do not store it.
        """
        self._parts = [
            p.detach().clone() if self._decay else p.detach() for p in self._weights(self._learning)
        ]
        if not is_main:
            for module in self._averages:
                module.to("meta")

    @torch.no_grad()
    def collect(self) -> None:
        """Update `model` if weights are divided among processes, which must call this together."""
        if not self._parts:
            return
        for kept, own in zip(self._weights(self._averages), self._parts, strict=True):
            kept.copy_(whole(own))
        self._copy_buffers()

    @torch.no_grad()
    def update(self) -> None:
        """Update the average after an optimizer step."""
        self.updates += 1
        averages = [part(weight) for weight in self._parts or self._weights(self._averages)]
        currents = [part(weight) for weight in self._weights(self._learning)]
        # One fused call for all weights instead of one kernel for each; a lerp with weight 1 - d is d θ̄ + (1 - d) θ.
        if self.updates == 1:
            torch._foreach_copy_(averages, currents)
        else:
            decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(averages, currents, 1 - decay)
        self._copy_buffers()

    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Resume after `updates` updates, from the tensors of `model` (`Model.tensors`).

        Raises:
            RuntimeError: See `Model.load_tensors`.
        """
        self.updates = updates
        if not any(weight.is_meta for weight in self._weights(self._averages)):
            self.model.load_tensors(tensors)
        if self._parts and self._decay:
            names = [
                f"{kind}.{name}"
                for kind, module in zip(self._names, self._averages, strict=True)
                for name, _ in module.named_parameters()
            ]
            parts = dict(zip(names, self._parts, strict=True))
            divided = divided_like(parts, {name: tensors[name] for name in names})
            with torch.no_grad():
                for name, own in parts.items():
                    own.copy_(divided[name])

    def _copy_buffers(self) -> None:
        # Statistics of batch norm are already averages, and integer buffers cannot be averaged.
        for average, current in zip(self._averages, self._learning, strict=True):
            for kept, buffer in zip(average.buffers(), current.buffers(), strict=True):
                kept.copy_(buffer)

    @staticmethod
    def _weights(modules: Iterable[nn.Module]) -> list[Tensor]:
        return [p for module in modules for p in module.parameters()]


def clip_gradients(parameters: list[nn.Parameter], largest: float) -> Tensor:
    """Clip the norm of gradients to `largest` (0 does not clip); returns the norm before, a scalar tensor."""
    return whole(nn.utils.clip_grad_norm_(parameters, largest or math.inf))
