"""Training: heat a minibatch, and learn to reverse every step.

for each walk: s_0 from data (some from persistent chains) → transitions t = 1 … K → updates of the weights
               s_K of the walks from data → prior
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any, final

import torch
from torch import Tensor, nn

from walkback.building.devices import Precision, autocast, wait_for
from walkback.configuration.settings import TrainingSettings
from walkback.data import Dataset
from walkback.errors import ConfigurationError
from walkback.levels import tensor_levels
from walkback.measuring.calls import counted_calls
from walkback.model import Model
from walkback.objectives import AnyObjective
from walkback.schedules import Levels
from walkback.state import State, map_state
from walkback.support.memory import within_memory
from walkback.support.seeding import derive_seed, generator, lent_seed
from walkback.support.text import one_line
from walkback.support.world import World
from walkback.training.batches import BatchOrder
from walkback.training.engines import engine_for
from walkback.training.finite import Moment, Trail
from walkback.training.guard import Guard
from walkback.training.learned_levels import LevelGradients
from walkback.training.optimization import (
    WeightAverage,
    build_optimizer,
    clip_gradients,
    learning_rate,
    load_moments,
    moments,
    share_done,
)
from walkback.training.persistent_chains import PersistentChains
from walkback.training.progress import Progress
from walkback.training.shards import divided_like, whole_on_main
from walkback.training.starts import DataStarts
from walkback.training.updates import Path, trained_besides, updates_for
from walkback.walk import Start

_LOOK_EVERY = 100
"""Maximum number of walks before the device is synchronized to check that its updates were finite."""


def levels_of_walk(model: Model, seed: int, number: int) -> Levels:
    """Return the levels of walk `number` of a run, drawn by the schedule from the run's seed."""
    return model.levels(generator("cpu", seed, "schedule", number))


