"""Laws of transition operators.

Each law is checked on every space of the case that the operator accepts, fitted to synthetic data and with randomly
perturbed weights: new networks often return zeros, which hide many errors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from walkback.kernels import Kernel
from walkback.levels import tensor_levels
from walkback.operators import (
    Conditional,
    DataAware,
    Latent,
    TransitionOperator,
    initial_state,
    state_space,
)
from walkback.processes import TiedProcess
from walkback.schedules import Level, levels_from
from walkback.state import Context, State, StateSpace, map_state, spaces
from walkback.support.seeding import generator
from walkback.testing import kernels
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.kernels import COLD, HOT, Source
from walkback.testing.probes import (
    accepted,
    data_like,
    describe,
    require_close,
    require_rows,
    require_state,
    same,
    through_file,
)
from walkback.walk import Start

OPERATORS = Suite()

_STIR = 0.1
_FAR = 1e3


@final
@dataclass(frozen=True, slots=True)
class Probe:
    """An operator on one space.

    Attributes:
        space: Space of the data.
        operator: The operator, in evaluation mode.
    """

    space: StateSpace
    operator: TransitionOperator

    @property
    def chain_space(self) -> StateSpace:
        """Space of the states of its chain."""
        return state_space(self.operator, self.space)

    def states(self, num: int) -> State:
        """Return states `(num, *E)` of its chain."""
        return started(self.operator, self.space, num)

    def sources(self) -> tuple[Source, Source]:
        """Return the sources of its cooling and heating kernels."""
        operator = self.operator

        def cooling(state: State, level: Level) -> Kernel:
            return conditional(operator, state, level).cooling(level)

        def heating(state: State, level: Level) -> Kernel:
            return conditional(operator, state, level).heating(level)

        return (
            Source("cooling", self.chain_space, self.states, cooling),
            Source("heating", self.chain_space, self.states, heating),
        )


def conditional(
    operator: TransitionOperator, state: State, level: Level, context: Context = None
) -> Conditional:
    """Return the operator at a state; raises ConformanceError if it is not a `Conditional`."""
    found = operator(state, level, context)
    if not isinstance(found, Conditional):
        raise ConformanceError(
            f"Got {type(found).__name__} from the operator, expected a walkback.operators.Conditional."
        )
    return found


@torch.no_grad()
def started(operator: TransitionOperator, space: StateSpace, num: int) -> State:
    """Return s_0 `(num, *E)` for synthetic data."""
    data = data_like(space, num)
    if isinstance(data, tuple):
        return data
    return initial_state(operator, data, generator("cpu", 0, "latent"))[0]


def built(case: Case, space: StateSpace, seed: int = 0, *, fitted: bool = True) -> TransitionOperator:
    """Build an operator in evaluation mode, with perturbed weights and, by default, fitted to synthetic data."""
    operator: TransitionOperator = case.build("operator", space, seed=seed)
    data = data_like(space, 256, "fit")
    if fitted and isinstance(operator, DataAware) and isinstance(data, Tensor):
        operator.fit_data(data)
    noise = generator("cpu", seed, "stir")
    with torch.no_grad():
        for weight in operator.parameters():
            weight.add_(_STIR * torch.randn(weight.shape, generator=noise).to(weight))
    return operator.eval()


def probes(case: Case) -> Iterator[Probe]:
    """Yield the operator on each space that it accepts."""
    for space, operator in accepted(case, lambda space: built(case, space)):
        yield Probe(space, operator)


def sources(case: Case) -> Iterator[Source]:
    """Yield the kernels of both directions on each space."""
    for probe in probes(case):
        yield from probe.sources()


@OPERATORS.check("builds", "it is an operator, built from its options on at least one space")
def _builds(case: Case) -> None:
    for _ in probes(case):
        pass


@OPERATORS.check("shapes", "samples are (B, *E), detached, and log_prob is (B,), for every B, in float32")
def _shapes(case: Case) -> None:
    for source in sources(case):
        kernels.shapes(source)


@OPERATORS.check("max-temperature", "max_temperature is a finite number of at least 1")
def _max_temperature(case: Case) -> None:
    for probe in probes(case):
        found = probe.operator.max_temperature
        if not (isinstance(found, float | int) and math.isfinite(found) and found >= 1):
            raise ConformanceError(
                f"Got max_temperature = {found!r} on {describe(probe.space)}, expected a finite number of at least 1: "
                "the temperature at which one step forgets the state."
            )


@OPERATORS.check("normalized", "log_prob is a normalized density, cold and hot, in both directions")
def _normalized(case: Case) -> None:
    kernels.normalized(sources(case))


@OPERATORS.check("samples", "samples follow the density of log_prob, cold and hot")
def _samples(case: Case) -> None:
    for source in sources(case):
        kernels.samples(source)


@OPERATORS.check("expectation", "a kernel's reported mean matches the mean of its samples, cold and hot")
def _expectation(case: Case) -> None:
    kernels.expectations(sources(case))


@OPERATORS.check("temperature", "a hotter kernel is wider, in both directions")
def _temperature(case: Case) -> None:
    for source in sources(case):
        kernels.hotter_is_wider(source)


@OPERATORS.check("row-levels", "rows at different levels have the same kernels as on their own")
def _row_levels(case: Case) -> None:
    for source in sources(case):
        kernels.row_levels(source)


@OPERATORS.check("rows-alone", "in evaluation mode the kernel of a row does not depend on other rows")
def _rows_alone(case: Case) -> None:
    for source in sources(case):
        kernels.rows_alone(source)


@OPERATORS.check(
    "generator", "samples depend on the generator only, and global randomness is neither read nor changed"
)
def _generator(case: Case) -> None:
    for source in sources(case):
        kernels.generators(source)


@OPERATORS.check("repeats", "in evaluation mode the same state gives the same kernel")
def _repeats(case: Case) -> None:
    for source in sources(case):
        kernels.repeats(source)


@OPERATORS.check("untouched", "no state is changed in place, not even in training mode")
def _untouched(case: Case) -> None:
    for probe in probes(case):
        probe.operator.train()
        for source in probe.sources():
            kernels.mutations(source)


@OPERATORS.check("gradients", "the walkback loss has a gradient for every trainable parameter")
def _gradients(case: Case) -> None:
    for probe in probes(case):
        operator = probe.operator.train()
        wanted = {name: weight for name, weight in operator.named_parameters() if weight.requires_grad}
        if not wanted:
            raise NotApplicable("The operator has no trainable parameters.")
        with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
            levels, noise = levels_from([1.0, 2.0, 4.0]), generator("cpu", 0, "walk")
            steps = TiedProcess().path(operator, Start(probe.states(8)), levels, noise)
            loss = -torch.stack([step.log_p.mean() for step in steps]).sum()
        if not loss.requires_grad:
            raise ConformanceError(
                f"Got a loss without gradient on {describe(probe.space)}, expected log_prob to be differentiable: "
                "do not detach the parameters of the kernel."
            )
        torch.autograd.backward(loss)
        missed = [name for name, weight in wanted.items() if weight.grad is None]
        if missed:
            raise ConformanceError(
                f"Got no gradient of the walkback loss for {', '.join(missed[:5])} on {describe(probe.space)}, "
                "expected one for every parameter: use it in the cooling kernel, or make it a buffer."
            )
        gradients = [weight.grad for weight in wanted.values() if weight.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise ConformanceError("Got gradients with nan or infinity, expected finite numbers.")
        if not any(bool(gradient.any()) for gradient in gradients):
            raise ConformanceError(
                "Got gradients that are all zero, expected the loss to depend on parameters."
            )


@OPERATORS.check("state-dict", "parameters and buffers hold everything learned: samples repeat bit for bit")
def _state_dict(case: Case) -> None:
    for probe in probes(case):
        operator = probe.operator.train()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            levels, noise = levels_from([1.0, 2.0]), generator("cpu", 0, "walk")
            for _ in TiedProcess().path(operator, Start(probe.states(8)), levels, noise):
                pass  # modules that track statistics in training have some now
        operator.eval()
        new = built(case, probe.space, seed=1, fitted=False)
        through_file(operator, new)
        new.eval()
        for level in (COLD, HOT):
            first, second = (_both(part, probe.states(7), level) for part in (operator, new))
            if not all(same(a, b) for a, b in zip(first, second, strict=True)):
                raise ConformanceError(
                    f"Got different samples on {describe(probe.space)} after saving and loading the state_dict, "
                    "expected the same bits: keep what is learned or fitted in parameters and (persistent) buffers."
                )
        if operator.max_temperature != new.max_temperature:
            raise ConformanceError(
                f"Got max_temperature {new.max_temperature!r} after saving and loading the state_dict, expected "
                f"{operator.max_temperature!r}: keep what it depends on in a buffer."
            )


@torch.no_grad()
def _both(operator: TransitionOperator, state: State, level: Level) -> tuple[State, State]:
    """Return a sample of each direction."""
    found, noise = operator(state, level), generator("cpu", 0, "both")
    return found.cooling(level).sample(noise), found.heating(level).sample(noise)


@OPERATORS.check("large-states", "far from the data, samples and their log_prob are finite")
@torch.no_grad()
def _large_states(case: Case) -> None:
    tried = False
    for probe in probes(case):
        if any(leaf.support != "real" for leaf in spaces(probe.chain_space)):
            continue
        tried = True
        for source in probe.sources():
            state = map_state(lambda leaf: leaf * _FAR, probe.states(7))
            kernel = source.kernel(state, HOT)
            sample = kernel.sample(generator("cpu", 0, "large"))
            require_state(
                sample, source.space, 7, f"a sample of the {source.name} at states of size {_FAR:g}"
            )
            what = f"log_prob of the {source.name} at states of size {_FAR:g}"
            require_rows(kernel.log_prob(sample), 7, what)
    if not tried:
        raise NotApplicable("Only real states can be large.")


@OPERATORS.check("bf16", "under autocast to bfloat16, states and log_prob stay in float32")
@torch.no_grad()
def _bf16(case: Case) -> None:
    found = list(sources(case))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for source in found:
            kernels.shapes(source)


@OPERATORS.check(
    "latent", "latent units: initial_state is in state_space, has log q (B,), and shows its data"
)
def _latent(case: Case) -> None:
    tried = False
    for probe in probes(case):
        operator = probe.operator
        if not isinstance(operator, Latent):
            continue
        tried = True
        data = data_like(probe.space, 7)
        if isinstance(data, tuple):
            continue
        state, log_q = operator.initial_state(data, generator("cpu", 0, "latent"))
        require_state(state, operator.state_space, 7, "initial_state")
        require_rows(log_q, 7, "log q of initial_state")
        if not same(operator.visible(state), data):
            raise ConformanceError(
                "Got an initial_state whose visible part is not the data, expected the data."
            )
    if not tried:
        raise NotApplicable("The operator has no latent units.")


@OPERATORS.check("compiles", "torch.compile preserves the kernels")
def _compiles(case: Case) -> None:
    probe = next(probes(case))
    (level,) = tensor_levels((HOT,), torch.device("cpu"))
    state = probe.states(7)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the compiler's own
        plain = probe.operator(state, level).cooling(level)
        target = plain.sample(generator("cpu", 0, "compile"))
        torch.compiler.reset()
        try:
            compiled = torch.compile(probe.operator, backend="eager")
            found = compiled(state, level).cooling(level).log_prob(target)
        finally:
            torch.compiler.reset()
    require_close(found, plain.log_prob(target), "torch.compile changes the kernel")
