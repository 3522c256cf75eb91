"""What the registry offers, built small: components by name, data for them, and tiny trainings."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tests.program import walkback as program
from torch import Tensor

import walkback as wb
from walkback.configuration.overrides import assign
from walkback.errors import ConfigurationError
from walkback.operators import DataAware, TransitionOperator
from walkback.priors import Prior
from walkback.schedules import Levels, levels_from, tensor_levels
from walkback.state import Space, leaves, spaces
from walkback.support.seeding import generator
from walkback.testing import SPACES, Case

ROWS, WALKS, TEMPERATURES = 8, 2, (1.0, 2.0, 8.0)

IMAGES: Mapping[str, Space] = {"real": Space((1, 8, 8)), "binary": Space((1, 8, 8), "binary")}

_SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("depth", "blocks", "n1", "rank_tests"), 1),
    **dict.fromkeys(("paths", "probes"), 2),
    **dict.fromkeys(("num_steps", "rank_steps", "stationary_steps"), 3),
    **dict.fromkeys(("channels", "chains"), 8),
    **dict.fromkeys(("frames", "reference", "rank_chains"), 40),
    "burn_in": 4,
    "batch": 5,
    "examples": 10,
    "hidden": 16,
    "steps": 60,
    "max_temperature": TEMPERATURES[-1],
    "temperatures": list(TEMPERATURES),
}
"""Values that make a component cheap, for those that have the option."""


@functools.cache
def offers() -> Mapping[str, Sequence[str]]:
    """Names of all components, by kind."""
    found = program("plugins", "list", "--json").document()["offers"]
    return {kind: [offer["name"] for offer in offered] for kind, offered in found.items()}


@functools.cache
def small(kind: str, name: str) -> Mapping[str, Any]:
    """Options that make a component cheap."""
    found = program("plugins", "show", name, "--kind", kind, "--json").document()["options"]
    options: dict[str, Any] = {}
    for option in found:
        path = option["name"].split(".")
        if path[-1] in _SMALL:
            assign(options, path, _like(_SMALL[path[-1]], option["type"]))
    return options


def _like(value: Any, kind: str) -> Any:
    """The value, or a list of two where the option is a list."""
    return [value, value] if kind.startswith("list") and not isinstance(value, list) else value


@functools.cache
def accepted_space(kind: str, name: str) -> Space:
    """The first space that an operator or a prior accepts, images before points."""
    case = Case.of(name, small(kind, name))
    for space in sorted(SPACES, key=lambda space: -len(spaces(space)[0].shape)):
        try:
            case.build(kind, space)
        except ConfigurationError:
            continue
        (leaf,) = spaces(space)
        return leaf
    raise AssertionError(f"{kind} {name} accepts none of {SPACES}.")


@functools.cache
def operator_of(support: str) -> str:
    """An operator of images with this support."""
    return next(name for name in offers()["operator"] if accepted_space("operator", name).support == support)


@functools.cache
def prior_of(support: str) -> str:
    """A prior of images with this support."""
    return next(name for name in offers()["prior"] if accepted_space("prior", name).support == support)


def states(space: Space, num: int, seed: int = 0) -> Tensor:
    """Made-up states `(num, *E)`, float64, on the CPU."""
    noise = torch.rand(num, *space.shape, generator=generator("cpu", seed, "states"), dtype=torch.float64)
    return (noise < 0.4).double() if space.support == "binary" else noise


def build_operator(name: str, space: Space, dtype: torch.dtype) -> TransitionOperator:
    """A new operator on the CPU, fitted to data, its weights moved so that none of its layers ends in zeros."""
    operator: TransitionOperator = Case.of(name, small("operator", name)).build("operator", space)
    operator.to(dtype)
    if isinstance(operator, DataAware):
        operator.fit_data(states(space, 256, seed=1).to(dtype))
    noise = generator("cpu", 0, "weights")
    with torch.no_grad():
        for weight in operator.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise).to(dtype))
    return operator


def build_prior(name: str, space: Space, dtype: torch.dtype) -> Prior:
    """A new prior on the CPU, fitted to data."""
    prior: Prior = Case.of(name, small("prior", name)).build("prior", space)
    prior.to(dtype)
    prior.fit(states(space, 256, seed=1).to(dtype))
    return prior


def levels(device: torch.device) -> Levels:
    """Three levels as tensors on the device."""
    return tensor_levels(levels_from(TEMPERATURES), device)


def train(device: torch.device, operator: str, **changes: Any) -> wb.Trained:
    """Two walks of an operator on the device, three levels each; changes are arguments of `wb.train`."""
    space = accepted_space("operator", operator)
    data = states(space, 100).float()
    chosen: dict[str, Any] = {
        "data": data.bool() if space.support == "binary" else data,
        "prior": prior_of(space.support),
        "schedule": "explicit",
        "batch_size": ROWS,
        "steps": WALKS,
        "precision": "fp32",
        "device": str(device),
        **changes,
    }
    settings = {
        **{f"operator.{option}": value for option, value in small("operator", operator).items()},
        **{f"schedule.{option}": value for option, value in small("schedule", chosen["schedule"]).items()},
        "training.log_every": 1,
        "training.validation_examples": 4,
        "training.warmup": 0,
        "evaluation.limit": 4,
        "samples.num": 4,
        "samples.extra": 0,
        "samples.chains": 2,
        "samples.chain_steps": 2,
        "samples.chain_every": 1,
        **chosen.pop("settings", {}),
    }
    return wb.train(operator, settings=settings, progress=False, **chosen)


def losses(trained: wb.Trained) -> list[float]:
    """The losses of a training, nats per step and example."""
    return [line["loss"] for line in trained.history if "loss" in line]


def all_on(device: torch.device, *modules: torch.nn.Module) -> bool:
    """Whether every parameter and buffer is on the device."""
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    return all(tensor.device.type == device.type for tensor in tensors)


def to_cpu(state: Any) -> Tensor:
    """The only leaf of a state, on the CPU in float64."""
    (leaf,) = leaves(state)
    return leaf.detach().cpu().double()
