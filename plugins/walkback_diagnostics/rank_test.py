"""Exact rank test of detailed balance (Gandy & Scott, "Unit testing for MCMC and other Monte Carlo methods", 2020).

    x_M ~ π,   M uniform on 1 … L,   L - M steps on: x_{M+1} … x_L,   M - 1 steps more from x_M: x_{M-1} … x_1

If the kernel obeys detailed balance with π, x_1 … x_L is a stationary chain that is independent of M. For any functions
g_i of the whole path, the rank of g_M among g_1 … g_L is then uniform on 1 … L, with ties broken at random. Ranked here
are functions of single states, g_i = f(x_i), and the direction of the path seen from i,

    g_i = Σ_{t ≥ i} d_t - Σ_{t < i} d_t,   d_t = log p(x_{t+1} | x_t) - log p(x_t | x_{t+1}),

which is largest at M for a chain that produces entropy, and independent of M for one that does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from walkback.diagnostics import Subject
from walkback.errors import ConfigurationError
from walkback.known import has_density
from walkback.measuring.traces import trace
from walkback.schedules import Level
from walkback.state import State, batch_size, leaves
from walkback.walk import Start, Transition

_FEWEST_IN_CELL = 5
"""Expected number of chains per rank below which the chi-square limit is a poor approximation."""


@dataclass(frozen=True, slots=True)
class RankTest:
    """Result of the test.

    Attributes:
        counts: Chains by rank 1 … L, `(G, L)`, one row for each ranked function.
        p: p-value of the chi-square statistic, `(G,)`.
        names: Names of the functions.
    """

    counts: Tensor
    p: Tensor
    names: tuple[str, ...]

    @property
    def corrected(self) -> float:
        """Returns the smallest p-value times their number (Bonferroni), at most 1."""
        return min(1.0, float(self.p.min()) * len(self.p))

    @property
    def worst(self) -> int:
        """Returns the index of the function with the smallest p-value."""
        return int(self.p.argmin())


def require_enough_chains(num: int, num_steps: int) -> None:
    """Rejects a test with too few chains for a valid p-value.

    Raises:
        ConfigurationError: Fewer than five chains are expected at a rank.
    """
    least = _FEWEST_IN_CELL * (num_steps + 1)
    if num < least:
        raise ConfigurationError(
            f"Got {num} chains for a rank test of {num_steps} steps, expected at least {least}, or 0 for no test: "
            "raise --set rank_chains=… or lower --set rank_steps=…."
        )


def rank_test(subject: Subject, start: Start, level: Level, num_steps: int, projections: int) -> RankTest:
    """Tests the kernel at a level.

    Args:
        subject: Model, seed, cache and watch.
        start: x_M, `(C, *E)`: independent draws from the stationary distribution.
        level: Level of all steps.
        num_steps: L - 1.
        projections: Number of random directions on which states are projected, in addition to their mean, squared norm
            and the direction of the path.

    Raises:
        WalkbackError: A log-density is not finite.
    """
    draw, state = subject.generator("rank"), start.state
    functions = _functions(subject, state, projections)
    middle = functions(state)

    operator = subject.model.operator
    density = has_density(operator(state, level, start.context).cooling(level))

    def statistics(step: Transition) -> Tensor:
        found = functions(step.target)
        direction = step.log_q - step.log_p if density else found.new_zeros(len(found))
        return torch.cat([found, direction[:, None].double()], 1)

    # M differs between chains. Run all chains for L - 1 steps in both directions and let each use its part: the runs
    # are then batched and do not depend on M, so the cache can resume them. M and the lots that break ties are drawn
    # afterwards.
    onward, backward = (
        trace(subject, start, level, num_steps, statistics, name=f"rank-test-{way}", blocks=num_steps).values
        for way in ("on", "back")
    )
    place = torch.randint(num_steps + 1, (batch_size(state),), generator=draw, device=draw.device).cpu()
    values = paths(middle.cpu(), onward, backward, place)
    values = values if density else values[..., :-1]
    ranks = _ranks(values, place, torch.rand(values.shape, generator=draw, device=draw.device).cpu())
    counts = torch.stack([torch.bincount(row, minlength=num_steps + 1) for row in ranks.T])
    p = [float(stats.chisquare(row.double().numpy()).pvalue) for row in counts]
    names = (*(f"projection {i + 1}" for i in range(projections)), "mean", "squared norm", "direction")
    return RankTest(counts, torch.tensor(p, dtype=torch.float64), names[: len(p)])


def paths(middle: Tensor, onward: Tensor, backward: Tensor, place: Tensor) -> Tensor:
    """Returns g_1 … g_L of each chain.

    Args:
        middle: f(x_M), `(C, F)`.
        onward: f of the states after 1 … L - 1 steps from x_M, followed by log p(forward) - log p(backward) of each
            step: `(L - 1, C, F + 1)`.
        backward: The same for an independent run from x_M, which is placed before it in the path.
        place: M - 1, `(C,)`.

    Returns:
        `(L, C, F + 1)`; the last function is the direction.
    """
    length, chains = len(onward) + 1, torch.arange(len(place))
    steps = torch.arange(length)[:, None] - place  # from x_M, (L, C)
    # One lookup for both runs: |steps| - 1 is the record to read, and `where` drops the one read in vain at M itself.
    offset = (steps.abs() - 1).clamp(min=0)
    found = torch.where((steps > 0)[..., None], onward[offset, chains], backward[offset, chains])
    states = torch.where((steps == 0)[..., None], middle, found[..., :-1])
    # gain[i] is the entropy that the chain produced on the step to or from place i. d_t belongs to the pair (t, t + 1):
    # after M it is the gain at t + 1 (hence the roll). Before M the chain ran against the order of the path, so it is
    # minus the gain at t.
    gain = found[..., -1]
    pairs = torch.where(steps[:-1] >= 0, gain.roll(-1, 0)[:-1], -gain[:-1])
    before = torch.cat([torch.zeros_like(gain[:1]), pairs.cumsum(0)])
    # Functions of single states can miss a chain that circulates in its stationary distribution; this one does not.
    # After M the chain ran along the path and before M against it: if it produces entropy, both sums are positive.
    direction = before[-1] - 2 * before
    return torch.cat([states, direction[..., None]], -1)


def _ranks(values: Tensor, place: Tensor, jitter: Tensor) -> Tensor:
    """Counts the values below that at M, with ties decided by `jitter`: `(C, G)`, 0 … L - 1."""
    chains = torch.arange(len(place))
    own, lot = values[place, chains], jitter[place, chains]
    below = (values < own) | ((values == own) & (jitter < lot))
    return below.sum(0)


def _functions(subject: Subject, state: State, projections: int) -> _Functions:
    size = sum(leaf[0].numel() for leaf in leaves(state))
    draw = subject.generator("rank-directions")
    directions = torch.randn(size, projections, generator=draw, device=draw.device, dtype=torch.float64)
    return _Functions(directions / size**0.5)


@dataclass(frozen=True, slots=True)
class _Functions:
    """Projections, mean and squared norm of all entries of a state, `(C, F)`."""

    directions: Tensor

    def __call__(self, state: State) -> Tensor:
        rows = torch.cat([leaf.double().flatten(1) for leaf in leaves(state)], 1)
        plain = torch.stack([rows.mean(1), rows.square().sum(1)], 1)
        return torch.cat([rows @ self.directions, plain], 1)
