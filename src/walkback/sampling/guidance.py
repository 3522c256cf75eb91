"""Guidance: chains of a class, further from those of no class than was learned.

    μ_w = μ(s) + w (μ(s, k) - μ(s)),    v_w = v(s, k)          of logits in the same way

w = 1 is the operator told the class, w = 0 has the mean of the one that is told none, and w > 1 goes on in the same
direction: samples are more alike, and more clearly of the class (Ho and Salimans, 2022, for diffusion models).

What it does to detailed balance: where the steps of both are small and each is in balance with its law, q(s) and
q(s | k), their drifts are ½ σ² T ∇ log q (Langevin's), so the guided drift is that of

    q_w(s) ∝ q(s)^{1-w} q(s | k)^w

and the guided chain is in balance with q_w, to the order of the step. With steps that are not small it is in balance
with nothing that is known: figures of a model that is told a class, as its bound, are not those of guided samples.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.model import Model
from walkback.operators import Conditional, Guidable, Latent, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State, StateSpace
from walkback.support.seeding import generator


class _Guiding(TransitionOperator):
    """An operator asked twice at each state, with and without the context."""

    def __init__(self, operator: TransitionOperator, scale: float) -> None:
        super().__init__()
        self.operator = operator
        self.scale = scale

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """The operator at a state, guided by its context; without one it is the operator itself."""
        told: Conditional = self.operator(state, level, context)
        if context is None or self.scale == 1:
            return told
        if not isinstance(told, Guidable):
            raise ConfigurationError(
                f"Got guidance for {type(self.operator).__name__}, whose {type(told).__name__} has none, expected an "
                "operator such as the Gaussian and the Bernoulli ones: leave the guidance out."
            )
        return told.guided(self.operator(state, level), self.scale)

    @property
    def max_temperature(self) -> float:
        """The operator's."""
        return self.operator.max_temperature


@final
class Guided(_Guiding):
    """An operator without latent units, guided; see `guided`."""


@final
class GuidedLatent(_Guiding, Latent):
    """An operator with latent units, guided; see `guided`."""

    def __init__(self, operator: TransitionOperator, scale: float) -> None:
        super().__init__(operator, scale)
        if not isinstance(operator, Latent):
            raise TypeError(f"Got {type(operator).__name__}, expected an operator with latent units.")
        self._latent: Latent = operator

    @property
    def state_space(self) -> StateSpace:
        """The operator's."""
        return self._latent.state_space

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        """The operator's."""
        return self._latent.initial_state(data, generator)

    def visible(self, state: State) -> Tensor:
        """The operator's."""
        return self._latent.visible(state)


def guided(operator: TransitionOperator, scale: float) -> TransitionOperator:
    """The operator with guidance of w = `scale`, at the price of two runs of the network a step.

    Raises:
        ConfigurationError: The scale is negative or no finite number.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ConfigurationError(
            f"Got guidance = {scale}, expected a finite number of at least 0; 1 is none."
        )
    return (GuidedLatent if isinstance(operator, Latent) else Guided)(operator, scale).train(
        operator.training
    )


@torch.no_grad()
def require_guidable(model: Model) -> None:
    """Refuse, before any work, guidance of a model that has none.

    Raises:
        ConfigurationError: It has none.
    """
    with model.evaluating():
        (level, *_) = model.levels()
        state = model.prior.sample(1, generator(model.device, 0, "guidance"))
        label = torch.zeros(1, dtype=torch.int64, device=model.device)
        guided(model.operator, 2.0)(state, level, label)
