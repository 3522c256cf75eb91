"""Factorized priors p*: two track the heating walks (Algorithm 1), two are fixed.

    gaussian         p*(s) = Π_d N(z_d; m_d, v_d)             real states, z = s or its coordinates in a basis
    bernoulli        p*(s) = Π_d Bernoulli(s_d; m_d)          binary states
    broad-gaussian   p*(s) = Π_d N(s_d; m_d, (c σ_max)²)      real states
    fair-bits        p*(s) = Π_d Bernoulli(s_d; ρ)            binary states, ρ = ½ unless given

The broad Gaussian uses the data's mean m and σ_max², the largest eigenvalue of their covariance (section 2). The m and
v of the first two start as the data's moments and then track those of s_K. The first walk replaces them; later ones are
averaged in with weight max(1/count, momentum), an exact running mean at first and an exponential one later, since the
operator that produces s_K keeps changing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.kernels import BernoulliKernel, Kernel, NormalKernel
from walkback.priors import Prior
from walkback.state import Space, State, StateSpace, Support, batch_size, leaves
from walkback.support.constraints import Constrained, Constraint, nonnegative, positive, unit_interval
from walkback_paper.bases import BasisName, PixelBasis, RotatedNormalKernel
from walkback_paper.bases import basis as make_basis
from walkback_paper.bases import fit as fit_basis
from walkback_paper.moments import largest_variance
from walkback_paper.parametrized import Positive, single_tensor

Momentum: TypeAlias = Annotated[float, Field(gt=0.0, le=1.0)]

_MIN_VARIANCE = 1e-10
_MIN_PROBABILITY = 1e-4


def _single(space: StateSpace, support: Support, name: str) -> Space:
    return single_tensor(space, support, f"the prior '{name}'", "choose another prior")


class KernelPrior(Prior):
    """A prior whose law is a kernel that depends on no state."""

    @abstractmethod
    def kernel(self, num: int) -> Kernel:
        """Returns the law, for `num` rows."""

    @final
    def log_prob(self, state: State) -> Tensor:
        """log p*(s), `(B,)`, nats."""
        return self.kernel(batch_size(state)).log_prob(state)

    @final
    def sample(self, num: int, generator: torch.Generator) -> State:
        """`(num, *E)`."""
        return self.kernel(num).sample(generator)


class Tracker(torch.nn.Module, Constrained):
    """Running average of batch statistics with weight max(1/count, momentum)."""

    count: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Counts are not negative."""
        return {"count": nonnegative}

    def weight(self) -> Tensor:
        """Returns the weight of the next batch as a tensor, without synchronizing the device."""
        self.count += 1
        return self.count.reciprocal().clamp(min=self.momentum)


@final
class GaussianPrior(KernelPrior, Constrained):
    """Diagonal Gaussian with tracked moments.

    Args:
        space: One real tensor.
        track: Track the moments of s_K; False keeps the data's.
        momentum: Smallest weight of a new batch in the running moments.
        scale: Factor on the standard deviation, for a prior broader than the states.
        basis: Directions that are independent; see `walkback_paper.bases`.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        space: StateSpace,
        *,
        track: bool = True,
        momentum: Momentum = 0.01,
        scale: Positive = 1.0,
        basis: BasisName = "pixels",
    ) -> None:
        super().__init__(space)
        shape = _single(space, "real", "gaussian").shape
        self.basis = make_basis(basis, shape)
        self._track = track
        self._scale = scale
        self.tracker = Tracker(momentum)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Variances are positive."""
        return {"variance": positive}

    def kernel(self, num: int) -> Kernel:
        """Returns the law, for `num` rows."""
        variance = self.variance[None] * self._scale**2
        mean = self.mean.expand(num, *self.mean.shape)
        if isinstance(self.basis, PixelBasis):
            return NormalKernel(mean, variance)
        return RotatedNormalKernel(mean, variance, self.basis)

    @torch.no_grad()
    def fit(self, state: State) -> None:
        """Sets the moments to those of `state` `(N, *E)`."""
        (x,) = leaves(state)
        if isinstance(self.basis, PixelBasis):
            mean, variance = x.mean(0), x.var(0, correction=0).clamp(min=_MIN_VARIANCE)
        else:
            mean, variance = fit_basis(self.basis, x)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.tracker.count.zero_()

    @torch.no_grad()
    def observe(self, state: State) -> None:
        """Averages in the moments of s_K `(B, *E)`."""
        if not self._track:
            return
        (x,) = leaves(state)
        weight = self.tracker.weight().to(self.mean.dtype)
        shift = x.mean(0) - self.mean
        # The variance of a mixture: that within both parts plus that of their means.
        within = torch.lerp(self.variance, self.basis.coordinates(x).var(0, correction=0), weight)
        between = weight * (1 - weight) * self.basis.coordinates(shift[None])[0].square()
        self.variance.copy_((within + between).clamp(min=_MIN_VARIANCE))
        self.mean.add_(weight * shift)


