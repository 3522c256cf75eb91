"""Sampling in bf16: weights are cast once, a step is close to that in fp32, and chains have the same statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from walkback.building.devices import Precision, autocast, inference
from walkback.building.preparation import Prepared, prepare
from walkback.configuration.layering import resolve
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.inputs import ModelRequest
from walkback.jobs.sample import SampleJob
from walkback.operators import TransitionOperator
from walkback.sampling import plan
from walkback.sampling.chains import chain, last
from walkback.support.watch import Silent

CPU = torch.device("cpu")
MLP = ("operator.network.hidden=64",)
CONV = ("operator.network.channels=[8,8]",)
UNET = ("operator.network.channels=[8,8]", "operator.network.blocks=1", "operator.network.patch=1")

ERROR = 2**-7
"""Largest error of a step in bf16, root mean square over its own length: two units of bf16's last place."""


def frozen(operator: str, overrides: tuple[str, ...], seed: int = 0) -> tuple[TransitionOperator, Tensor]:
    """An operator with random weights that moves states, and states of data `(256, 1, 8, 8)`."""
    registry = Registry.discover()
    names = {"operator": operator, "data": "digits"}
    work: Prepared = prepare(resolve(registry, components=names, overrides=overrides), registry)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in work.model.operator.parameters():
            if weight.dim() > 1:  # outputs of new networks are zero
                weight += torch.randn(weight.shape, generator=noise) * 0.3 / weight[0].numel() ** 0.5
    states = work.dataset.states(work.dataset.examples("train")[:256], noise)
    return work.model.operator.eval().requires_grad_(False), states


class Casts(TorchDispatchMode):
    """Counts the casts of tensors of some shapes to bf16."""

    def __init__(self, shapes: set[torch.Size]) -> None:
        super().__init__()
        self.count = 0
        self._shapes = shapes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cast = func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.bfloat16
        self.count += bool(cast and args[0].shape in self._shapes)
        return func(*args, **(kwargs or {}))


@contextmanager
def recast(operator: nn.Module, device: torch.device, precision: Precision) -> Iterator[None]:
    with torch.no_grad(), autocast(device, precision):
        yield


def test_weights_are_cast_once() -> None:
    operator, states = frozen("gaussian-mlp", MLP)
    weights = {weight.shape for weight in operator.parameters() if weight.dim() == 2}
    found = {}
    for way in (inference, recast):
        with way(operator, CPU, "bf16"), Casts(weights) as casts:
            last(chain(operator, states, 6, torch.Generator()))
        found[way] = casts.count
    assert found[inference] * 6 == found[recast] > 0
    assert not any(weight.requires_grad for weight in operator.parameters())


@pytest.mark.parametrize(
    ("operator", "overrides"),
    [("gaussian-mlp", MLP), ("gaussian-conv", CONV), ("gaussian-unet", UNET)],
)
def test_the_error_of_a_step_is_bounded(operator: str, overrides: tuple[str, ...]) -> None:
    model, states = frozen(operator, overrides)
    drawn = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        with inference(model, CPU, precision):
            drawn[precision] = last(chain(model, states, 1, torch.Generator().manual_seed(1)))
    fp32, bf16 = (found for found in drawn.values() if isinstance(found, Tensor))
    error = (bf16 - fp32).square().mean().sqrt() / (fp32 - states).square().mean().sqrt()
    assert 0 < error < ERROR


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)  # by torch itself
def test_a_compiled_chain_is_the_same_but_for_rounding() -> None:
    operator, states = frozen("gaussian-mlp", MLP)
    ends = []
    for way in (operator, plan.frozen(operator)):
        with inference(operator, CPU, "bf16"):
            ends.append(last(chain(way, states, 3, torch.Generator().manual_seed(1))))
    eager, compiled = (end for end in ends if isinstance(end, Tensor))
    error = (compiled - eager).square().mean().sqrt() / (eager - states).square().mean().sqrt()
    assert error < ERROR


@pytest.mark.parametrize("options", [{}, {"chain": 4, "excursion": 3}])
def test_what_cannot_be_compiled_is_refused(options: dict[str, int], tmp_path: Path) -> None:
    job = SampleJob(ModelRequest(tmp_path / "any.safetensors"), compiled=True, **options)
    with pytest.raises(ConfigurationError, match="compile = True compiles single steps"):
        job.check(Registry.discover(), Silent())


def test_chains_have_the_same_statistics() -> None:
    """Means and variances of 64 dimensions after 100 steps, other noise: |z| < 4.5 but for 1 of 1,100 seeds."""
    operator, states = frozen("gaussian-mlp", MLP)
    ends = []
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for seed, precision in enumerate(precisions):
        with inference(operator, CPU, precision):
            end = last(chain(operator, states.repeat(8, 1, 1, 1), 100, torch.Generator().manual_seed(seed)))
        assert isinstance(end, Tensor)
        ends.append(end.flatten(1).double())
    starts = states.flatten(1).double().repeat(8, 1)
    for moment in (1, 2):
        # Rows that share a start are not independent: compare what happened to each start.
        values = [(end - starts).pow(moment).reshape(8, 256, 64).mean(0) for end in ends]
        difference = values[1] - values[0]
        z = difference.mean(0) / (difference.std(0) / 256**0.5)
        assert z.abs().max() < 4.5
