"""What the registry offers, built small: components by name, data for them, and tiny trainings."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from tests.program import walkback as program
from torch import Tensor
from torch.nn.functional import one_hot

import walkback as wb
from walkback.data.symbols import SymbolData
from walkback.errors import ConfigurationError
from walkback.levels import tensor_levels
from walkback.model import Model
from walkback.operators import DataAware, TransitionOperator
from walkback.priors import Prior
from walkback.processes import Process
from walkback.schedules import Levels, levels_from
from walkback.state import Space, leaves, spaces
from walkback.testing import SPACES, Case

ROWS, WALKS, TEMPERATURES = 8, 2, (1.0, 2.0, 8.0)

IMAGES: Mapping[str, Space] = {"real": Space((1, 8, 8)), "binary": Space((1, 8, 8), "binary")}

LINEAR = "linear mean"
WITHOUT_WEIGHTS = ("markov",)
_SPACES = (*SPACES, Space((5, 3), "one-hot"))

_SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("depth", "blocks", "n1", "rank_tests"), 1),
    **dict.fromkeys(("paths", "probes"), 2),
    **dict.fromkeys(("num_steps", "rank_steps", "stationary_steps"), 3),
    **dict.fromkeys(("channels", "block_out_channels", "chains"), 8),
    **dict.fromkeys(("frames", "reference", "rank_chains"), 40),
    "burn_in": 4,
    "batch": 5,
    "examples": 10,
    "hidden": 16,
    "steps": 60,
    "max_temperature": TEMPERATURES[-1],
    "temperatures": list(TEMPERATURES),
    "matrix": [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]],
}
"""Values that make a component cheap, for those that have the option."""


@functools.cache
def offers() -> Mapping[str, Sequence[str]]:
    """Names of all components, by kind."""
    found = program("plugins", "list", "--json").document()["offers"]
    return {kind: [offer["name"] for offer in offered] for kind, offered in found.items()}


@functools.cache
def described(kind: str, name: str) -> Sequence[Mapping[str, Any]]:
    """The options of a component, as `walkback plugins show` has them; those of a part are called `part.option`."""
    found: Sequence[Mapping[str, Any]] = program(
        "plugins", "show", name, "--kind", kind, "--json"
    ).document()["options"]
    return found


@functools.cache
def small(kind: str, name: str) -> Mapping[str, Any]:
    """Options that make a component cheap."""
    found = {}
    for option in described(kind, name):
        last = option["name"].rpartition(".")[2]
        if last in _SMALL:
            found[option["name"]] = _like(_SMALL[last], option["type"])
    return found


@functools.cache
def operators() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """The operators of the registry, and one with each of its networks and temperature laws.

    By a name for each: the component's name, and its options.
    """
    found = {name: (name, small("operator", name)) for name in offers()["operator"]}
    for network in offers().get("network", ()):
        if network == "diffusers-unet" and importlib.util.find_spec("diffusers") is None:
            continue  # needs walkback[diffusers]
        own = {f"network.{option}": value for option, value in small("network", network).items()}
        found[f"{network} network"] = (_with_option("network"), {"network.name": network, **own})
    found[LINEAR] = ("gaussian-mlp", {**small("operator", "gaussian-mlp"), "mean": "linear", "basis": "auto"})
    for law in offers().get("temperature_law", ()):
        name = _with_option("temperature_law")
        found[f"{law} law"] = (name, {**small("operator", name), "temperature_law": law})
    return found


def walkers() -> list[tuple[str, str]]:
    """Pairs of `operators` and processes that heat them."""
    return [
        (name, process)
        for name in operators()
        for process in offers()["process"]
        if (process != "linear" or name == LINEAR) and (process, name) != ("infusion", LINEAR)
    ]


def learners() -> list[str]:
    """Those of `operators` that have weights."""
    return [name for name in operators() if name not in WITHOUT_WEIGHTS]


def _with_option(option: str) -> str:
    """An operator that has an option, one of real states where there is one."""
    names = [
        name
        for name in offers()["operator"]
        if option in [found["name"] for found in described("operator", name)]
    ]
    # Presets have options of their own, which may contradict others: the plain component comes first.
    return min(
        names,
        key=lambda name: ("-" in name, _first_space("operator", make("operator", name)).support != "real"),
    )


def make(kind: str, name: str) -> Case:
    """A component of the registry, to be built cheaply."""
    return Case.of(name, _nested(small(kind, name)))


def make_operator(name: str) -> Case:
    """One of `operators`, to be built."""
    component, options = operators()[name]
    return Case.of(component, _nested(options))


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of parts in tables of their own."""
    found: dict[str, Any] = {}
    for path, value in options.items():
        *parts, last = path.split(".")
        table = found
        for part in parts:
            table = table.setdefault(part, {})
        table[last] = value
    return found


def _like(value: Any, kind: str) -> Any:
    """The value, or a list of two where the option is a list."""
    return [value, value] if kind.startswith("list") and not isinstance(value, list) else value


