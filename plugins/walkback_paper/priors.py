"""Factorized priors p* that follow the heating walks (Algorithm 1).

    p*(s) = Π_d N(s_d; m_d, v_d)          real states
    p*(s) = Π_d Bernoulli(s_d; m_d)       binary states

m and v start as the data's moments and then track those of s_K: the first walk replaces them, later ones are averaged
in with weight max(1/count, momentum), an exact running mean at first and an exponential one later, since the operator
that makes the s_K keeps changing.
"""

from __future__ import annotations

from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, NormalKernel
from walkback.priors import Prior
from walkback.state import Space, State, StateSpace, leaves

Momentum = Annotated[float, Field(gt=0.0, le=1.0)]

_MIN_VARIANCE = 1e-10
_MIN_PROBABILITY = 1e-4


def _single(space: StateSpace, support: str, name: str) -> Space:
    if isinstance(space, tuple) or space.support != support:
        found = f"a state of {len(space)} parts" if isinstance(space, tuple) else f"{space.support} states"
        raise ConfigurationError(
            f"Got {found} for the prior '{name}', expected one {support} tensor: choose another prior."
        )
    return space


class _Tracker(torch.nn.Module):
    """Running average of batch statistics with weight max(1/count, momentum)."""

    count: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def weight(self) -> Tensor:
        """The weight of the next batch; stays on the device."""
        self.count += 1
        return self.count.reciprocal().clamp(min=self.momentum)


@final
class GaussianPrior(Prior):
    """Diagonal Gaussian with tracked moments.

    Args:
        space: One real tensor.
        track: Follow the moments of s_K; False keeps the data's.
        momentum: Smallest weight of a new batch in the running moments.
        scale: Factor on the standard deviation, for a prior broader than the states.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        space: StateSpace,
        *,
        track: bool = True,
        momentum: Momentum = 0.01,
        scale: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0,
    ) -> None:
        super().__init__(space)
        shape = _single(space, "real", "gaussian").shape
        self._track = track
        self._scale = scale
        self.tracker = _Tracker(momentum)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))

    def _kernel(self, num: int) -> NormalKernel:
        variance = self.variance * self._scale**2
        return NormalKernel(self.mean.expand(num, *self.mean.shape), variance[None])

    def log_prob(self, state: State) -> Tensor:
        """log p*(s), `(B,)`, nats."""
        (x,) = leaves(state)
        return self._kernel(x.shape[0]).log_prob(x)

    def sample(self, num: int, generator: torch.Generator) -> State:
        """`(num, *E)`."""
        return self._kernel(num).sample(generator)

    @torch.no_grad()
    def fit(self, state: State) -> None:
        """Take the moments of `state` `(N, *E)`."""
        (x,) = leaves(state)
        self.mean.copy_(x.mean(0))
        self.variance.copy_(x.var(0, correction=0).clamp(min=_MIN_VARIANCE))
        self.tracker.count.zero_()

    @torch.no_grad()
    def observe(self, state: State) -> None:
        """Average in the moments of s_K `(B, *E)`."""
        if not self._track:
            return
        (x,) = leaves(state)
        weight = self.tracker.weight().to(self.mean.dtype)
        shift = x.mean(0) - self.mean
        # The variance of a mixture: within both parts, plus that of their means.
        within = torch.lerp(self.variance, x.var(0, correction=0), weight)
        self.variance.copy_((within + weight * (1 - weight) * shift.square()).clamp(min=_MIN_VARIANCE))
        self.mean.add_(weight * shift)


@final
class BernoulliPrior(Prior):
    """Independent bits with tracked means.

    Args:
        space: One binary tensor.
        track: Follow the means of s_K; False keeps the data's.
        momentum: Smallest weight of a new batch in the running means.
    """

    mean: Tensor

    def __init__(self, space: StateSpace, *, track: bool = True, momentum: Momentum = 0.01) -> None:
        super().__init__(space)
        shape = _single(space, "binary", "bernoulli").shape
        self._track = track
        self.tracker = _Tracker(momentum)
        self.register_buffer("mean", torch.full(shape, 0.5))

    def _kernel(self, num: int) -> BernoulliKernel:
        # Pixels that never change in the data get a little doubt, so that no state has probability 0.
        logits = self.mean.clamp(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY).logit()
        return BernoulliKernel(logits.expand(num, *logits.shape))

    def log_prob(self, state: State) -> Tensor:
        """log p*(s), `(B,)`, nats."""
        (x,) = leaves(state)
        return self._kernel(x.shape[0]).log_prob(x)

    def sample(self, num: int, generator: torch.Generator) -> State:
        """`(num, *E)`."""
        return self._kernel(num).sample(generator)

    @torch.no_grad()
    def fit(self, state: State) -> None:
        """Take the means of `state` `(N, *E)`."""
        (x,) = leaves(state)
        self.mean.copy_(x.mean(0))
        self.tracker.count.zero_()

    @torch.no_grad()
    def observe(self, state: State) -> None:
        """Average in the means of s_K `(B, *E)`."""
        if self._track:
            (x,) = leaves(state)
            self.mean.lerp_(x.mean(0), self.tracker.weight().to(self.mean.dtype))
