"""Losses of predicted data under Gaussian noise that does not depend on the operator.

A step's mean is that of q(s_{t-1} | s_t, x̂) for some x̂, whatever the form of the operator:

    μ - E[s_{t-1} | s_t, s_0] = c (x̂ - s_0),   c = A_{t-1} v_t / V_t           (`walkback.noising.gaussian`)

    loss = w_t |x̂ - s_0|² + λ KL

    w_t  simple   A_t² / V_t                        = |ε - ε̂|² (Ho et al. 2020)
         snr      min(A_t² / V_t, γ / σ_d²)         min-SNR-γ (Hang et al. 2023)
         bound    the loss is the term of the bound, as with the objective `kl`

With λ > 0 the variance learns from the bound's term, in which the mean is a constant: the hybrid loss of Nichol and
Dhariwal (2021), whose λ is K / 1000 here.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import DiscretizedKernel, NormalKernel
from walkback.noising import GaussianNoise
from walkback.objectives import Objective, Restricted
from walkback.state import leaves, sum_events
from walkback.walk import Transition

Weight: TypeAlias = Literal["simple", "snr", "bound"]


@final
class DenoisingLoss(Objective, Restricted):
    """Squared error of the predicted data, `(B,)`; see the module's equations.

    Args:
        weight: w_t.
        gamma: γ.
        bound: λ, weight of the bound's term for learned variances.
    """

    def __init__(
        self,
        *,
        weight: Weight = "simple",
        gamma: Annotated[float, Field(gt=0.0)] = 5.0,
        bound: Annotated[float, Field(ge=0.0)] = 0.0,
    ) -> None:
        self._weight: Weight = weight
        self._gamma = gamma
        self._bound = bound

    def __call__(self, transition: Transition) -> Tensor:
        """Returns the loss of one step for each row.

        Raises:
            ConfigurationError: The noise is not Gaussian, or the reverse kernel is not normal.
        """
        noise, posterior, reverse = _parts(transition)
        if self._weight == "bound":
            return _term(transition)
        (state,) = leaves(transition.target)
        of_origin, _, _ = noise.posterior_weights(transition.level, state)
        error = (reverse.mean - posterior.mean) / of_origin
        loss = sum_events(self._of_level(noise, transition, state) * error.square())
        if not self._bound:
            return loss
        normal = NormalKernel(reverse.mean.detach(), reverse.variance)
        last = transition.reverse
        constant = last.around(normal) if isinstance(last, DiscretizedKernel) else normal
        return loss + self._bound * _term(transition._replace(reverse=constant))

    def require_fitting(self, transition: Transition) -> None:
        """Raises ConfigurationError as a call does, and for a variance that would not be learned."""
        _, _, reverse = _parts(transition)
        if reverse.variance.requires_grad and self._weight != "bound" and not self._bound:
            raise ConfigurationError(
                f"Got objective.weight = '{self._weight}' with a learned variance, which it does not train, expected "
                "objective.bound > 0, objective.weight = 'bound', or operator.variance = 'fixed'."
            )
        self(transition)

    def _of_level(self, noise: GaussianNoise, transition: Transition, state: Tensor) -> Tensor:
        """Returns w_t, `(1 or B, 1, …)`."""
        moments = noise.of_marginal(transition.level, state)
        ratio = moments.signal.square() / moments.variance
        if self._weight == "simple":
            return ratio
        return torch.minimum(ratio, self._gamma / noise.spread.to(state.dtype))


def _parts(transition: Transition) -> tuple[GaussianNoise, NormalKernel, NormalKernel]:
    """Returns the noise, its posterior and the reverse kernel of a transition."""
    noise, posterior, reverse = transition.noise, transition.posterior, transition.reverse
    if isinstance(reverse, DiscretizedKernel):
        reverse = reverse.normal
    if not isinstance(noise, GaussianNoise) or not isinstance(posterior, NormalKernel):
        raise ConfigurationError(
            "The objective 'denoising' needs Gaussian noise that does not depend on the operator: choose process.name "
            "= 'diffusion' with process.noise = 'exploding' or 'preserving', or objective.name = 'walkback'."
        )
    if not isinstance(reverse, NormalKernel):
        raise ConfigurationError(
            f"The objective 'denoising' needs normal kernels, and got {type(reverse).__name__}: choose operator.mean = "
            "'epsilon', 'x', 'v' or 'preconditioned', or objective.name = 'kl'."
        )
    return noise, posterior, reverse


def _term(transition: Transition) -> Tensor:
    """Returns the term of the bound, which is known where the posterior is."""
    term = transition.term
    if term is None:
        raise ConfigurationError("The posterior of this process is unknown.")
    return term
