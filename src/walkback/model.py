"""A model: the four parts that a walk needs, held together.

operator   p_T(· | s)          schedule   T_1 … T_K
process    q_T(· | s)          prior      p*(s_K)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch

from walkback.operators import TransitionOperator
from walkback.priors import Prior
from walkback.processes import Process
from walkback.schedules import Levels, Schedule


@dataclass(frozen=True, slots=True)
class Model:
    """Operator, schedule, process and prior."""

    operator: TransitionOperator
    schedule: Schedule
    process: Process
    prior: Prior

    @property
    def device(self) -> torch.device:
        """Where the operator's parameters and buffers are, or the prior's; the CPU where neither has any."""
        modules = (self.operator, self.prior)
        tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
        found = next(tensors, None)
        return torch.device("cpu") if found is None else found.device

    def levels(self, generator: torch.Generator | None = None) -> Levels:
        """The schedule's levels up to the operator's T_max; random ones where a CPU generator is given."""
        return self.schedule.levels(self.operator.max_temperature, generator)

    def levels_of_length(self, num_steps: int) -> Levels:
        """The schedule's annealing up to T_max in exactly `num_steps` steps."""
        return self.schedule.levels_of_length(self.operator.max_temperature, num_steps)

    def to(self, device: torch.device) -> Model:
        """The same model with its modules moved to `device` (in place, as modules are)."""
        self.operator.to(device)
        self.prior.to(device)
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside, the previous mode after."""
        was_training = self.operator.training
        self.operator.eval()
        try:
            yield
        finally:
            self.operator.train(was_training)
