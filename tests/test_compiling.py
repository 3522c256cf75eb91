"""A compiled operator keeps the gradients of its own forward pass, or is refused before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import run
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.schedules import Level
from walkback.state import Space
from walkback.support.seeding import generator
from walkback.training.compiling import require_same_gradients
from walkback.walk import Start
from walkback_paper.gaussian import GaussianMLP

STATE = torch.randn(16, 3, generator=generator("cpu", 0, "state"))
LEVEL = Level(torch.tensor([3]), torch.tensor([4.0]))

Compiled = Callable[..., Any]


def sound(graph: torch.fx.GraphModule, _: list[Tensor]) -> Compiled:
    """A compiler that leaves everything as it is."""
    return graph.forward


def cutting(graph: torch.fx.GraphModule, _: list[Tensor], after: str = "silu") -> Compiled:
    """A compiler that forgets a gradient: the first result of `after` is a constant to it."""
    node = next(node for node in graph.graph.nodes if after in str(node.target))
    with graph.graph.inserting_after(node):
        cut = graph.graph.call_method("detach", (node,))
    node.replace_all_uses_with(cut, delete_user_cb=lambda user: user is not cut)
    graph.recompile()
    return graph.forward


def operator(backend: Callable[..., Compiled], dropout: float = 0.0) -> GaussianMLP:
    """A new one, whose heads are 0."""
    torch.manual_seed(0)
    made = GaussianMLP(Space((3,)), hidden=16, depth=2, dropout=dropout)
    made.compile(backend=backend)
    return made


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What is compiled here is no concern of other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_sound_gradients_pass_and_nothing_has_changed() -> None:
    made = operator(sound)
    made.eval()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    require_same_gradients(made, Start(STATE), LEVEL, seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert not made.training
    assert all(parameter.grad is None for parameter in made.parameters())
    assert before.keys() == made.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_forgotten_gradient_is_refused(dropout: float, bf16: bool) -> None:
    """Though the heads of a new operator are 0, and nothing before them has a gradient yet."""
    made = operator(cutting, dropout)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
        pytest.raises(ConfigurationError, match=r"not its own \(\d+ of \d+ parameters.* --no-compile"),
    ):
        require_same_gradients(made, Start(STATE), LEVEL, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        require_same_gradients(operator(sound, dropout), Start(STATE), LEVEL, seed=0)


def test_an_operator_that_is_always_random_is_not_judged() -> None:
    made = operator(cutting)
    made.network.register_forward_hook(
        lambda _, __, outputs: tuple(output * 4 * torch.randn_like(output) for output in outputs)
    )
    require_same_gradients(made, Start(STATE), LEVEL, seed=0)


def test_a_run_is_refused_before_it_leaves_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compile_in_place = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_in_place(module, backend=cutting))
    done = run(tmp_path / "cut", "--compile")
    assert done.code == 2
    assert "compiles its backward pass wrongly" in done.err
    assert not (tmp_path / "cut" / "config.toml").exists()
    # Nothing to learn, so nothing to look at.
    assert run(tmp_path / "untrained", "--compile", steps=0).code == 0
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_in_place(module, backend=sound))
    assert run(tmp_path / "sound", "--compile").code == 0