@final
class BernoulliPrior(KernelPrior, Constrained):
    """Independent bits with tracked means.

    Args:
        space: One binary tensor.
        track: Track the means of s_K; False keeps the data's.
        momentum: Smallest weight of a new batch in the running means.
    """

    mean: Tensor

    def __init__(self, space: StateSpace, *, track: bool = True, momentum: Momentum = 0.01) -> None:
        super().__init__(space)
        shape = _single(space, "binary", "bernoulli").shape
        self._track = track
        self.tracker = Tracker(momentum)
        self.register_buffer("mean", torch.full(shape, 0.5))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Means are probabilities."""
        return {"mean": unit_interval}

    def kernel(self, num: int) -> BernoulliKernel:
        """Returns the law, for `num` rows."""
        # Means are kept away from 0 and 1: pixels that are constant in the data would give other states probability 0.
        logits = self.mean.clamp(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY).logit()
        return BernoulliKernel(logits.expand(num, *logits.shape))

    @torch.no_grad()
    def fit(self, state: State) -> None:
        """Sets the means to those of `state` `(N, *E)`."""
        (x,) = leaves(state)
        self.mean.copy_(x.mean(0))
        self.tracker.count.zero_()

    @torch.no_grad()
    def observe(self, state: State) -> None:
        """Averages in the means of s_K `(B, *E)`."""
        if self._track:
            (x,) = leaves(state)
            self.mean.lerp_(x.mean(0), self.tracker.weight().to(self.mean.dtype))


@final
class BroadGaussianPrior(KernelPrior, Constrained):
    """Fixed isotropic Gaussian N(m, (c σ_max)² I) with moments from the data.

    Args:
        space: One real tensor.
        scale: c, factor on the standard deviation.
        std: Standard deviation to use instead of σ_max, in the units of the data; None uses σ_max.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, space: StateSpace, *, scale: Positive = 1.0, std: Positive | None = None) -> None:
        super().__init__(space)
        shape = _single(space, "real", "broad-gaussian").shape
        self._scale = scale
        self._given = std
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.tensor(std or 1.0))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """The standard deviation is positive."""
        return {"std": positive}

    def kernel(self, num: int) -> NormalKernel:
        """Returns the law, for `num` rows."""
        variance = (self._scale * self.std).square().expand(1, *self.mean.shape)
        return NormalKernel(self.mean.expand(num, *self.mean.shape), variance)

    @torch.no_grad()
    def fit(self, state: State) -> None:
        """Sets the mean and the largest variance from `state` `(N, *E)`."""
        (x,) = leaves(state)
        self.mean.copy_(x.mean(0))
        if self._given is None:
            self.std.fill_(math.sqrt(max(largest_variance(x), _MIN_VARIANCE)))

    def observe(self, state: State) -> None:
        """Nothing: this prior does not follow the walks."""


@final
class FairBitsPrior(KernelPrior):
    """Independent bits with a fixed probability of a 1, independent of the data.

    Args:
        space: One binary tensor.
        probability: Probability of a 1; ½ is a fair coin.
    """

    logits: Tensor

    def __init__(
        self, space: StateSpace, *, probability: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    ) -> None:
        super().__init__(space)
        shape = _single(space, "binary", "fair-bits").shape
        logit = math.log(probability / (1 - probability))
        self.register_buffer("logits", torch.full(shape, logit))

    def kernel(self, num: int) -> BernoulliKernel:
        """Returns the law, for `num` rows."""
        return BernoulliKernel(self.logits.expand(num, *self.logits.shape))

    def fit(self, state: State) -> None:
        """Does nothing: the probability is an option."""

    def observe(self, state: State) -> None:
        """Nothing: this prior does not follow the walks."""
