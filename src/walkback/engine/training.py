"""Training: heat a minibatch, and learn to walk every step back.

for each walk: s_0 from data (some from own chains) → transitions t = 1 … K → updates of the weights
s_K of the walks from data → prior
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any, final

import torch
from torch import Tensor, nn

from walkback.configuration.settings import TrainingSettings
from walkback.data import Centred, Dataset
from walkback.engine.batches import BatchOrder
from walkback.engine.compiling import require_same_gradients
from walkback.engine.devices import Precision, autocast, wait_for
from walkback.engine.distributed import World
from walkback.engine.finite import FiniteCheck
from walkback.engine.optimization import (
    WeightAverage,
    build_optimizer,
    clip_gradients,
    learning_rate,
    load_moments,
    moments,
    share_done,
)
from walkback.engine.own_chains import OwnChains
from walkback.engine.updates import Start, updates_for
from walkback.errors import ConfigurationError
from walkback.memory import send, within_memory
from walkback.model import Model
from walkback.objectives import AnyObjective, PathObjective
from walkback.operators import initial_state
from walkback.schedules import Levels, tensor_levels
from walkback.seeding import derive_seed, generator, lent_seed
from walkback.state import State, map_state
from walkback.text import one_line

_LOOK_EVERY = 100
"""Walks after which a device is waited for at the latest, to see whether its updates were finite."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training has come: walks, optimizer updates, and seconds spent walking.

    A CUDA device works on after a walk has returned: the seconds lack what it has not done until `Trainer.settle`.
    """

    walks: int = 0
    updates: int = 0
    seconds: float = 0.0


def levels_of_walk(model: Model, seed: int, number: int) -> Levels:
    """The levels that walk `number` of a run climbs, drawn by the schedule from the run's seed."""
    return model.levels(generator("cpu", seed, "schedule", number))


