"""`run.precision = "auto"`: what it chooses, says and records, and that resuming keeps it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import TINY, run, walkback
from torch import nn

from walkback.building.preparation import Prepared, prepare
from walkback.configuration.layering import resolve
from walkback.errors import WalkbackError
from walkback.extensions.registry import Registry
from walkback.support.watch import Silent
from walkback.training import precision
from walkback.training.precision import losses, settled

Units = Callable[[bool], None]


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> Units:
    """Fakes whether the processor has bf16 units."""

    def fake(there: bool) -> None:
        found = {"avx512_bf16": there, "amx_bf16": False}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)

    return fake


class Noted:
    """A watch that keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(Silent(), name)


def prepared(*overrides: str) -> Prepared:
    registry = Registry.discover()
    words = [word for word in TINY if word not in ("--set", "--batch-size", "8")]
    settings = [*words, "training.batch_size=8", "run.precision=auto", *overrides]
    return prepare(resolve(registry, overrides=settings), registry)


def test_without_units_it_is_fp32(units: Units, monkeypatch: pytest.MonkeyPatch) -> None:
    units(False)
    monkeypatch.setattr(precision, "losses", lambda _: pytest.fail("not needed"))
    watch = Noted()
    found = settled(prepared(), watch)
    assert (found.precision, found.config.run.precision) == ("fp32", "fp32")
    assert watch.notes == ["run.precision = auto: fp32, since this cpu has no bf16 units."]


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [
        (0.5, 0.5099, "bf16"),
        (0.5, 0.5101, "fp32"),
        (-0.5, -0.5101, "fp32"),
        (-50.0, -50.49, "bf16"),
        (50.0, 50.51, "fp32"),
        (0.5, math.nan, "fp32"),
        (math.inf, math.inf, "fp32"),
    ],
)
def test_it_is_bf16_if_the_losses_agree(
    fp32: float, bf16: float, expected: str, units: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    units(True)
    monkeypatch.setattr(precision, "losses", lambda _: (fp32, bf16))
    watch = Noted()
    found = settled(prepared(), watch)
    assert (found.precision, found.config.run.precision) == (expected, expected)
    (note,) = watch.notes
    assert note.startswith(
        f"run.precision = auto: {expected}, since the loss of a walk is {bf16:.4f} nats/dim in bf16"
    )


def test_a_check_that_fails_is_fp32(units: Units, monkeypatch: pytest.MonkeyPatch) -> None:
    units(True)

    def fail(_: Prepared) -> tuple[float, float]:
        raise WalkbackError("not finite")

    monkeypatch.setattr(precision, "losses", fail)
    assert settled(prepared(), Silent()).precision == "fp32"


@pytest.mark.parametrize("objective", ["walkback", "elbo"])
def test_losses_are_those_of_the_same_states(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32 twice they are equal to rounding; in bf16 they differ; and nothing is left."""
    work = prepared(f"objective.name={objective}", "training.updates=batch", "operator.network.dropout=0.5")
    before = {name: value.clone() for name, value in work.model.tensors().items()}
    random = torch.get_rng_state()
    fp32, bf16 = losses(work)
    assert bf16 != fp32
    assert bf16 == pytest.approx(fp32, abs=0.05)
    monkeypatch.setattr(precision, "autocast", lambda device, _: torch.autocast("cpu", enabled=False))
    assert losses(work) == (fp32, pytest.approx(fp32, rel=1e-6))
    assert all(value.equal(before[name]) for name, value in work.model.tensors().items())
    assert torch.get_rng_state().equal(random)


def test_a_network_that_bf16_spoils_is_noticed() -> None:
    """Noise of deviation 0.001 around states that are rounded to 0.002."""

    def rounded(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        state, *rest = given
        return (state.bfloat16().float() if torch.is_autocast_enabled("cpu") else state, *rest)

    work = prepared("operator.sigma=0.001")
    work.model.operator.register_forward_pre_hook(rounded)
    fp32, bf16 = losses(work)
    assert abs(bf16 - fp32) > 0.01 * max(1.0, abs(fp32))


def test_a_run_records_what_it_chose_and_keeps_it(
    units: Units, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units(True)
    monkeypatch.setattr(precision, "losses", lambda _: (1.0, 1.0))
    done = run(tmp_path / "a", "--precision", "auto", steps=2)
    assert done.code == 0
    assert "run.precision = auto: bf16" in done.err
    config = tomllib.loads((tmp_path / "a/config.toml").read_text("utf-8"))
    assert config["run"]["precision"] == "bf16"
    units(False)
    again = walkback("run", "--resume", tmp_path / "a", "--steps", "3")
    assert again.code == 0
    assert "auto" not in again.err
    assert ", bf16" in again.err
