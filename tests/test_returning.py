"""Inpainting there and back, on Gaussian data whose law of the missing part given the known part is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from tests.program import options, walkback
from tests.toy.exact import Fixed, gaussian
from tests.toy.statistics import LIMIT, rng, z_of_variance, z_score
from torch import Tensor

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, NormalKernel
from walkback.model import Model
from walkback.noising import GaussianNoise
from walkback.operators import Conditional, TransitionOperator
from walkback.processes import TiedProcess
from walkback.sampling import last
from walkback.sampling.inpainting import fill_steps, inpaint
from walkback.sampling.returning import Returns, returns_of
from walkback.schedules import Level, levels_from
from walkback.state import Context, State, leaves
from walkback_processes.diffusion import DiffusionProcess
from walkback_processes.reconstructing import DenoisingProcess

SIGMA, CORRELATION, KNOWN = 0.05, 0.8, 1.5
LEVELS = levels_from([1.25**power for power in range(33)])
MASK = torch.tensor([True, False])
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]], dtype=torch.float64)


@final
class Best(TransitionOperator):
    """The best reverse of preserving noise with independent entries, for N(0, COVARIANCE); counts runs."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = GaussianNoise("preserving", variance=SIGMA**2)
        self.runs = 0

    @property
    def max_temperature(self) -> float:
        return 5 / SIGMA**2

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        self.runs += 1
        return _Reversed(self.noise, leaves(state)[0])


@final
class _Reversed(Conditional):
    def __init__(self, noise: GaussianNoise, state: Tensor) -> None:
        self._noise = noise
        self._state = state

    def cooling(self, level: Level) -> Kernel:
        at = self._noise.of_marginal(level, self._state)
        a, v = at.signal.item(), at.variance.item()
        gain = a * COVARIANCE @ torch.linalg.inv(a**2 * COVARIANCE + v * torch.eye(2))
        mean = leaves(self._noise.posterior(self._state, self._state @ gain, level).expectation())[0]
        left = COVARIANCE - a * gain @ COVARIANCE
        of_origin, _, variance = self._noise.posterior_weights(level, self._state)
        return NormalKernel(mean, variance + of_origin**2 * left.diagonal())

    def heating(self, level: Level) -> Kernel:
        raise AssertionError("known noise needs no operator")


def model() -> Model:
    process = DiffusionProcess(noise="preserving", sigma=SIGMA)
    prior = gaussian(torch.zeros(2).double(), torch.ones(2).double())
    return Model(Best(), Fixed(LEVELS), process, prior)


def filled(returns: Returns, extra: int, rows: int = 2000) -> tuple[Tensor, Model]:
    system, known = model(), torch.tensor([[KNOWN, math.nan]], dtype=torch.float64).expand(rows, 2)
    end = leaves(last(inpaint(system, known, MASK, LEVELS, rng(1), extra=extra, returns=returns)))[0]
    assert bool((end[:, 0] == KNOWN).all())
    return end[:, 1], system


def test_excursions_reach_the_law_given_the_known_part_and_a_single_pass_does_not() -> None:
    """N(ρ c, 1 - ρ²): |z| < 4.5 for mean and variance of 2,000 chains; a single pass has half the mean or less."""
    found, _ = filled(Returns(4, 2), 400)
    assert abs(z_score(found, CORRELATION * KNOWN)) < LIMIT
    assert abs(z_of_variance(found, 1 - CORRELATION**2)) < LIMIT
    single, _ = filled(Returns(), 0)
    assert z_score(single, CORRELATION * KNOWN) < -10


def test_the_kept_part_of_each_state_has_the_noise_of_its_level() -> None:
    system, known = model(), torch.full((4000, 2), KNOWN, dtype=torch.float64)
    states = inpaint(system, known, MASK, LEVELS, rng(2), extra=1, returns=Returns(3, 0))
    noise = GaussianNoise("preserving", variance=SIGMA**2)
    for number, state in zip([*range(33, -1, -1), 1, 2, 3, 2, 1, 0], states, strict=True):
        kept = leaves(state)[0][:, 0]
        if number == 0:
            assert bool((kept == KNOWN).all())
            continue
        at = noise.of_marginal(LEVELS[number - 1], known)
        assert abs(z_score(kept, at.signal.item() * KNOWN)) < LIMIT
        assert abs(z_of_variance(kept, at.variance.item())) < LIMIT


@pytest.mark.parametrize(("levels", "times", "extra"), [(1, 0, 0), (1, 2, 3), (5, 1, 2), (33, 4, 1)])
def test_the_network_runs_on_the_way_back_alone(levels: int, times: int, extra: int) -> None:
    returns = Returns(levels, times)
    _, system = filled(returns, extra, rows=2)
    moves = list(returns.moves(33, extra))
    assert isinstance(system.operator, Best)
    places = len(range(0, 33 - levels, levels))
    assert system.operator.runs == sum(move > 0 for move in moves) == 33 + levels * (times * places + extra)
    assert fill_steps(2, LEVELS, extra, returns) == len(moves)
    place = 33
    for move in moves:  # each begins where the one before has ended
        assert place == (move if move > 0 else -move - 1)
        place = move - 1 if move > 0 else -move
    assert place == 0


def test_what_cannot_return_is_refused_and_known_noise_returns_by_itself() -> None:
    known = model()
    assert returns_of(known, None, 0) == Returns(1, 0)
    tied = Model(known.operator, known.schedule, TiedProcess(), known.prior)
    assert returns_of(tied, None, 0) is None
    assert returns_of(tied, 3, 0) == Returns(3, 0)
    with pytest.raises(ConfigurationError, match="excursion of 34 levels, expected 1 to 33"):
        returns_of(known, 34, 0)
    with pytest.raises(ConfigurationError, match="DenoisingProcess, each of whose steps"):
        returns_of(Model(known.operator, known.schedule, DenoisingProcess(), known.prior), None, 1)


def test_a_run_of_known_noise_is_inpainted_from_both_interfaces(tmp_path: Path) -> None:
    settings = {
        "operator.network.hidden": 8,
        "schedule.num_steps": 6,
        "evaluation.limit": 10,
        "training.validation_examples": 10,
    }
    checkpoint = tmp_path / "a.safetensors"
    wb.train("ddpm-mlp", data="digits", schedule="learned", steps=2, settings=settings, progress=False).save(
        checkpoint
    )
    words = options(keep="top", num=3, extra=2, excursion=2, returns=1, out=tmp_path / "a.npz")
    done = walkback("inpaint", checkpoint, *words)
    assert done.code == 0, done.err
    found = wb.inpaint(checkpoint, "top", num=3, extra=2, excursion=2, returns=1, progress=False)
    assert found.protocol["excursion"] == 2
    with np.load(tmp_path / "a.npz") as file:
        filled_in, original = file["filled"], file["original"]
    np.testing.assert_array_equal(found.states.numpy(), filled_in)
    np.testing.assert_array_equal(filled_in[..., :4, :], original[..., :4, :])
    assert not np.array_equal(filled_in[..., 4:, :], original[..., 4:, :])
