"""Checks of kernels, shared by operators and processes.

A `Source` is where kernels come from: a state and a level → p_T(· | s), or q_T(· | s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

import torch

from walkback.kernels import Kernel, expectation
from walkback.levels import stack_levels
from walkback.schedules import Level, levels_from
from walkback.state import State, StateSpace, batch_size, concatenate, leaves, map_state, spaces
from walkback.support.seeding import generator
from walkback.testing.cases import ConformanceError, NotApplicable
from walkback.testing.laws import Law, repeated, require_normalized, require_samples
from walkback.testing.probes import (
    describe,
    drawn_from,
    require_close,
    require_rows,
    require_state,
    same,
    untouched,
)

COLD, HOT = levels_from([1.0, 4.0])
_BATCHES = (1, 2, 7)


@final
@dataclass(frozen=True, slots=True)
class Source:
    """Where kernels come from.

    Attributes:
        role: "cooling" or "heating".
        space: Space of the states.
        states: Maps a number N to states `(N, *E)` to condition on.
        kernel: Maps a state and a level to the kernel there.
    """

    role: str
    space: StateSpace
    states: Callable[[int], State]
    kernel: Callable[[State, Level], Kernel]

    @property
    def name(self) -> str:
        """Name of its kernels in messages."""
        return f"{self.role} kernel on {describe(self.space)}"

    def law(self, level: Level) -> Law:
        """Return the distribution at one state; batches of it repeat that state."""
        row = self.states(1)
        kernels: dict[int, Kernel] = {}

        def at(num: int) -> Kernel:
            if num not in kernels:
                kernels[num] = self.kernel(repeated(row, num), level)
            return kernels[num]

        return Law(
            f"{self.name} at T = {level.temperature}",
            spaces(self.space),
            lambda num, noise: at(num).sample(noise),
            lambda state: at(batch_size(state)).log_prob(state),
        )


def shapes(source: Source) -> None:
    """Check that samples are `(B, *E)` and detached, and log_prob `(B,)`, in the dtype of the state, for every B."""
    for num in _BATCHES:
        kernel = source.kernel(source.states(num), COLD)
        if not isinstance(kernel, Kernel):
            raise ConformanceError(
                f"Got {type(kernel).__name__} as the {source.name}, expected a walkback.kernels.Kernel."
            )
        sample = kernel.sample(generator("cpu", 0, "shapes"))
        require_state(sample, source.space, num, f"a sample of the {source.name}")
        if any(leaf.requires_grad for leaf in leaves(sample)):
            raise ConformanceError(
                f"Got a sample of the {source.name} with a gradient, expected it detached: only log_prob and "
                "transport carry gradients."
            )
        log_prob = kernel.log_prob(sample)
        require_rows(log_prob, num, f"log_prob of the {source.name}")


@torch.no_grad()
def normalized(sources: Iterable[Source]) -> None:
    """Check that ∫ p = 1, cold and hot."""
    answers = [require_normalized(source.law(level)) for source in sources for level in (COLD, HOT)]
    if not any(answers):
        raise NotApplicable(
            "The density is too far from Normal, in too many dimensions, for its integral to be estimated."
        )


@torch.no_grad()
def samples(source: Source) -> None:
    """Check that samples follow the density, cold and hot."""
    for level in (COLD, HOT):
        require_samples(source.law(level))


def expectations(sources: Iterable[Source]) -> None:
    """Check that a kernel's reported mean matches that of its samples within 6 standard errors, cold and hot."""
    answers = [_has_mean(source, level) for source in sources for level in (COLD, HOT)]
    if not any(answers):
        raise NotApplicable(
            "The kernels do not report their mean: they do not derive from walkback.kernels.Expecting."
        )


def _has_mean(source: Source, level: Level, num: int = 4096) -> bool:
    """Return whether the kernel reports its mean; raises ConformanceError if that mean is wrong."""
    kernel = source.kernel(repeated(source.states(1), num), level)
    reported = expectation(kernel)
    if reported is None:
        return False
    name = f"the expectation of the {source.name}"
    if any(leaf.requires_grad for leaf in leaves(reported)):
        raise ConformanceError(f"Got {name} with a gradient, expected it detached.")
    for mean, drawn in zip(leaves(reported), leaves(kernel.sample(generator("cpu", 0, "mean"))), strict=True):
        if mean.shape != drawn.shape:
            raise ConformanceError(
                f"Got {name} of shape {tuple(mean.shape)}, expected that of a sample, {tuple(drawn.shape)}."
            )
        # An event that did not occur among `num` samples may still have a probability of about 1 / num.
        error = (drawn.double().var(0) / num).sqrt() + 1 / num
        distance = float(((drawn.double().mean(0) - mean[0].double()).abs() / error).max())
        if not distance < 6:
            raise ConformanceError(
                f"Got {name} at T = {level.temperature} {distance:.3g} standard errors from the mean of {num} samples, "
                "expected E[s']."
            )
    return True


