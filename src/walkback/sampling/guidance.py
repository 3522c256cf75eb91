"""Classifier-free guidance: chains of a class k, extrapolated away from unconditional ones.

    μ_w = μ(s) + w (μ(s, k) - μ(s)),    v_w = v(s, k)          likewise for logits

w = 1 is the conditional operator, w = 0 has the mean of the unconditional one, and w > 1 extrapolates: samples are less
diverse and more clearly of the class (Ho and Salimans, 2022, for diffusion models).

Effect on detailed balance: if the steps of both operators are small and each is in balance with its distribution, q(s)
and q(s | k), their drifts are ½ σ² T ∇ log q (Langevin dynamics), so the guided drift is that of

    q_w(s) ∝ q(s)^{1-w} q(s | k)^w

and the guided chain is in balance with q_w to the order of the step. With larger steps its stationary distribution is
unknown: figures of the conditional model, such as its bound, do not describe guided samples.
"""

from __future__ import annotations

import math
from typing import final

import torch

from walkback.errors import ConfigurationError
from walkback.model import Model
from walkback.operators import Conditional, Guidable, Latent, TransitionOperator
from walkback.sampling.wrapped import Wrapped, WrappedLatent
from walkback.schedules import Level
from walkback.state import Context, State
from walkback.support.seeding import generator


class _Guiding(Wrapped):
    """An operator that is evaluated twice at each state, with and without the context."""

    def __init__(self, operator: TransitionOperator, scale: float) -> None:
        super().__init__(operator)
        self.scale = scale

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """Return the guided output at a state; without context, the output of the operator itself."""
        told: Conditional = self.operator(state, level, context)
        if context is None or self.scale == 1:
            return told
        if not isinstance(told, Guidable):
            raise ConfigurationError(
                f"{type(self.operator).__name__} does not support guidance, because its {type(told).__name__} is not "
                "Guidable: leave the guidance out."
            )
        return told.guided(self.operator(state, level), self.scale)


@final
class Guided(_Guiding):
    """An operator without latent units, guided; see `guided`."""


@final
class GuidedLatent(_Guiding, WrappedLatent):
    """An operator with latent units, guided; see `guided`."""


def guided(operator: TransitionOperator, scale: float) -> TransitionOperator:
    """Return the operator with guidance w = `scale`; each step runs the network twice.

    Raises:
        ConfigurationError: The scale is negative or not finite.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ConfigurationError(
            f"Got guidance = {scale}, expected a finite number of at least 0 (1: no guidance)."
        )
    return (GuidedLatent if isinstance(operator, Latent) else Guided)(operator, scale).train(
        operator.training
    )


@torch.no_grad()
def require_guidable(model: Model) -> None:
    """Check, before any work, that a model supports guidance.

    Raises:
        ConfigurationError: The model does not support guidance.
    """
    with model.evaluating():
        (level, *_) = model.levels()
        state = model.prior.sample(1, generator(model.device, 0, "guidance"))
        label = torch.zeros(1, dtype=torch.int64, device=model.device)
        guided(model.operator, 2.0)(state, level, label)
