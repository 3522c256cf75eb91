"""Trainers of small models, at rest; and all they hold."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeAlias, final

import torch
from tests.toy.data import InMemory
from tests.toy.learned import seeing_gaussian, shaken
from tests.toy.paper import gaussian_conv
from tests.toy.statistics import normal
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.model import Model
from walkback.objectives import AnyObjective, Objective
from walkback.operators import TransitionOperator
from walkback.processes import TiedProcess
from walkback.state import Space, leaves
from walkback.training.trainer import Trainer
from walkback.walk import Transition
from walkback_paper.gaussian import Gaussian
from walkback_paper.objectives import WalkbackLoss
from walkback_paper.priors import GaussianPrior
from walkback_paper.schedules import DoublingSchedule

Updates: TypeAlias = Literal["online", "batch", "stacked"]
MODES: list[Updates] = ["online", "batch", "stacked"]
CPU = torch.device("cpu")
ROWS = 1 + 2 * normal(50, 3)


def small_model(operator: TransitionOperator, shape: tuple[int, ...] = (3,), *, n1: int = 2) -> Model:
    prior = GaussianPrior(Space(shape)).double()
    return Model(operator, DoublingSchedule(n1=n1, max_temperature=8.0), TiedProcess(), prior)


def trainer(
    operator: TransitionOperator | None = None,
    *,
    rows: Tensor = ROWS,
    objective: AnyObjective | None = None,
    seed: int = 0,
    n1: int = 2,
    **settings: Any,
) -> Trainer:
    """A trainer of a small float64 model, at rest."""
    operator = seeing_gaussian() if operator is None else operator
    chosen = TrainingSettings(**{"steps": 20, "batch_size": 8, "lr": 0.01, **settings})
    system = small_model(operator, tuple(rows.shape[1:]), n1=n1)
    system.prior.fit(rows)
    return Trainer(system, objective or WalkbackLoss(), InMemory(rows), chosen, seed=seed, device=CPU)


def weights(worker: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in worker.model.operator.state_dict().items()}


def bf16_trainer(
    updates: Updates, operator: Gaussian, objective: AnyObjective | None = None, **more: Any
) -> Trainer:
    rows = ROWS.float()
    system = small_model(operator, n1=0)
    system.prior.float().fit(rows)
    settings = TrainingSettings(**{"batch_size": 8, "lr": 0.05, "updates": updates, **more})
    chosen = objective or WalkbackLoss()
    return Trainer(system, chosen, InMemory(rows), settings, seed=0, device=CPU, precision="bf16")


def dropout_mlp() -> TransitionOperator:
    return seeing_gaussian(dropout=0.4)


def batchnorm_conv() -> TransitionOperator:
    operator = gaussian_conv(Space((1, 4, 4)), sigma=0.3, channels=(3,), hidden=4)
    return shaken(operator, size=0.1)


def resumed(worker: Trainer, fresh: Trainer) -> Trainer:
    """`fresh`, restored from what `worker` would write to files."""
    averaged = {k: v.clone() for k, v in worker.averaged_model.tensors().items()}
    tensors, document = worker.state()
    fresh.restore(averaged, {k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(document)))
    return fresh


def everything(worker: Trainer) -> dict[str, Tensor]:
    """Weights, their average, moments of Adam and of the prior."""
    return {
        **worker.state()[0],
        **{f"averaged.{k}": v for k, v in worker.averaged_model.tensors().items()},
    }


@final
class Spy(Objective):
    """The walkback loss, noting where walks started and their first step."""

    def __init__(self) -> None:
        self.origins: list[Tensor] = []
        self.firsts: list[Tensor] = []

    def __call__(self, transition: Transition) -> Tensor:
        if transition.level.step == 1:
            self.origins.append(leaves(transition.source)[0])
            self.firsts.append(leaves(transition.target)[0])
        return -transition.log_p
