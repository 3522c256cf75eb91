"""The noise schedules of DDPM, against those of diffusers, and respacing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from walkback.errors import ConfigurationError
from walkback.noising import GaussianNoise
from walkback.schedules import Levels
from walkback_processes.betas import BetasSchedule, Form


def times(levels: Levels) -> np.ndarray:
    return np.array([level.temperature for level in levels])


def hottest(betas: np.ndarray) -> float:
    """T_max of preserving noise whose first step has β_1."""
    return float(-5 / np.log1p(-betas[0]))


def table(form: Form, steps: int = 1000) -> np.ndarray:
    """β_t as diffusers and improved-diffusion compute them."""
    low, high = 0.1 / steps, 20 / steps
    if form == "cosine":
        signal = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(steps + 1)]
        return np.array([min(1 - signal[t + 1] / signal[t], 0.999) for t in range(steps)])
    if form == "sigmoid":
        return torch.linspace(-6, 6, steps).sigmoid().double().numpy() * (high - low) + low
    if form == "sqrt-linear":
        return np.linspace(low**0.5, high**0.5, steps) ** 2
    return np.linspace(low, high, steps)


@pytest.mark.parametrize("steps", [100, 1000])
@pytest.mark.parametrize("form", ["linear", "cosine", "sqrt-linear", "sigmoid"])
def test_steps_have_the_betas_of_the_sources(form: Form, steps: int) -> None:
    betas = table(form, steps)
    levels = BetasSchedule(form=form, num_steps=steps).levels(hottest(betas))
    assert levels[0].temperature == 1
    noise = GaussianNoise("preserving", variance=-math.log1p(-betas[0]))
    one = torch.ones(1, 1, dtype=torch.float64)
    found = [noise.of_step(level, one).variance.item() for level in levels]
    np.testing.assert_allclose(found, betas, rtol=2e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 50, 99, 100])
def test_joined_steps_have_the_marginals_of_the_levels_where_they_end(length: int) -> None:
    # The respacing of improved-diffusion: β' = 1 - ᾱ_b/ᾱ_a, at evenly spaced steps that contain the first and the last.
    betas = table("linear", 100)
    schedule = BetasSchedule(num_steps=100)
    levels = schedule.levels_of_length(hottest(betas), length)
    kept = np.cumprod(1 - betas)
    used = [99] if length == 1 else [round(99 / (length - 1) * i) for i in range(length)]
    wanted = 1 - kept[used] / np.append(1.0, kept[used[:-1]])
    found = -np.expm1(times(levels) * math.log1p(-betas[0]))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_given_betas_are_taken_as_they_are() -> None:
    betas = (0.01, 0.3, 0.25)
    levels = BetasSchedule(betas=betas).levels(hottest(np.array(betas)))
    np.testing.assert_allclose(-np.expm1(times(levels) * math.log1p(-0.01)), betas, rtol=1e-12)


def test_noise_of_another_size_and_impossible_lengths_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"operator\.sigma_share = 0\.0100003"):
        BetasSchedule().levels(5000.0)
    with pytest.raises(ConfigurationError, match="at most 100"):
        BetasSchedule(num_steps=100).levels_of_length(hottest(table("linear", 100)), 101)
    with pytest.raises(ConfigurationError, match=r"schedule\.num_steps = 10"):
        BetasSchedule(num_steps=10)
