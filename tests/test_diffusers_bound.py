"""The bound of an imported pipeline, against one computed from the scheduler's own tables; the commands on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_digits
from tests.program import walkback
from tests.toy.pipelines import in_double, pipeline, saved
from tests.toy.statistics import LIMIT
from torch import Tensor

import walkback as wb
from walkback.measuring.work import heating_work
from walkback.state import leaves
from walkback.walk import Start
from walkback_toys.digits import Digits

GRAY, SIZE = 17, 64
"""Gray levels and pixels of the digits."""
BITS = 1 / (SIZE * math.log(2))
OPTIONS: dict[str, dict[str, Any]] = {
    "epsilon": {"variance_type": "fixed_small"},
    "sample": {"variance_type": "fixed_large", "clip_sample_range": 1.2},
    "v_prediction": {"variance_type": "learned_range", "clip_sample": False},
}


def digits() -> Tensor:
    """Gray levels, `(N, 1, 8, 8)`."""
    return torch.as_tensor(load_digits().images)[:, None]


def trained(prediction: str, steps: int = 15) -> Any:
    """A pipeline that diffusers trained for a moment."""
    made = pipeline(prediction_type=prediction, beta_start=0.01, beta_end=0.5, **OPTIONS[prediction])
    scheduler, unet = made.scheduler, made.unet.train()
    optimizer = torch.optim.Adam(unet.parameters(), 2e-3)
    x = digits().float() / 8 - 1
    for _ in range(steps):
        clean = x[torch.randint(len(x), (32,))]
        noise, t = torch.randn_like(clean), torch.randint(len(scheduler), (32,))
        noisy = scheduler.add_noise(clean, noise, t)
        wanted = {"epsilon": noise, "sample": clean}.get(prediction)
        wanted = scheduler.get_velocity(clean, noise, t) if wanted is None else wanted
        output = unet(noisy, t).sample
        loss = (output[:, :1] - wanted).square().mean() + (
            output[:, 1:].square().mean() if output.shape[1] > 1 else 0
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.eval()
    return made


class Reference:
    """The terms of the bound as Nichol and Dhariwal (2021) compute them, float64, from the scheduler's β_t."""

    def __init__(self, made: Any) -> None:
        self.unet, self.options = made.unet, made.scheduler.config
        scheduler = in_double(made.scheduler)
        self.beta, self.kept = scheduler.betas, scheduler.alphas_cumprod
        self.before = torch.cat([torch.ones(1, dtype=torch.float64), self.kept[:-1]])
        self.posterior = self.beta * (1 - self.before) / (1 - self.kept)
        self.smallest = torch.cat([self.posterior[1:2], self.posterior[1:]]).log()

    def noisy(self, x: Tensor, t: int, noise: Tensor) -> Tensor:
        return self.kept[t].sqrt() * x + (1 - self.kept[t]).sqrt() * noise

    def posterior_mean(self, x: Tensor, noisy: Tensor, t: int) -> Tensor:
        of_x = self.beta[t] * self.before[t].sqrt() / (1 - self.kept[t])
        return of_x * x + (1 - self.before[t]) * (1 - self.beta[t]).sqrt() / (1 - self.kept[t]) * noisy

    def predicted(self, output: Tensor, noisy: Tensor, t: int) -> Tensor:
        signal, spread = self.kept[t].sqrt(), (1 - self.kept[t]).sqrt()
        x = {
            "epsilon": (noisy - spread * output) / signal,
            "sample": output,
            "v_prediction": signal * noisy - spread * output,
        }[self.options.prediction_type]
        reach = self.options.clip_sample_range if self.options.clip_sample else math.inf
        return x.clamp(-reach, reach)

    def log_variance(self, learned: Tensor, t: int) -> Tensor:
        if self.options.variance_type == "fixed_small":
            return self.smallest[t]
        if self.options.variance_type == "fixed_large":
            return self.smallest[0] if t == 0 else self.beta[t].log()
        share = (learned + 1) / 2
        return share * self.beta[t].log() + (1 - share) * self.smallest[t]

    def term(self, x: Tensor, noisy: Tensor, t: int) -> Tensor:
        """KL of timestep t at noisy images `(B, 1, 8, 8)`, or that of the decoder, `(B,)`, nats."""
        with torch.no_grad():
            output = self.unet(noisy.float(), t).sample.double()
        mean = self.posterior_mean(self.predicted(output[:, :1], noisy, t), noisy, t)
        log_variance = self.log_variance(output[:, 1:], t).expand_as(mean)
        if t == 0:
            return -_log_mass(x, mean, (log_variance / 2).exp()).flatten(1).sum(1)
        return _normal_kl(self.posterior_mean(x, noisy, t), self.smallest[t], mean, log_variance)

    def of_prior(self, x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return _normal_kl(self.kept[-1].sqrt() * x, (1 - self.kept[-1]).log(), zero, zero)

    def bound(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The bound of each image, one draw of every x_t, `(B,)`, nats."""
        total = self.of_prior(x)
        for t in range(len(self.beta)):
            noise = torch.randn(x.shape, dtype=torch.float64, generator=generator)
            total = total + self.term(x, self.noisy(x, t, noise), t)
        return total


def _normal_kl(mean: Tensor, log_variance: Tensor, other: Tensor, log_other: Tensor) -> Tensor:
    difference = log_other - log_variance
    kl = (difference + (-difference).exp() + (mean - other).square() * (-log_other).exp() - 1) / 2
    return kl.flatten(1).sum(1)


def _log_mass(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Of the level of x, whose edges are 1/(GRAY - 1) away from it, and open at -1 and 1."""
    lower = torch.where(x < -0.999, -math.inf, (x - 1 / (GRAY - 1) - mean) / deviation)
    upper = torch.where(x > 0.999, math.inf, (x + 1 / (GRAY - 1) - mean) / deviation)
    far = lower > 0  # where both are in the upper tail, the mirrored levels have more digits
    lower, upper = torch.where(far, -upper, lower), torch.where(far, -lower, upper)
    return torch.as_tensor(np.log(norm.cdf(upper.numpy()) - norm.cdf(lower.numpy())))


@pytest.fixture(scope="module", params=OPTIONS)
def made(request: pytest.FixtureRequest) -> Any:
    return trained(request.param)


@pytest.fixture(scope="module")
def checkpoint(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bound")
    out = folder / "model.safetensors"
    done = walkback(
        "import", "diffusers", saved(made, folder / "pipeline"), "-o", out, "--gray-levels", str(GRAY)
    )
    assert done.code == 0, done.err
    return out


def test_every_term_of_the_bound_is_that_of_the_schedulers_tables(made: Any, checkpoint: Path) -> None:
    model, reference = wb.load(checkpoint).model, Reference(made)
    levels, rows = model.levels(), digits()[-100:]
    noise = torch.Generator().manual_seed(1)
    state = ((rows + torch.rand(rows.shape, generator=noise, dtype=torch.float64)) / GRAY).float()
    path = heating_work(model, state, levels, noise.manual_seed(2)).terms
    assert path is not None
    with torch.no_grad():
        states = [leaves(step.target)[0] for step in model.walk(Start(state), levels, noise.manual_seed(2))]
    x, scale = rows / 8 - 1, (GRAY - 1) / (2 * GRAY)
    wanted = torch.stack([reference.term(x, (s.double() - 0.5) / scale, t) for t, s in enumerate(states)], 1)
    found = path.production.double()
    found[:, 0] += SIZE * math.log(GRAY)  # a density on [0, 1]
    assert (BITS * (found - wanted).abs()).max() < 1e-3
    assert (BITS * (found - wanted).sum(1).abs()).max() < 1e-3
    ends = path.boundary - reference.of_prior(x)  # of one draw of s_K
    assert abs(ends.mean()) < LIMIT * ends.std() / math.sqrt(len(ends))


def test_the_command_reports_the_bound_of_the_tables(made: Any, checkpoint: Path) -> None:
    # Two z-scores for each of three pipelines below 4.5: fails with probability 4e-5.
    data = Digits()
    data.prepare()
    rows = data.examples("test")[:100]
    options = ("--data", "digits", "--split", "test", "--limit", "100", "--no-baselines", "--seed", "3")
    wanted = BITS * Reference(made).bound(rows / 8 - 1, torch.Generator().manual_seed(4))
    for more in (
        ("--paths", "2", "--simulated", "0"),
        ("--paths", "4", "--levels-per-path", "4", "--simulated", "0"),
    ):
        report = walkback("evaluate", checkpoint, *options, *more, "--json").document()
        found = next(figure for figure in report["figures"] if figure["name"] == "bound_bits")
        spread = wanted.std().item() / math.sqrt(len(wanted))
        assert abs(found["value"] - wanted.mean().item()) < LIMIT * math.hypot(found["error"], spread)
    assert wb.load(checkpoint).info.bins == GRAY


@pytest.mark.parametrize("made", ["epsilon"], indirect=True)
def test_every_command_runs_on_an_imported_pipeline(checkpoint: Path, tmp_path: Path) -> None:
    digits_of = ("--data", "digits")
    quick = ("chains=6", "steps=10", "burn_in=2", "rank_chains=0")
    for words in (
        ("sample", "--num", "4", "--out", tmp_path / "samples.npy"),
        ("sample", "--num", "2", "--levels", "5", "--out", tmp_path / "respaced.npy"),
        ("sample", "--num", "2", "--chain", "4", "--excursion", "3", "--out", tmp_path / "chain.npy"),
        ("inpaint", *digits_of, "--num", "2", "--keep", "top", "--out", tmp_path / "inpainted.png"),
        ("diagnose", "reversibility", *(word for text in quick for word in ("--set", text))),
        ("info",),
    ):
        command, *rest = words[:2] if words[0] == "diagnose" else words[:1]
        done = walkback(command, *rest, checkpoint, *words[len(rest) + 1 :])
        assert done.code == 0, done.err
    assert "diffusers-unet" in done.out
    drawn = np.load(tmp_path / "samples.npy")
    assert drawn.shape == (4, 1, 8, 8)
    assert 0 <= drawn.min() <= drawn.max() <= 1