@torch.no_grad()
def hotter_is_wider(source: Source) -> None:
    """Check that the variance of samples grows with the temperature."""
    spread = []
    for level in (COLD, HOT):
        found = source.law(level).sample(1024, generator("cpu", 0, "temperature"))
        spread.append(sum(float(leaf.double().var(0).sum()) for leaf in leaves(found)))
    cold, hot = spread
    if not hot > 1.05 * cold:
        raise ConformanceError(
            f"Got samples of the {source.name} with variance {cold:.4g} at T = 1 and {hot:.4g} at T = 4, expected "
            "more at the higher temperature: multiply the variance by level.temperature_like(state), or divide "
            "logits by it."
        )


@torch.no_grad()
def generators(source: Source) -> None:
    """Check that samples depend on the generator, and on nothing else."""
    state = source.states(7)
    kernel = source.kernel(state, HOT)
    first = drawn_from(kernel.sample, f"sample of the {source.name}")
    if same(first, kernel.sample(torch.Generator().manual_seed(6))):
        raise ConformanceError(
            f"Got the same samples of the {source.name} from different generators, expected different ones: draw "
            "from the generator that is passed in."
        )


@torch.no_grad()
def repeats(source: Source) -> None:
    """Check that in evaluation mode equal states have equal kernels, independent of global randomness."""
    state = source.states(7)
    target = source.kernel(state, COLD).sample(generator("cpu", 0, "repeats"))
    drawn_from(
        lambda _: source.kernel(state, COLD).log_prob(target),
        f"log_prob of the {source.name} in evaluation mode",
    )


def mutations(source: Source) -> None:
    """Check that neither conditioning, sampling nor scoring changes a state."""
    state = source.states(7)
    with untouched(state, f"the {source.name}"):
        kernel = source.kernel(state, HOT)
        target = kernel.sample(generator("cpu", 0, "mutations"))
        kept = map_state(torch.clone, target)
        with untouched(kept, f"log_prob of the {source.name}"):
            kernel.log_prob(kept)
        if not same(kept, target):
            raise ConformanceError(
                f"Got a sample that log_prob of the {source.name} changed in place, expected it untouched."
            )


@torch.no_grad()
def rows_alone(source: Source) -> None:
    """Check that the kernel of a row does not depend on the other rows of the batch."""
    state = source.states(7)
    target = source.kernel(state, HOT).sample(generator("cpu", 0, "rows"))
    together = source.kernel(state, HOT).log_prob(target)
    for row in (0, 6):
        own, goal = (map_state(lambda leaf, row=row: leaf[row : row + 1], part) for part in (state, target))
        require_close(
            together[row : row + 1],
            source.kernel(own, HOT).log_prob(goal),
            f"log_prob of a row of the {source.name} must not depend on other rows in evaluation mode (does it use "
            "statistics of the batch?)",
        )


@torch.no_grad()
def row_levels(source: Source) -> None:
    """Check that rows at different levels of one batch have the same kernels as in a batch of their own."""
    for temperatures, rows in (((1.0, 4.0), 1), ((1.0, 2.0, 4.0), 3)):
        levels = levels_from(temperatures)
        parts = [source.states(rows) for _ in levels]
        kernels = [source.kernel(part, level) for part, level in zip(parts, levels, strict=True)]
        noise = generator("cpu", 0, "levels")
        targets = [kernel.sample(noise) for kernel in kernels]
        alone = torch.cat([kernel.log_prob(x) for kernel, x in zip(kernels, targets, strict=True)])
        stacked = stack_levels(levels, rows, torch.device("cpu"))
        message = (
            f"rows of one batch of the {source.name} at different levels differ from the same rows at one level: "
            "read the temperature through level.temperature_like(state), which serves both"
        )
        try:
            together = source.kernel(concatenate(parts), stacked).log_prob(concatenate(targets))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ConformanceError(
                f"Got {type(error).__name__} ({error}) of a level with one temperature a row, expected kernels: "
                f"{message}."
            ) from error
        require_close(together, alone, message)
