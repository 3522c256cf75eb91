"""Optimizer, learning rate and weight average.

    lr(w) = lr · min(1, (w + 1) / warmup) · [ 1, or ½ (1 + cos(π w / steps)) ]
    θ̄ ← d_u θ̄ + (1 - d_u) θ,   d_1 = 0,   d_u = min(d, (1 + u) / (10 + u)) for updates u = 2, 3, …

The average starts as the weights after the first update and its decay starts small, so that short runs do not sample
with their initial weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from walkback.configuration.settings import TrainingSettings
from walkback.model import Model
from walkback.operators import TransitionOperator
from walkback.processes import Process

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    """Fused AdamW (decoupled weight decay; with weight_decay = 0 this is Adam)."""
    return torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, by `"<number of the parameter>.<name>"`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, slots in state.items() for name, value in slots.items()}


def load_moments(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Inverse of `moments`.

    Raises:
        ValueError: These are not the moments of `parameters`; the fused optimizer would read past their ends.
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
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def learning_rate(settings: TrainingSettings, walk: int) -> float:
    """Learning rate of walk number `walk` (from 0)."""
    rate = settings.lr
    if settings.warmup:
        rate *= min(1.0, (walk + 1) / settings.warmup)
    if settings.lr_schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, walk / max(1, settings.steps))))
    return rate


@final
class WeightAverage:
    """Exponential moving average of the weights of operator and process; buffers follow the model.

    Args:
        model: The model in training.
        decay: d; 0 makes the average equal to the model.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self._learning = nn.ModuleList([model.operator, model.process])
        self._average = AveragedModel(self._learning, multi_avg_fn=self._blend)
        self._average.requires_grad_(False)
        operator, process = self._average.module.children()
        if not (isinstance(operator, TransitionOperator) and isinstance(process, Process)):
            raise TypeError(
                f"Got {type(operator).__name__} and {type(process).__name__}, expected the model's own."
            )
        self.model = replace(model, operator=operator, process=process)
        """The model with averaged weights; schedule and prior are the very ones of the model in training."""

    def update(self) -> None:
        """Blend in the weights after one optimizer step."""
        self.updates += 1
        self._average.update_parameters(self._learning)

    def resume(self, updates: int) -> None:
        """Go on after `updates` updates, whose weights have been loaded into `model`."""
        self.updates = updates
        self._average.n_averaged.fill_(updates)

    def _blend(self, averages: Tensors, currents: Tensors, _: object) -> None:
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(averages, currents, 1 - decay)


def clip_gradients(parameters: list[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients down to norm `largest` (0: leave them); returns the norm before, a scalar tensor."""
    return nn.utils.clip_grad_norm_(parameters, largest or math.inf)
