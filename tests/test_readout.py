"""What is shown of a state: the mean of a step from it against closed forms and samples, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.program import digest, run, walkback
from tests.toy.exact import UniformPrior, autoregressive, cycle, gaussian, model
from tests.toy.paper import gaussian_mlp
from tests.toy.statistics import normal, rng
from torch import Tensor

import walkback as wb
from walkback.building.assembly import load_model
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel, ProductKernel, expectation
from walkback.sampling.readout import read_out, require_readout
from walkback.schedules import levels_from
from walkback.state import Space, leaves

MEAN, VARIANCE = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
LIMIT = 4.5  # standard errors; below 1e-5 by chance for one figure, and seeds are fixed
DRAWS = 40_000


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of digits."""
    place = tmp_path_factory.mktemp("digits")
    assert run(place / "a").code == 0
    return place / "a" / "final.safetensors"


def recorded(checkpoint: Path, out: Path, *options: str) -> Tensor:
    """Frames (F, N, *E) of four chains."""
    done = walkback(
        "sample", checkpoint, "--num", "4", "--out", out, "--chain", "6", "--every", "2", *options
    )
    assert done.code == 0, done.err
    with np.load(out) as file:
        return torch.from_numpy(file["states"])


# --- the mean


def test_the_mean_of_a_linear_step_is_linear() -> None:
    """E[s' | s] = μ + a (s - μ)."""
    state = normal(5, 2).double()
    shown = read_out(autoregressive(0.6, MEAN, VARIANCE), state, "mean")
    torch.testing.assert_close(shown, MEAN + 0.6 * (state - MEAN), rtol=1e-12, atol=1e-12)


def test_the_mean_at_a_temperature_is_that_of_a_step_at_it() -> None:
    """A gaussian_mlp that nothing has been learned by is a linear posterior mean: (s - m) σ_d² / (σ²T + σ_d²) + m."""
    operator = gaussian_mlp(Space((3,)), sigma=0.5)
    state = normal(5, 3).float()
    for readout, temperature in (("mean", 1.0), ("mean@1", 1.0), ("mean@2.25", 2.25), ("mean@64", 64.0)):
        torch.testing.assert_close(
            read_out(operator, state, readout), state / (1 + 0.25 * temperature), atol=1e-6, rtol=1e-5
        )


def test_the_state_is_shown_as_it_is() -> None:
    state = normal(5, 2).double()
    assert read_out(autoregressive(0.6, MEAN, VARIANCE), state, "state") is state


@pytest.mark.parametrize(
    "kernel",
    [
        NormalKernel(normal(3).double().expand(DRAWS, 3), torch.tensor(0.3).double()),
        BernoulliKernel(normal(3, seed=2).double().expand(DRAWS, 3)),
        ProductKernel(
            [
                NormalKernel(normal(2).double().expand(DRAWS, 2), torch.tensor(2.0).double()),
                BernoulliKernel(normal(3, seed=3).double().expand(DRAWS, 3)),
            ]
        ),
    ],
    ids=["normal", "bernoulli", "product"],
)
def test_the_expectation_is_the_mean_of_samples(kernel: Kernel) -> None:
    """40,000 samples of every dimension, |z| < 4.5."""
    expected = expectation(kernel)
    assert expected is not None
    for told, drawn in zip(leaves(expected), leaves(kernel.sample(rng())), strict=True):
        z = (drawn.mean(0) - told[0]) / (drawn.std(0) / DRAWS**0.5)
        assert float(z.abs().max()) < LIMIT


def test_the_expectation_carries_no_graph() -> None:
    logits = normal(2, 3).requires_grad_()
    for kernel in (NormalKernel(logits, torch.ones(())), BernoulliKernel(logits)):
        assert not kernel.expectation().requires_grad


# --- what is refused


def test_a_kernel_that_does_not_tell_its_mean_is_refused_by_name() -> None:
    system = model(cycle(0.6), UniformPrior(3), levels_from([1.0]))
    require_readout(system, "state")
    with pytest.raises(ConfigurationError, match=r"CycleKernel.*readout \"state\""):
        require_readout(system, "mean")


def test_a_product_tells_its_mean_only_if_all_its_parts_do() -> None:
    one_hot = torch.eye(3).double()
    silent = cycle(0.6)(one_hot, levels_from([1.0])[0]).cooling(levels_from([1.0])[0])
    assert expectation(ProductKernel([NormalKernel(one_hot, torch.ones(())), silent])) is None


def test_an_operator_and_a_prior_without_tensors_are_on_the_cpu() -> None:
    system = model(autoregressive(0.6, MEAN[:1], VARIANCE[:1]), UniformPrior(1), levels_from([1.0]))
    assert not [*system.operator.state_dict(), *system.prior.state_dict()]
    assert system.device == torch.device("cpu")
    require_readout(system, "mean")


@pytest.mark.parametrize("part", ["parameter", "buffer", "prior"])
def test_a_model_is_where_its_tensors_are(part: str) -> None:
    """An operator may have buffers alone, as one that learns nothing has, or nothing, and its prior moments."""
    operator, there = autoregressive(0.6, MEAN, VARIANCE), torch.device("meta")
    prior = gaussian(MEAN, VARIANCE).to(there)
    if part == "parameter":
        operator.weight = torch.nn.Parameter(torch.zeros(1, device=there))
        prior.to_empty(device="cpu")
    if part == "buffer":
        operator.register_buffer("variance", torch.zeros(1, device=there))
        prior.to_empty(device="cpu")
    assert model(operator, prior, levels_from([1.0])).device == there


