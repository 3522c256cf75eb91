"""Laws of priors: a normalized density, samples that follow it, a fit to the data, and a state that can be saved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from walkback.priors import Prior
from walkback.state import Space, State, StateSpace, leaves, map_state, spaces
from walkback.support.seeding import generator
from walkback.testing.cases import SPACES, Case, ConformanceError, NotApplicable, Suite
from walkback.testing.laws import Law, require_normalized, require_samples
from walkback.testing.probes import (
    accepted,
    data_like,
    describe,
    drawn_from,
    require_rows,
    require_state,
    same,
    symbols_like,
    through_file,
    untouched,
)

PRIORS = Suite()

_TUPLE: StateSpace = (Space((2,)), Space((3,), "binary"))
"""A composite space, tried in addition to the usual ones."""

_FIT_EXAMPLES = 512


def _far(space: StateSpace, num: int, stream: str) -> State:
    """Return data far from a new prior: normal around 3 with unequal widths, bits mostly 1, or unequal symbols."""
    noise = generator("cpu", 0, stream)
    found: list[Tensor] = []
    for leaf in spaces(space):
        if leaf.support == "binary":
            found.append((torch.rand(num, *leaf.shape, generator=noise) < 0.85).float())
        elif leaf.support == "one-hot":
            uneven = torch.linspace(0.5, 1, leaf.shape[-1])
            found.append(symbols_like(leaf, uneven * torch.rand(num, *leaf.shape, generator=noise)))
        else:
            widths = torch.linspace(0.3, 0.9, leaf.size).reshape(leaf.shape)
            found.append(3 + widths * torch.randn(num, *leaf.shape, generator=noise))
    return tuple(found) if isinstance(space, tuple) else found[0]


def _choices(case: Case) -> tuple[StateSpace, ...]:
    return (*case.spaces, _TUPLE) if case.spaces == SPACES else case.spaces


def _new(case: Case) -> Iterator[tuple[StateSpace, Prior]]:
    """Yield a new prior on each space that it accepts."""
    yield from accepted(case, lambda space: case.build("prior", space), _choices(case))


def fitted(case: Case) -> Iterator[tuple[StateSpace, Prior]]:
    """Yield a prior fitted to data on each space that it accepts."""
    for space, prior in _new(case):
        prior.fit(_far(space, _FIT_EXAMPLES, "fit"))
        yield space, prior


def _law(space: StateSpace, prior: Prior) -> Law:
    return Law(f"prior on {describe(space)}", spaces(space), prior.sample, prior.log_prob)


@PRIORS.check("builds", "it is a prior, built from its options on at least one space")
def _builds(case: Case) -> None:
    for _ in fitted(case):
        pass


@PRIORS.check("shapes", "sample returns (num, *E) and log_prob (B,), in float32")
def _shapes(case: Case) -> None:
    for space, prior in fitted(case):
        for num in (1, 2, 7):
            found = prior.sample(num, generator("cpu", 0, "shapes"))
            require_state(found, space, num, f"a sample of the prior on {describe(space)}")
            require_rows(prior.log_prob(found), num, f"log_prob of the prior on {describe(space)}")


@PRIORS.check("normalized", "log_prob is a normalized density, new and fitted")
@torch.no_grad()
def _normalized(case: Case) -> None:
    answers = [
        require_normalized(_law(space, prior)) for found in (_new, fitted) for space, prior in found(case)
    ]
    if not any(answers):
        raise NotApplicable(
            "The density is too far from Normal, in too many dimensions, for its integral to be estimated."
        )


@PRIORS.check("samples", "samples follow the density of log_prob, new and fitted")
@torch.no_grad()
def _samples(case: Case) -> None:
    for found in (_new, fitted):
        for space, prior in found(case):
            require_samples(_law(space, prior))


@PRIORS.check("fit", "fitting makes held-out data more likely")
@torch.no_grad()
def _fit(case: Case) -> None:
    for space, prior in _new(case):
        held_out = _far(space, 256, "held-out")
        before = float(prior.log_prob(held_out).double().mean())
        prior.fit(_far(space, _FIT_EXAMPLES, "fit"))
        after = float(prior.log_prob(held_out).double().mean())
        if not after > before:
            raise ConformanceError(
                f"Got {after:.4g} nats of held-out data after fit on {describe(space)}, {before:.4g} before, expected "
                "more: fit must match the moments of the data."
            )


@PRIORS.check("observe", "observing states keeps it finite, even if the states are constant")
@torch.no_grad()
def _observe(case: Case) -> None:
    for space, prior in fitted(case):
        state = data_like(space, 64)
        constant = map_state(lambda leaf: leaf[:1].expand_as(leaf).clone(), state)
        for seen in (state, constant, state):
            prior.observe(seen)
            found = prior.sample(7, generator("cpu", 0, "observe"))
            require_state(found, space, 7, f"a sample of the prior on {describe(space)} after observe")
            what = f"log_prob of the prior on {describe(space)} after observe"
            require_rows(prior.log_prob(found), 7, what)


@PRIORS.check("untouched", "no state is changed in place")
@torch.no_grad()
def _untouched(case: Case) -> None:
    for space, prior in _new(case):
        state = _far(space, 64, "fit")
        for what in ("fit", "observe", "log_prob"):
            with untouched(state, f"{what} of the prior"):
                getattr(prior, what)(state)


@PRIORS.check(
    "generator", "samples depend on the generator only, and global randomness is neither read nor changed"
)
@torch.no_grad()
def _generator(case: Case) -> None:
    for space, prior in fitted(case):
        first = drawn_from(partial(prior.sample, 7), "sample of the prior")
        if same(first, prior.sample(7, torch.Generator().manual_seed(6))):
            raise ConformanceError(
                f"Got the same samples of the prior on {describe(space)} from different generators, expected "
                "different ones: draw from the generator that is passed in."
            )


@PRIORS.check(
    "state-dict", "parameters and buffers hold everything learned: samples and densities repeat bit for bit"
)
@torch.no_grad()
def _state_dict(case: Case) -> None:
    for space, prior in fitted(case):
        for number in range(3):
            prior.observe(data_like(space, 64, f"seen {number}"))
        new: Prior = case.build("prior", space, seed=1)
        through_file(prior, new)
        state = data_like(space, 7)
        for when in ("", " and one more observe"):
            pairs = [
                (prior.log_prob(state), new.log_prob(state)),
                *zip(
                    *(leaves(part.sample(7, generator("cpu", 0, "file"))) for part in (prior, new)),
                    strict=True,
                ),
            ]
            if not all(torch.equal(a, b) for a, b in pairs):
                raise ConformanceError(
                    f"Got a different prior on {describe(space)} after saving and loading its state_dict{when}, "
                    "expected the same bits: keep what is fitted or observed in (persistent) buffers."
                )
            for part in (prior, new):
                part.observe(data_like(space, 64, "more"))
