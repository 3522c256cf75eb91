"""The local rule with most of the walk's own noise averaged out of its target (Rao-Blackwell).

    paper    -log p(s_{t-1} | s_t)    regresses the mean at s_t on s_{t-1}, which is mostly noise of the walk
    here     regresses it on  c_t = E[s_{t-1} | s_t, x] = x + b (s_t - x),   b = a V / (a² V + w)

    a = ⟨h - x, s_{t-1} - x⟩ / |s_{t-1} - x|²,   V = |s_{t-1} - x|² / D,   h and w mean and variance of q(· | s_{t-1})

x is the example that the walk started from, without the noise added to s_0 (`Transition.anchor`). c_t is exact, up to
1/D, if the heating step is h = x + a (s - x), an isotropic contraction to x. Averaged over x, E[c_t | s_t] and
E[s_{t-1} | s_t] are then the same function, but the targets s_{t-1} have noise of variance b w / a per dimension and
the targets c_t do not. If a step contracts to anything else, c_t pulls towards x too strongly. For Gaussian data of
variance u in one of many directions, smoothed by ν, with n ~ U{0 … N1} further steps at T = 1, the fixed point is

    m(s) = α s,   α = b + (1 - b) Σ E[x s_t] / Σ E[s_t²],   b = √(1 - w/ν²)

Its distribution is narrower than the data's: for u = 1, ν = 0.3 and w = ν²/36 by 2 % of the variance with N1 = 0 and by
5 % with N1 = 8; for w = ν²/9 and N1 = 8 by 16 %.

The variance of the cooling kernel is learned from s_{t-1}, as in the paper's rule: it has to cover the noise.

Write m = x' + b (s_t - x'), where x' is the example that the mean m corresponds to. The error of the mean is (1 - b)
(x' - x), so in nats a small step has almost no weight. `weighting = "snr"` divides by 1 - b, after which a row has a
weight of about |x' - x|² / 2V, whatever the size of its step.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, NormalKernel
from walkback.objectives import Objective, Restricted
from walkback.walk import Transition

Weighting: TypeAlias = Literal["likelihood", "snr"]

_TINY = 1e-12
_MAX_WEIGHT = 1e3


@final
class ConditionalLoss(Objective, Restricted):
    """Returns -log p_{T_t}(s_{t-1} | s_t), nats, `(B,)`, with the gradient of the module's target in the mean.

    For operators with normal kernels.

    Args:
        kept: Share of the walk's noise that the target keeps, c_t + kept (s_{t-1} - c_t): 1 is the paper's rule.
        weighting: How the error of the mean is weighted.
    """

    def __init__(
        self, *, kept: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0, weighting: Weighting = "likelihood"
    ) -> None:
        self._kept = kept
        self._weighting: Weighting = weighting

    def __call__(self, transition: Transition) -> Tensor:
        """Returns the loss of one step for each row.

        Raises:
            ConfigurationError: The transition has no anchor, or its kernels are not normal.
        """
        reverse = transition.reverse
        if not isinstance(reverse, NormalKernel):
            raise _unfit(f"a {type(reverse).__name__}")
        loss = -transition.log_p
        with torch.no_grad():
            source, target = transition.source, transition.target
            anchor = transition.anchor
            if not (isinstance(anchor, Tensor) and isinstance(source, Tensor) and isinstance(target, Tensor)):
                raise _unfit(
                    "a transition without anchor" if anchor is None else "a state of several tensors"
                )
            share = _share(source - anchor, transition.forward, anchor)
            conditional = anchor + share * (target - anchor)
            wanted = torch.lerp(conditional, source, self._kept)
            weight = torch.ones_like(share)
            if self._weighting == "snr":
                weight = (1 / (1 - share).clamp(min=_TINY)).clamp(max=_MAX_WEIGHT)
            error = reverse.mean - source
            slope = (weight * (reverse.mean - wanted) - error) / reverse.variance
        turned = (slope * reverse.mean).flatten(1).sum(1)
        return loss + (turned - turned.detach())

    def require_fitting(self, transition: Transition) -> None:
        """Raises ConfigurationError as a call does."""
        self(transition)


def _share(offset: Tensor, forward: Kernel, anchor: Tensor) -> Tensor:
    """Returns b of each row, `(B, 1, …)`, from s_{t-1} - x and q."""
    mean, noise = _moments(forward)
    spread = _mean(offset * offset)
    contraction = _mean((mean - anchor) * offset) / spread.clamp(min=_TINY)
    return contraction * spread / (contraction.square() * spread + noise)


def _moments(kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Returns the mean `(B, *E)` of a normal kernel, and its variance averaged over dimensions, `(B, 1, …)`."""
    if not isinstance(kernel, NormalKernel):
        raise _unfit(f"a {type(kernel).__name__}")
    return kernel.mean, _mean(kernel.variance.expand_as(kernel.mean))


def _mean(values: Tensor) -> Tensor:
    """Averages over event dimensions, which are kept with size 1."""
    return values.flatten(1).mean(1).reshape(-1, *(1,) * (values.dim() - 1))


def _unfit(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"Got {what} for the objective 'conditional', expected normal kernels of one tensor on walks that know their "
        "example: choose a Gaussian operator, or objective.name = 'walkback'."
    )
