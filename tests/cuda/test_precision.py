"""Lower precisions and the compiler change nothing but rounding."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from tests.cuda.parts import (
    ROWS,
    WALKS,
    accepted_space,
    build_operator,
    learners,
    levels,
    losses,
    offers,
    operators,
    states,
    to_cpu,
    train,
)

pytestmark = pytest.mark.cuda

NATS = 0.05
"""Nats per dimension that rounding to bf16 may change a loss by."""


@pytest.fixture
def tf32() -> Iterator[None]:
    """Products of float32 matrices and convolutions are computed in TF32, where the device has it."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("name", learners())
def test_bf16_and_fp32_learn_alike(device: torch.device, name: str) -> None:
    """The loss of the first walk, of the same noise: weights are still the same."""
    dimensions = accepted_space("operator", name).size
    fp32, bf16 = (losses(train(device, name, precision=precision))[0] for precision in ("fp32", "bf16"))
    assert abs(bf16 - fp32) < NATS * dimensions


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("name", operators())
def test_tf32_is_near_float64(device: torch.device, name: str) -> None:
    """Log-densities of a step from a state to itself, which has a mean close to it."""
    space = accepted_space("operator", name)
    exact = build_operator(name, space, torch.float64).eval()
    rounded = deepcopy(exact).float().to(device)
    state = states(space, ROWS)
    with torch.no_grad():
        for level, moved in zip(levels(torch.device("cpu")), levels(device), strict=True):
            wanted = exact(state, level).cooling(level).log_prob(state)
            moved_state = state.float().to(device)
            found = rounded(moved_state, moved).cooling(moved).log_prob(moved_state)
            torch.testing.assert_close(to_cpu(found), wanted, rtol=0.02, atol=NATS * space.size)


NETWORKS = [name for name in operators() if name not in offers()["operator"]] or list(operators())
"""Each network once, because compiling takes half a minute."""


@pytest.mark.filterwarnings("default")  # the compiler's own, which differ from version to version
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_networks_learn(device: torch.device, name: str) -> None:
    """Before the first walk the compiled gradients are compared with those of the network as it is written."""
    settings = {"run.compile": True, "training.updates": "stacked"}
    compiled = train(device, name, precision="auto", settings=settings)
    plain = train(device, name, precision="auto", settings={"training.updates": "stacked"})
    dimensions = accepted_space("operator", name).size
    assert len(losses(compiled)) == WALKS
    for found, expected in zip(losses(compiled), losses(plain), strict=True):
        assert abs(found - expected) < NATS * dimensions
