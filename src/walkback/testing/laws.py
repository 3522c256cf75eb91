"""Tests of a distribution known only through its samples and log-density.

    constant   E_p[ r(x) / p(x) ] = 1 for any density r whose support p covers; Σ_x p(x) = 1 where x can be enumerated
    shape      E_p[ σ(log p(x') - log p(x)) (h(x') - h(x)) ] = 0 for any h, where x' is x displaced symmetrically

The first detects a wrong normalizing constant; r is a Normal (or independent bits) fitted to half of the samples and
evaluated on the rest. The second is the stationarity of a Metropolis walk with Barker's acceptance: the
distribution of the samples is unchanged if and only if log p is their log-density, up to a constant. Its terms are
bounded, p may have any form, and no gradient is needed. |z| ≤ 4.5 is attributed to chance: a correct distribution fails
a comparison with probability 6.8e-6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from walkback.state import Space, State, dimensions, leaves, map_state, sum_events
from walkback.support.seeding import generator
from walkback.testing.cases import ConformanceError

LIMIT = 4.5
"""Largest |z| attributed to chance."""

_LISTED = 10  # largest number of bits whose 2^D states are enumerated
_FEW_DIMENSIONS = 8
_MANY_ENDS = 3  # largest number of dimensions in which the constant of a truncated density can be estimated
_PROPOSALS = 6
_STEP = 2.0
_LEAST_EFFECTIVE = 100.0
_LEAST_SPREAD = 0.05  # smallest deviation of a bit, so that rare bits do not dominate the features
_ROUNDING = 1e-3


@final
@dataclass(frozen=True, slots=True)
class Law:
    """A distribution to test.

    Attributes:
        name: Its name in messages.
        spaces: Spaces of the leaves of its states.
        sample: Maps a number N and a generator to states `(N, *E)`.
        log_prob: Maps states `(N, *E)` to log-densities `(N,)`, in nats.
    """

    name: str
    spaces: tuple[Space, ...]
    sample: Callable[[int, torch.Generator], State]
    log_prob: Callable[[State], Tensor]

    @property
    def num(self) -> int:
        """Number of samples that a test needs."""
        return 4096 if dimensions(self.spaces) <= _FEW_DIMENSIONS else 2048


def z_score(values: Tensor, expected: float = 0.0) -> float:
    """Return (mean - expected) / standard error of independent `values` `(N,)`, with an allowance for rounding."""
    values = values.double()
    # The second term keeps exact agreement (variance 0) from dividing rounding errors by 0.
    error = math.sqrt(float(values.var()) / len(values) + (_ROUNDING * 0.1) ** 2)
    return float(values.mean() - expected) / error


def require_normalized(law: Law) -> bool:
    """Raise an error if the integral of a density is not 1.

    Returns:
        Whether the integral could be estimated: in many dimensions, the estimate is too imprecise for a density that is
        far from Normal.

    Raises:
        ConformanceError: The normalizing constant is wrong.
    """
    discrete = all(space.support != "real" for space in law.spaces)
    if discrete and dimensions(law.spaces) <= _LISTED:
        total = float(law.log_prob(_every_state(law.spaces)).double().exp().sum())
        wrong = not abs(total - 1) <= _ROUNDING
    else:
        # For any normalized r within the support of p, the mean of r / p over samples is ∫ r / ∫ p = 1 / ∫ p. A few
        # large weights would hide an error, hence the least effective number of samples.
        weights = _fitted_weights(law)
        if weights is None or float(weights.sum()) ** 2 < _LEAST_EFFECTIVE * float(weights.square().sum()):
            return False
        total = 1 / float(weights.mean())
        wrong = not abs(z_score(weights, 1.0)) <= LIMIT
    if wrong:
        raise ConformanceError(
            f"Got log_prob of the {law.name} whose integral is {total:.3g}, expected 1: the normalizing constant is "
            "wrong."
        )
    return True


def require_samples(law: Law) -> None:
    """Raise ConformanceError if samples do not follow the density; its normalizing constant is ignored."""
    noise = generator("cpu", 0, "samples")
    state = law.sample(law.num, noise)
    here = _finite(law, state)
    ruler = _Ruler(state, law.spaces)
    features = ruler.features(state)
    moved = torch.zeros(4, law.num, dtype=torch.float64)
    for _ in range(_PROPOSALS):
        proposal = ruler.displace(state, noise)
        there = law.log_prob(proposal).double()
        if bool(there.isnan().any()):
            raise ConformanceError(
                f"Got log_prob = nan of the {law.name} beside its own samples, expected a number or -inf."
            )
        # Barker's acceptance probability p' / (p + p') keeps the density unchanged, so for samples of the density no
        # feature changes in expectation. It uses ratios only, so the normalizing constant drops out.
        accepted = (there - here).sigmoid()
        change = torch.stack([*(ruler.features(proposal) - features), there - here])
        # A proposal outside the support has there = -inf and is never accepted, but 0 · -inf would be NaN.
        moved += torch.where(accepted > 0, accepted * change, 0.0)
    scores = {
        name: z_score(row / _PROPOSALS)
        for name, row in zip(("spread", "location", "correlation", "density"), moved, strict=True)
    }
    worst = max(scores, key=lambda name: abs(scores[name]))
    if abs(scores[worst]) > LIMIT:
        raise ConformanceError(
            f"Got samples of the {law.name} whose {worst} does not match its log_prob (z = {scores[worst]:.1f}), "
            "expected samples of the density: sample and log_prob disagree on the mean, the variance or the "
            "temperature."
        )


def require_law(law: Law) -> None:
    """Raise ConformanceError unless a density is normalized, as far as that can be estimated, and samples follow it."""
    require_normalized(law)
    require_samples(law)


def _finite(law: Law, state: State) -> Tensor:
    found = law.log_prob(state).double()
    if not bool(found.isfinite().all()):
        raise ConformanceError(
            f"Got log_prob = {float(found[~found.isfinite()][0])} of the {law.name} at its own sample, "
            "expected finite numbers: a sample has positive density."
        )
    return found


def _every_state(spaces: tuple[Space, ...]) -> State:
    """Return all states of bits or symbols, `(N, *E)`."""
    places = [
        torch.eye(space.shape[-1]) if space.support == "one-hot" else torch.tensor([[0.0], [1.0]])
        for space in spaces
        for _ in range(space.size // (space.shape[-1] if space.support == "one-hot" else 1))
    ]
    table = torch.stack([torch.cat(row) for row in itertools.product(*places)])
    parts = torch.split(table, [space.size for space in spaces], dim=1)
    found = tuple(part.reshape(-1, *space.shape) for part, space in zip(parts, spaces, strict=True))
    return found if len(found) > 1 else found[0]


def _fitted_weights(law: Law) -> Tensor | None:
    """Return r(x) / p(x) `(N / 2,)` for half of the samples, with r fitted to the other half; None if r cannot fit."""
    state = law.sample(law.num, generator("cpu", 0, "normalized"))
    log_p = _finite(law, state)
    half = law.num // 2
    real = sum(space.size for space in law.spaces if space.support == "real")
    log_r = torch.zeros(half, dtype=torch.float64)
    for leaf, space in zip(leaves(state), law.spaces, strict=True):
        # Fit on one half and evaluate on the other: weights of the samples that r was fitted to would be biased.
        fitted, judged = leaf[:half].double(), leaf[half:].double()
        mean = fitted.mean(0)
        if space.support == "binary":
            log_r += sum_events(torch.xlogy(judged, mean) + torch.xlogy(1 - judged, 1 - mean))
            continue
        if space.support == "one-hot":
            log_r += sum_events(torch.xlogy(judged, mean))
            continue
        deviation = fitted.std(0)
        if not bool((deviation > 0).all()):
            raise ConformanceError(
                f"Got samples of the {law.name} that are all equal in a dimension, expected a density."
            )
        standard = (judged - mean) / deviation
        if real > _MANY_ENDS and abs(float(standard.pow(4).mean()) - 3) > 0.3:
            return None
        # E_p[r / p] = 1 needs r within the support of p, so r is narrower than the samples: it then stays clear of the
        # ends of light tails. The variance of r / p grows with D, so in many dimensions r is only a little narrower.
        shrunk = 0.25 if real <= _MANY_ENDS else 1 - 0.7 / math.sqrt(real)
        log_r -= 0.5 * sum_events(
            standard.square() / shrunk + math.log(2 * math.pi * shrunk) + 2 * deviation.log()
        )
    return (log_r - log_p[half:]).exp()


@final
class _Ruler:
    """Displaces and measures states, in units of the spread of the samples.

    Args:
        state: Samples, `(N, *E)`.
        spaces: Spaces of the leaves.
    """

    def __init__(self, state: State, spaces: tuple[Space, ...]) -> None:
        self._spaces = spaces
        self._size = dimensions(spaces)
        self._means = [leaf.double().mean(0) for leaf in leaves(state)]
        self._spreads = [self._spread(leaf, space) for leaf, space in zip(leaves(state), spaces, strict=True)]
        # Location is measured along one fixed diagonal of random signs: a sum of D dimensions needs no correction for
        # D comparisons, and random signs keep deviations of different dimensions from cancelling systematically.
        signs = generator("cpu", 0, "signs")
        self._signs = [torch.randint(0, 2, mean.shape, generator=signs) * 2 - 1 for mean in self._means]
        self._signs[0].flatten()[0] = 1

    def features(self, state: State) -> Tensor:
        """Return spread, location and |location| (sensitive to correlations) of each state, `(3, N)`."""
        spread: Tensor | float = 0.0
        location: Tensor | float = 0.0
        for leaf, mean, deviation, signs in zip(
            leaves(state), self._means, self._spreads, self._signs, strict=True
        ):
            standard = (leaf.double() - mean) / deviation
            spread = spread + sum_events(standard.square())
            location = location + sum_events(standard * signs)
        along = torch.as_tensor(location)
        return torch.stack([(torch.as_tensor(spread) / self._size).sqrt(), along, along.abs()])

    def displace(self, state: State, noise: torch.Generator) -> State:
        """Move each state by a step as likely as its opposite: every real dimension, or one bit or symbol."""
        parts = zip(leaves(state), self._spaces, self._spreads, strict=True)
        kinds = len({space.support == "real" for space in self._spaces})
        rows = len(leaves(state)[0])
        # With both kinds of leaves, a row moves in only one of them: a rejected flip would hide a step in the other.
        turn = torch.rand(rows, generator=noise) < 0.5
        moved = []
        for leaf, space, spread in parts:
            chosen = torch.ones_like(turn) if kinds == 1 else turn ^ (space.support != "real")
            step = self._step(leaf, space, spread, noise)
            moved.append(torch.where(chosen.reshape(-1, *(1,) * (leaf.dim() - 1)), step, leaf))
        return tuple(moved) if isinstance(state, tuple) else moved[0]

    def _step(self, leaf: Tensor, space: Space, spread: Tensor, noise: torch.Generator) -> Tensor:
        if space.support == "binary":
            bit = torch.randint(space.size, (len(leaf), 1), generator=noise)
            flat = leaf.flatten(1).clone()
            return flat.scatter(1, bit, 1 - flat.gather(1, bit)).reshape(leaf.shape)
        if space.support == "one-hot":
            return _with_another_symbol(leaf, noise)
        size = _STEP / math.sqrt(self._size)
        step = torch.randn(leaf.shape, generator=noise, dtype=torch.float64) * spread * size
        return leaf + step.to(leaf.dtype)

    @staticmethod
    def _spread(leaf: Tensor, space: Space) -> Tensor:
        least = 1e-12 if space.support == "real" else _LEAST_SPREAD
        return leaf.double().std(0).clamp(min=least)


def _with_another_symbol(leaf: Tensor, noise: torch.Generator) -> Tensor:
    """Return one-hot states `(B, *E)` with one symbol of each replaced; all replacements are equally likely."""
    rows = leaf.flatten(1, -2) if leaf.dim() > 2 else leaf[:, None]
    kinds = leaf.shape[-1]
    place = torch.randint(rows.shape[1], (len(leaf),), generator=noise)
    on = torch.randint(1, max(2, kinds), (len(leaf),), generator=noise)
    moved, row = rows.clone(), torch.arange(len(leaf))
    moved[row, place] = one_hot((rows[row, place].argmax(-1) + on) % kinds, kinds).to(leaf.dtype)
    return moved.reshape(leaf.shape)


def repeated(row: State, num: int) -> State:
    """Repeat one state `(1, *E)` `num` times: `(num, *E)`."""
    return map_state(lambda leaf: leaf.expand(num, *leaf.shape[1:]).clone(), row)