@final
class Trainer:
    """Trains a model on a prepared data set, one walk at a time.

    Everything random is a function of (seed, walk number), so a trainer restored at walk w goes on exactly as one
    that was never stopped.

    Args:
        model: The model to train, on `device`.
        objective: The loss of a step, or of a walk.
        dataset: Prepared data.
        settings: See `TrainingSettings`.
        seed: The run's seed.
        device: Where walks run.
        precision: Precision of the networks.
        compiled: Whether the operator is compiled.
        world: This process among others.
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
        self._dataset = dataset
        self._settings = settings
        self._seed = seed
        self._device = device
        self._precision: Precision = precision
        self._compiled = compiled
        self._world = world or World()
        self._examples = dataset.examples("train")
        self._order = BatchOrder(
            len(self._examples), settings.batch_size, seed, rank=self._world.rank, world_size=self._world.size
        )
        self._world.copy_from_main(model.operator, model.prior)
        # Only a walk that is differentiated to its end reaches parameters of the prior.
        learning = [model.operator, *([model.prior] if isinstance(objective, PathObjective) else [])]
        self._parameters: list[nn.Parameter] = [
            p for module in learning for p in module.parameters() if p.requires_grad
        ]
        self._optimizer = build_optimizer(self._parameters, settings)
        self._average = WeightAverage(model.operator, settings.ema)
        self._finite = FiniteCheck(device)
        self._updates = updates_for(settings, objective, model, dataset.info.space.size)
        self._own: OwnChains | None = None
        if settings.own_starts:
            self._own = OwnChains(model, settings, seed, self._world, compiled=compiled)

    @property
    def averaged_model(self) -> Model:
        """The model with averaged weights: the one to evaluate and to sample; raises as `settle`."""
        self._finite.require()
        return replace(self.model, operator=self._average.operator) if self._settings.ema else self.model

    @property
    def share_done(self) -> float:
        """The share of training that is done; the same on all processes."""
        return share_done(self._settings, self.progress.walks, self.progress.seconds)

    @property
    def finished(self) -> bool:
        """Whether all walks have been taken, or all minutes spent; the same on all processes."""
        return self.progress.walks >= self._settings.steps or self.share_done >= 1

    @property
    def extent(self) -> tuple[str, int, int]:
        """The stage for a `Reporter`, how much it is in all and how much is done: walks, or seconds of the minutes."""
        if self._settings.minutes is None:
            return "Training", self._settings.steps, self.progress.walks
        budget = math.ceil(60 * self._settings.minutes)
        return "Training, in seconds", budget, round(budget * min(1.0, self.share_done))

    def check_compiled(self) -> None:
        """Refuse to train an operator that has been compiled wrongly; see `engine.compiling`."""
        if not self._compiled or self.finished:
            return
        noise = generator(self._device, self._seed, "check")
        levels = tensor_levels(self.model.levels(), self._device)
        with autocast(self._device, self._precision):
            state = self._starting_states(self._examples_of(self._order.batch(self.progress.walks)), noise)
            require_same_gradients(self.model.operator, state, levels[len(levels) // 2], self._seed)

    def walk(self) -> Tensor:
        """Train on one minibatch; returns the loss, nats per step and example, a scalar on the device.

        Raises:
            WalkbackError: The loss or a gradient is not finite; the weights are those of before the update. On a CUDA
                device some walks later, at the latest when weights are asked for. Or memory does not suffice.
        """
        started = perf_counter()
        number = self.progress.walks
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, number, self.progress.seconds)
        noise = generator(self._device, self._seed, "noise", number, self._world.rank)
        levels = levels_of_walk(self.model, self._seed, number)
        if self._compiled:
            levels = tensor_levels(levels, self._device)
        self.model.operator.train()
        layers = derive_seed(self._seed, "layers", number, self._world.rank)
        with self._within_memory(), lent_seed(layers, self._device), autocast(self._device, self._precision):
            learned = self._updates.learn(self._start(number, noise), levels, noise, self._update)
        self._observe(learned.final_state, number)
        self.progress = replace(self.progress, walks=number + 1)
        self._spend(perf_counter() - started)
        if self.progress.walks % _LOOK_EVERY == 0:
            self.settle()
        return learned.loss

    def settle(self) -> None:
        """Wait for the device: then `progress.seconds` are all that it took; called by all processes together.

        Raises:
            WalkbackError: See `walk`.
        """
        if self._device.type != "cpu":
            started = perf_counter()
            wait_for(self._device)
            self._spend(perf_counter() - started)
        self._finite.require()

    def _within_memory(self) -> AbstractContextManager[None]:
        size = self._settings.batch_size
        less = " or training.updates = 'batch'" if self._settings.updates == "stacked" else ""
        return within_memory(
            f"training on {size} states at a time (training.batch_size)", f"lower training.batch_size{less}"
        )

    def _spend(self, seconds: float) -> None:
        """Count `seconds` of training; where they decide something, all processes go by the clock of rank 0."""
        total = self.progress.seconds + seconds
        if self._settings.minutes is not None:
            total = self._world.from_main(total)
        self.progress = replace(self.progress, seconds=total)

    def _start(self, number: int, noise: torch.Generator) -> Start:
        """s_0 of the walk: data, and states of own chains in the first rows, which are their own anchors."""
        examples = self._examples_of(self._order.batch(number))
        origin = self._starting_states(examples, noise)
        anchor = self._anchor(examples, origin)
        own = self._own_of(number)
        if own is None:
            return Start(origin, anchor)
        origin, first = own.start(origin, number, self._any_states), own.rows
        return Start(origin, map_state(lambda s, x: torch.cat([s[:first], x[first:]]), origin, anchor))

    def _anchor(self, examples: Tensor, origin: State) -> State:
        """What `origin` scatters around; itself where the data do not tell, or the state has latent parts."""
        if isinstance(origin, Tensor) and isinstance(self._dataset, Centred):
            return self._dataset.centres(examples)
        return origin

    def _own_of(self, number: int) -> OwnChains | None:
        """The chains that give walk `number` some of its starts, if any do."""
        return self._own if number >= self._settings.own_after else None

    def _examples_of(self, rows: Tensor) -> Tensor:
        """The training examples numbered `rows` `(N,)` in stored form `(N, *E)`, on the device."""
        return send(self._examples[rows], self._device)

    def _starting_states(self, examples: Tensor, noise: torch.Generator) -> State:
        """s_0 of `examples` `(N, *E)`, which are on the device."""
        state, _ = initial_state(self.model.operator, self._dataset.states(examples, noise), noise)
        return state

    def _any_states(self, num: int, noise: torch.Generator) -> State:
        """s_0 of `num` training examples drawn at random."""
        rows = torch.randint(len(self._examples), (num,), generator=noise, device=noise.device)
        return self._starting_states(self._examples_of(rows.cpu()), noise)

    def _observe(self, final_state: State, number: int) -> None:
        """Show s_K of walk `number` to the prior: of its rows from data alone, because cooling is to end at data."""
        chains = self._own_of(number)
        own = 0 if chains is None else chains.rows
        self.model.prior.observe(self._world.gather(map_state(lambda leaf: leaf[own:], final_state)))

    def _update(self, loss: Tensor) -> None:
        self._world.average_gradients(self._parameters)
        norm = clip_gradients(self._parameters, self._settings.clip)
        skipped = self._finite.look(loss, norm, self.progress.walks)
        if skipped is not None:
            self._optimizer.found_inf = skipped  # type: ignore[attr-defined]  # as torch.amp.GradScaler gives it
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()  # it would go on with copies of the old weights
        self.progress = replace(self.progress, updates=self.progress.updates + 1)
        if self._settings.ema:
            self._average.update(self.model.operator)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What resuming needs beside the averaged model and the prior: tensors by name (live ones), and JSON values.

        Called by all processes together: own chains of all of them are collected. Raises as `settle`.
        """
        self.settle()
        tensors = {f"operator.{name}": value for name, value in self.model.operator.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in moments(self._optimizer).items()}
        if self._own is not None:
            tensors |= {f"own.{name}": value for name, value in self._own.state().items()}
        return tensors, {"progress": asdict(self.progress), "seed": self._seed}

    def adopt(self, averaged: Mapping[str, Tensor], prior: Mapping[str, Tensor]) -> None:
        """Let `averaged_model` be another one, given by the state dicts of operator and prior; training has ended."""
        self.averaged_model.operator.load_state_dict(averaged)
        self.model.prior.load_state_dict(prior)

    def restore(
        self,
        averaged: Mapping[str, Tensor],
        prior: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        document: Mapping[str, Any],
    ) -> None:
        """Go on where a trainer stopped.

        Args:
            averaged: State dict of the averaged model's operator.
            prior: State dict of the prior.
            tensors: From `state`.
            document: From `state`.

        Raises:
            ConfigurationError: The state belongs to another operator, prior or seed.
        """
        if document.get("seed") != self._seed:
            raise ConfigurationError(
                f"Got a training state of seed {document.get('seed')}, expected the run's own: {self._seed}."
            )
        try:
            self.model.operator.load_state_dict(_part(tensors, "operator."))
            self._average.operator.load_state_dict(averaged)
            self.model.prior.load_state_dict(prior)
            progress = document["progress"]
            self.progress = Progress(
                int(progress["walks"]), int(progress["updates"]), float(progress["seconds"])
            )
            if self.progress.updates:
                load_moments(self._optimizer, self._parameters, _part(tensors, "optimizer."))
            if self._own is not None:
                self._own.restore(_part(tensors, "own."))
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"Got a training state that does not fit this run ({one_line(error)}): "
                "resume it with the plugins that it was trained with."
            ) from error
        self._average.resume(self.progress.updates)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