@functools.cache
def accepted_space(kind: Literal["operator", "prior"], name: str) -> Space:
    """The first space that one of `operators`, or a prior, accepts, images before points."""
    return _first_space(kind, make_operator(name) if kind == "operator" else make(kind, name))


def _first_space(kind: Literal["operator", "prior"], case: Case) -> Space:
    for space in sorted(_SPACES, key=lambda space: -len(spaces(space)[0].shape)):
        try:
            case.build(kind, space)
        except ConfigurationError:
            continue
        (leaf,) = spaces(space)
        return leaf
    raise AssertionError(f"{kind} {case.label} accepts none of {_SPACES}.")


@functools.cache
def operator_of(support: str) -> str:
    """An operator of images with this support."""
    names = sorted(offers()["operator"], key=lambda name: "-" in name)
    return next(name for name in names if accepted_space("operator", name).support == support)


@functools.cache
def prior_of(support: str) -> str:
    """A prior of images with this support."""
    return next(name for name in offers()["prior"] if accepted_space("prior", name).support == support)


def generator(device: torch.device | str, seed: int) -> torch.Generator:
    """A generator on the device."""
    return torch.Generator(device).manual_seed(seed)


def states(space: Space, num: int, seed: int = 0) -> Tensor:
    """Made-up states `(num, *E)`, float64, on the CPU."""
    noise = torch.rand(num, *space.shape, generator=generator("cpu", seed), dtype=torch.float64)
    if space.support == "one-hot":
        return one_hot(noise.argmax(-1), space.shape[-1]).double()
    return (noise < 0.4).double() if space.support == "binary" else noise


def data_of(space: Space, num: int) -> Any:
    """Made-up states of a space, as `wb.train` takes them."""
    made = states(space, num).float()
    if space.support == "one-hot":
        return SymbolData(made.argmax(-1), symbols=space.shape[-1])
    return made.bool() if space.support == "binary" else made


def build_operator(name: str, space: Space, dtype: torch.dtype) -> TransitionOperator:
    """A new operator on the CPU, fitted to data, its weights moved so that none of its layers ends in zeros."""
    operator: TransitionOperator = make_operator(name).build("operator", space)
    operator.to(dtype)
    if isinstance(operator, DataAware):
        operator.fit_data(states(space, 256, seed=1).to(dtype))
    noise = generator("cpu", 0)
    with torch.no_grad():
        for weight in operator.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise).to(dtype))
    return operator


def build_prior(name: str, space: Space, dtype: torch.dtype) -> Prior:
    """A new prior on the CPU, fitted to data."""
    prior: Prior = make("prior", name).build("prior", space)
    prior.to(dtype)
    prior.fit(states(space, 256, seed=1).to(dtype))
    return prior


def build_process(name: str, space: Space, dtype: torch.dtype) -> Process:
    """A new process on the CPU, fitted to data where it asks for them."""
    options = _nested(small("process", name))
    if "noise" in [option["name"] for option in described("process", name)]:
        options["noise"] = {"binary": "flips", "one-hot": "symbols"}.get(space.support, "exploding")
    process: Process = Case.of(name, options).build("process")
    process.to(dtype)
    if isinstance(process, DataAware):
        process.fit_data(states(space, 256, seed=1).to(dtype))
    return process


def process_for(objective: str) -> str:
    """A process whose transitions the objective supports."""
    return "diffusion" if objective in ("kl", "denoising") else "tied"


def build_model(operator: str, process: str, dtype: torch.dtype) -> Model:
    """A new model on the CPU, its operator and prior fitted to data."""
    space = accepted_space("operator", operator)
    return Model(
        build_operator(operator, space, dtype),
        make("schedule", "explicit").build("schedule"),
        build_process(process, space, dtype),
        build_prior(prior_of(space.support), space, dtype),
    )


def levels(device: torch.device) -> Levels:
    """Three levels as tensors on the device."""
    return tensor_levels(levels_from(TEMPERATURES), device)


def train(device: torch.device, operator: str, **changes: Any) -> wb.Trained:
    """Two walks of one of `operators` on the device, three levels each; changes are arguments of `wb.train`."""
    space = accepted_space("operator", operator)
    component, options = operators()[operator]
    chosen: dict[str, Any] = {
        "data": data_of(space, 100),
        "prior": prior_of(space.support),
        "schedule": "explicit",
        "batch_size": ROWS,
        "steps": WALKS,
        "precision": "fp32",
        "device": str(device),
        **changes,
    }
    settings = {
        **{f"operator.{option}": value for option, value in options.items()},
        **{f"schedule.{option}": value for option, value in small("schedule", chosen["schedule"]).items()},
        "training.log_every": 1,
        "training.validation_examples": 8,
        "training.warmup": 0,
        "evaluation.limit": 8,
        "samples.num": 4,
        "samples.extra": 0,
        "samples.chains": 2,
        "samples.chain_steps": 2,
        "samples.chain_every": 1,
        **chosen.pop("settings", {}),
    }
    return wb.train(component, settings=settings, progress=False, **chosen)


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
