"""A model: the four components that a walk needs.

operator   p_T(· | s)          schedule   T_1 … T_K
process    q_T(· | s)          prior      p*(s_K)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from walkback.operators import TransitionOperator
from walkback.priors import Prior
from walkback.processes import Process, require_stepwise
from walkback.schedules import Levels, Schedule, require_length
from walkback.walk import Start, Transition, walk


@dataclass(frozen=True, slots=True)
class Model:
    """Operator, schedule, process and prior."""

    operator: TransitionOperator
    schedule: Schedule
    process: Process
    prior: Prior

    @property
    def device(self) -> torch.device:
        """Device of the operator's tensors, else of the prior's or the process's; the CPU if there are none."""
        modules = (self.operator, self.prior, self.process)
        tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
        found = next(tensors, None)
        return torch.device("cpu") if found is None else found.device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The components that may have parameters and buffers, by their prefix in a checkpoint."""
        schedule = {"schedule": self.schedule} if isinstance(self.schedule, nn.Module) else {}
        return {"operator": self.operator, "process": self.process, "prior": self.prior, **schedule}

    @property
    def max_temperature(self) -> float:
        """T_max: the process's own, else the operator's."""
        own = self.process.max_temperature
        return self.operator.max_temperature if own is None else own

    def levels(self, generator: torch.Generator | None = None) -> Levels:
        """Return the schedule's levels up to T_max, random ones if a CPU generator is given."""
        levels = self.schedule.levels(self.max_temperature, generator)
        require_length(len(levels))
        return levels

    def levels_of_length(self, num_steps: int) -> Levels:
        """Return the schedule's annealing up to T_max in exactly `num_steps` steps."""
        require_length(num_steps)
        return self.schedule.levels_of_length(self.max_temperature, num_steps)

    def path(self, start: Start, levels: Levels, generator: torch.Generator) -> Iterator[Transition]:
        """Draw the paths to learn from; see `Process.path`."""
        return self.process.path(self.operator, start, levels, generator)

    def walk(self, start: Start, levels: Levels, generator: torch.Generator) -> Iterator[Transition]:
        """Walk from s_0 of `start` through all `levels`, step by step, with K + 1 runs of the network.

        Raises:
            ConfigurationError: The process is not `Stepwise`.
        """
        process = require_stepwise(self.process, "a walk")
        return walk(self.operator, process.heating, start, levels, generator)

    def to(self, device: torch.device) -> Model:
        """Move the modules to `device` in place, as `nn.Module.to` does, and return the model."""
        for module in self.modules.values():
            module.to(device)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers, not copies: `operator.…`, `process.…`, `prior.…`, and `schedule.…`."""
        return {
            f"{part}.{name}": value
            for part, module in self.modules.items()
            for name, value in module.state_dict().items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the result of `tensors`; names with other prefixes are ignored.

        Raises:
            RuntimeError: The tensors do not match those of a component; the message begins with its name.
        """
        for part, module in self.modules.items():
            prefix = f"{part}."
            own = {
                name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
            }
            try:
                module.load_state_dict(own)
            except RuntimeError as error:
                raise RuntimeError(f"{part}: {error}") from error

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch to evaluation mode in the block, and restore the previous mode afterwards."""
        parts: tuple[nn.Module, ...] = (self.operator, self.process)
        modes = [part.training for part in parts]
        for part in parts:
            part.eval()
        try:
            yield
        finally:
            for part, was_training in zip(parts, modes, strict=True):
                part.train(was_training)