@pytest.mark.parametrize(
    "readout",
    [
        "median",
        "",
        "mean@",
        "mean@0",
        "mean@0.0",
        "mean@-1",
        "mean@nan",
        "mean@inf",
        "mean@1e3",
        "state@2",
        "Mean",
    ],
)
def test_an_unknown_readout_is_refused(readout: str) -> None:
    system = model(autoregressive(0.6, MEAN, VARIANCE), gaussian(MEAN, VARIANCE), levels_from([1.0]))
    with pytest.raises(ConfigurationError, match=rf"Got readout = '{readout}', expected .*mean@2"):
        require_readout(system, readout)


def test_the_program_refuses_it_before_it_draws(digits: Path, tmp_path: Path) -> None:
    done = walkback("sample", digits, "--out", tmp_path / "a.png", "--readout", "median")
    assert done.code == 2
    assert "'median', expected" in done.err
    assert not (tmp_path / "a.png").exists()
    done = run(tmp_path / "b", "--set", "samples.readout=mean@0")
    assert done.code == 2
    assert 'samples.readout: got "mean@0", expected "state", "mean" or "mean@T"' in " ".join(done.err.split())
    assert not (tmp_path / "b").exists()


# --- in the program


def test_a_mean_is_that_of_a_step_from_the_state_that_is_recorded_else(digits: Path, tmp_path: Path) -> None:
    states = recorded(digits, tmp_path / "a.npz")
    means = recorded(digits, tmp_path / "b.npz", "--readout", "mean")
    warmer = recorded(digits, tmp_path / "c.npz", "--readout", "mean@2")
    operator = load_model(digits, Registry.discover(), torch.device("cpu")).model.operator.eval()
    for state, mean, other in zip(states, means, warmer, strict=True):
        torch.testing.assert_close(read_out(operator, state, "mean"), mean)
        torch.testing.assert_close(read_out(operator, state, "mean@2"), other)
        assert not mean.equal(state)
        assert not mean.equal(other)


def test_python_shows_what_the_program_shows(digits: Path, tmp_path: Path) -> None:
    drawn = wb.sample(digits, 4, chain=6, every=2, readout="mean", progress=False)
    assert torch.as_tensor(drawn.frames).equal(recorded(digits, tmp_path / "a.npz", "--readout", "mean"))


def test_inpainting_by_the_mean_keeps_the_kept_part(digits: Path, tmp_path: Path) -> None:
    found = {}
    for readout in ("state", "mean"):
        out = tmp_path / f"{readout}.npz"
        options = ("--keep", "top", "--num", "4", "--extra", "3", "--readout", readout)
        assert walkback("inpaint", digits, "--out", out, *options).code == 0
        with np.load(out) as file:
            found[readout] = file["filled"]
            assert np.array_equal(file["filled"][..., :4, :], file["original"][..., :4, :])
    assert not np.array_equal(found["state"], found["mean"])


def test_a_run_may_draw_means_and_trains_and_samples_the_same(digits: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "b", "--set", "samples.readout=mean").code == 0
    with_means, without = tmp_path / "b", digits.parent
    first, second = (
        load_model(place / "final.safetensors", Registry.discover(), torch.device("cpu")).model.operator
        for place in (with_means, without)
    )
    for name, value in first.state_dict().items():
        assert value.equal(second.state_dict()[name]), name
    for picture in ("annealed.png", "chain.png"):
        assert digest(with_means / "samples" / picture) != digest(without / "samples" / picture)
    assert digest(with_means / "samples" / "walk.png") == digest(without / "samples" / "walk.png")


@pytest.mark.parametrize("readout", ["state", "mean"])
def test_pictures_of_a_run_say_what_they_are_made_of(tmp_path: Path, readout: str) -> None:
    options = ("--set", f"samples.readout={readout}", "--set", "training.sample_every=4")
    assert run(tmp_path / "a", *options).code == 0
    found = {}
    for name in ("annealed", "chain", "step-4", "walk"):
        with Image.open(tmp_path / "a" / "samples" / f"{name}.png") as picture:
            found[name] = json.loads(picture.info["walkback"])
    assert [found[name].pop("readout") for name in ("annealed", "chain", "step-4")] == [readout] * 3
    assert found["annealed"] == found["chain"] == found["step-4"] == found["walk"]
    assert found["walk"]["data"] == "digits"


def test_evaluation_compares_means_where_asked_to(digits: Path) -> None:
    few = ("--limit", "20", "--paths", "2", "--simulated", "0", "--no-baselines", "--samples", "40", "--json")
    by = {
        readout: walkback("evaluate", digits, *few, "--readout", readout).document()
        for readout in ("state", "mean")
    }
    assert by["mean"]["protocol"]["readout"] == "mean"
    values = {
        readout: {figure["name"]: figure["value"] for figure in document["figures"]}
        for readout, document in by.items()
    }
    assert values["state"]["bound"] == values["mean"]["bound"]
    assert values["state"] != values["mean"]


def test_a_readout_without_samples_is_refused(digits: Path) -> None:
    done = walkback("evaluate", digits, "--readout", "mean")
    assert done.code == 2
    assert "add --samples" in done.err
