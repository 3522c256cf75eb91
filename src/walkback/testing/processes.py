"""Laws of heating processes: kernels like any others, conditioned on where the walk is and where it began.

A process is tried on operators that are known: an autoregressive one on points, flips on bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.processes import Process
from walkback.schedules import Level
from walkback.state import Space, State, map_state, spaces
from walkback.testing import kernels
from walkback.testing.cases import SPACES, Case, ConformanceError, Suite
from walkback.testing.kernels import COLD, Source
from walkback.testing.probes import data_like
from walkback.testing.reference import Reversible

PROCESSES = Suite()

SINGLE = (Space((2,)), Space((4,), "binary"))
"""Spaces that are tried where the case names none."""


def _sources(case: Case) -> Iterator[Source]:
    """The process on points and on bits; it may refuse one of them."""
    refusal: ConfigurationError | None = None
    works = False
    for space in SINGLE if case.spaces == SPACES else (part for own in case.spaces for part in spaces(own)):
        process: Process = case.build("process")
        source = _source(process, space)
        try:
            source.kernel(source.states(2), COLD)
        except ConfigurationError as error:
            refusal = error
            continue
        works = True
        yield source
    if not works:
        raise ConformanceError(
            f"Got no operator that {case.label!r} heats (the last answer: {refusal}), expected Normal or Bernoulli "
            "kernels to do."
        ) from refusal


def _source(process: Process, space: Space) -> Source:
    operator = Reversible(space).eval()

    def kernel(state: State, level: Level) -> Kernel:
        # Every row has an origin of its own, a function of the row, so that rows can be taken apart.
        origin = map_state(lambda leaf: leaf.roll(1, -1), state)
        return process.heating(operator(state, level), state, level, origin)

    return Source("heating", space, lambda num: data_like(space, num), kernel)


@PROCESSES.check("builds", "it is a process, built from its options, that heats points or bits")
def _builds(case: Case) -> None:
    for _ in _sources(case):
        pass


@PROCESSES.check("shapes", "samples are (B, *E), detached, and log_prob is (B,), for every B, in float32")
def _shapes(case: Case) -> None:
    for source in _sources(case):
        kernels.shapes(source)


@PROCESSES.check("normalized", "log_prob is a normalized density, cold and hot")
def _normalized(case: Case) -> None:
    kernels.normalized(_sources(case))


@PROCESSES.check("samples", "samples are of the density that log_prob gives, cold and hot")
def _samples(case: Case) -> None:
    for source in _sources(case):
        kernels.samples(source)


@PROCESSES.check("temperature", "a hotter kernel is wider")
def _temperature(case: Case) -> None:
    for source in _sources(case):
        kernels.hotter_is_wider(source)


@PROCESSES.check("row-levels", "rows at different levels have the kernels that they have alone")
def _row_levels(case: Case) -> None:
    for source in _sources(case):
        kernels.row_levels(source)


@PROCESSES.check("rows-alone", "the kernel of a row does not depend on other rows")
def _rows_alone(case: Case) -> None:
    for source in _sources(case):
        kernels.rows_alone(source)


@PROCESSES.check("generator", "samples depend on the generator only, and global randomness is left alone")
@torch.no_grad()
def _generator(case: Case) -> None:
    for source in _sources(case):
        kernels.generators(source)


@PROCESSES.check("repeats", "the same state gives the same kernel")
def _repeats(case: Case) -> None:
    for source in _sources(case):
        kernels.repeats(source)


@PROCESSES.check("untouched", "no state is changed in place")
def _untouched(case: Case) -> None:
    for source in _sources(case):
        kernels.mutations(source)