@final
class Trainer:
    """Trains a model on a prepared dataset, one walk at a time.

    All randomness is a function of (seed, walk number), so a trainer restored at walk w continues exactly like one that
    was never interrupted.

    Args:
        model: The model to train, on `device`.
        objective: Loss of a step, or of a walk.
        dataset: Prepared data.
        settings: See `TrainingSettings`.
        seed: The run's seed.
        device: Device of the walks.
        precision: Precision of the networks.
        compiled: Whether the operator is compiled.
        world: The place of this process among others.
    """

    def __init__(
        self,
        model: Model,
        objective: AnyObjective,
        dataset: Dataset,
        settings: TrainingSettings,
        *,
        seed: int,
        device: torch.device,
        precision: Precision = "fp32",
        compiled: bool = False,
        world: World | None = None,
    ) -> None:
        self.model = model
        self.progress = Progress()
        self.gradient_norm = torch.zeros((), device=device)
        """Norm of the gradient of the last update before clipping, a scalar on the device."""
        self._settings = settings
        self._seed = seed
        self._device = device
        self._precision: Precision = precision
        self._compiled = compiled
        self._world = world or World()
        self._starts = DataStarts(model, dataset, settings.unlabelled, device)
        self._order = BatchOrder(
            self._starts.count, settings.batch_size, seed, rank=self._world.rank, world_size=self._world.size
        )
        self._world.copy_from_main(*model.modules.values())
        self._average = WeightAverage(model, settings.ema)
        whole = trained_besides(model, objective)
        self._engine = engine_for(self._world, model.operator, whole, device)
        if self._is_divided:
            self._average.divide(self._world.is_main)
        self._levels = LevelGradients(model, dataset.info.space.size, seed, self._world)
        trained = [p for module in (model.operator, *whole) for p in module.parameters() if p.requires_grad]
        self._parameters: list[nn.Parameter] = [*trained, *self._levels.parameters]
        self._optimizer = build_optimizer(self._parameters, settings)
        self._guard = Guard(settings, device, (model.operator, model.process))
        self._learn = updates_for(settings, objective, model, dataset.info.space.size, self._engine)
        self._chains: PersistentChains | None = None
        if settings.chains.share:
            self._chains = PersistentChains(model, settings, seed, self._world, compiled=compiled)

    @property
    def averaged_model(self) -> Model:
        """The model with averaged weights, to evaluate and to sample; raises NotFiniteError like `settle`.

        If processes divide the weights, it exists only in the main process, with the weights of the last `settle`.
        """
        self._guard.require()
        return self._average.model if self._settings.ema or self._is_divided else self.model

    @property
    def _is_divided(self) -> bool:
        """Whether processes divide the weights among them."""
        return self._world.shards and self._world.size > 1

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last walk."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def skipped(self) -> bool:
        """Whether the last walk was skipped, see `training.on_nonfinite`."""
        return self._guard.skipped

    @property
    def share_done(self) -> float:
        """The completed share of training; the same in all processes."""
        return share_done(self._settings, self.progress.walks, self.progress.seconds)

    @property
    def finished(self) -> bool:
        """Whether all walks have been taken or all minutes spent; the same in all processes."""
        return self.progress.walks >= self._settings.steps or self.share_done >= 1

    @property
    def extent(self) -> tuple[str, int, int]:
        """Stage, total and progress for a `Watch`: in walks, or in seconds if minutes are limited."""
        if self._settings.minutes is None:
            return "Training", self._settings.steps, self.progress.walks
        budget = math.ceil(60 * self._settings.minutes)
        return "Training, in seconds", budget, round(budget * min(1.0, self.share_done))

    def walk(self) -> Tensor:
        """Train on one minibatch; returns the loss, nats per step and example, a scalar on the device.

        Raises:
            NotFiniteError: A state, the loss or a gradient is not finite, and such walks are not skipped or too many
                were. The weights are those before the update. On a CUDA device the error is raised some walks later, at
                the latest when the weights are used.
            WalkbackError: There is not enough memory.
        """
        started = perf_counter()
        number = self.progress.walks
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(number)
        # Noise differs between processes, but levels must not: all processes must take the same number of steps.
        noise = generator(self._device, self._seed, "noise", number, self._world.rank)
        levels = levels_of_walk(self.model, self._seed, number)
        if self._compiled:
            levels = tensor_levels(levels, self._device)
        self.model.operator.train()
        self.model.process.train()
        # Dropout draws from the global generator, which is seeded for this walk and restored afterwards.
        layers = derive_seed(self._seed, "layers", number, self._world.rank)
        with (
            self._guard.walk(),
            self._within_memory(),
            lent_seed(layers, self._device),
            autocast(self._device, self._precision),
            counted_calls(self.model.operator) if not self._compiled else nullcontext() as calls,
        ):
            with torch.no_grad():
                start = self._engine(self._start, number, noise)
            self._levels.add(start, number)
            learned = self._learn(Path(start, levels, noise), self._update)
        if not self._guard.skipped:
            self._observe(learned.final_state, number)
        skipped = self.progress.skipped + self._guard.skipped
        self.progress = replace(self.progress, walks=number + 1, skipped=skipped)
        self.progress = self.progress.called(calls, self._world.size)
        self._spend(perf_counter() - started)
        if self.progress.walks % _LOOK_EVERY == 0:
            self.settle()
        return learned.loss

    def settle(self) -> None:
        """Synchronize the device and collect divided weights, so that `progress.seconds` and `averaged_model` are
        up to date; called by all processes together.

        Raises:
            WalkbackError: See `walk`.
        """
        if self._device.type != "cpu":
            started = perf_counter()
            wait_for(self._device)
            self._spend(perf_counter() - started)
        self._guard.require()
        self._average.collect()

    def _learning_rate(self, number: int) -> float:
        """Return the learning rate of a walk, which is reduced each time that training goes back."""
        factor = self._settings.rollback_rate**self.progress.rollbacks
        return factor * learning_rate(self._settings, number, self.progress.seconds)

    def go_back(self, spent: Progress) -> None:
        """Continue from the walk that was just restored, with the time and the calls `spent` before going back."""
        self._guard.forget()
        self._optimizer.zero_grad(set_to_none=True)
        self.progress = replace(
            self.progress,
            rollbacks=spent.rollbacks + 1,
            seconds=spent.seconds,
            calls=spent.calls,
            gradient_calls=spent.gradient_calls,
        )

    def _within_memory(self) -> AbstractContextManager[None]:
        size = self._settings.batch_size
        less = " or training.updates = 'batch'" if self._settings.updates == "stacked" else ""
        return within_memory(
            f"training on {size} states at a time (training.batch_size)", f"lower training.batch_size{less}"
        )

    def _spend(self, seconds: float) -> None:
        """Add `seconds` of training; if minutes are limited, all processes use the clock of rank 0 to decide alike."""
        total = self.progress.seconds + seconds
        if self._settings.minutes is not None:
            total = self._world.from_main(total)
        self.progress = replace(self.progress, seconds=total)

    def _start(self, number: int, noise: torch.Generator) -> Start:
        """Return the start of walk `number`: data, with states of persistent chains in the first rows."""
        start = self._starts.at(self._order.batch(number), noise)
        chains = self._chains_of(number)
        return start if chains is None else chains.start(start, number, self._starts.any)

    def _chains_of(self, number: int) -> PersistentChains | None:
        """Return the chains that walk `number` uses; None if it uses none."""
        return self._chains if number >= self._settings.chains.after else None

    def _observe(self, final_state: State | None, number: int) -> None:
        """Let the prior observe s_K of walk `number`, only of rows that start from data: cooling should end there."""
        if final_state is None:
            return
        chains = self._chains_of(number)
        first = 0 if chains is None else chains.rows
        self.model.prior.observe(map_state(lambda leaf: self._world.gather(leaf[first:]), final_state))

    def _update(self, trail: Trail) -> None:
        # All processes must refuse the same updates.
        others = self._world.mean(trail.flag()) if self._world.size > 1 else None
        self.gradient_norm = norm = clip_gradients(self._parameters, self._settings.clip)
        moment = Moment(self.progress.walks, self.progress.updates, trail)
        if self._guard.skips(moment, norm, others, self.progress.skipped):
            self._optimizer.zero_grad(set_to_none=True)
            torch.clear_autocast_cache()
            return
        skipped = self._guard.flag
        if skipped is not None:
            self._optimizer.found_inf = skipped  # type: ignore[attr-defined]  # as torch.amp.GradScaler sets it
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()  # it holds cast copies of the old weights
        self.progress = replace(self.progress, updates=self.progress.updates + 1)
        if self._settings.ema:
            self._average.update()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state needed to resume besides the averaged model and the prior: tensors by name, JSON values.

        Tensors are not copied. Must be called by all processes, whose persistent chains and divided weights are
        gathered, the latter only in the main process. Raises the errors of `settle`.
        """
        self.settle()
        tensors = {
            name: value for name, value in self.model.tensors().items() if not name.startswith("prior.")
        }
        tensors |= {f"optimizer.{name}": value for name, value in moments(self._optimizer).items()}
        if self._chains is not None:
            tensors |= {f"chains.{name}": value for name, value in self._chains.state().items()}
        if self._is_divided:
            tensors = whole_on_main(tensors, self._world.is_main)
        return tensors, {"progress": asdict(self.progress), "seed": self._seed}

    def adopt(self, averaged: Mapping[str, Tensor]) -> None:
        """Load tensors (`Model.tensors`) into `averaged_model`, after training has ended."""
        self.averaged_model.load_tensors(averaged)

    def restore(
        self, averaged: Mapping[str, Tensor], tensors: Mapping[str, Tensor], document: Mapping[str, Any]
    ) -> None:
        """Restore the state of a trainer.

        Args:
            averaged: Tensors of the averaged model (`Model.tensors`).
            tensors: Tensors from `state`.
            document: JSON values from `state`.

        Raises:
            ConfigurationError: The state belongs to another operator, process, prior or seed.
        """
        if document.get("seed") != self._seed:
            raise ConfigurationError(
                f"The training state has seed {document.get('seed')}, and the run {self._seed}: resume with the run's "
                "own training state."
            )
        try:
            # The prior is shared with the averaged model, so it is stored once, among the averaged tensors.
            self.progress = Progress.of(document["progress"])
            self._average.load(averaged, self.progress.updates)
            prior = {name: value for name, value in averaged.items() if name.startswith("prior.")}
            self.model.load_tensors(divided_like(self.model.tensors(), {**tensors, **prior}))
            self._optimizer.state.clear()
            if self.progress.updates:
                load_moments(self._optimizer, self._parameters, _part(tensors, "optimizer."))
            if self._chains is not None:
                self._chains.restore(_part(tensors, "chains."))
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The training state does not fit this run ({one_line(error)}): resume it with the plugins that it was "
                "trained with."
            ) from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
