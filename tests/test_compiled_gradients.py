"""A compiled operator keeps the gradients of its own forward pass, or breaks a law."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.toy.paper import gaussian_mlp
from torch import Tensor, nn

from walkback.schedules import Level
from walkback.state import Space
from walkback.support.seeding import generator
from walkback.testing import Case, ConformanceError, Outcome, checks
from walkback.testing.compiled import require_same_gradients
from walkback_paper.gaussian import Gaussian

STATE = torch.randn(16, 3, generator=generator("cpu", 0, "state"))
LEVEL = Level(torch.tensor([3]), torch.tensor([4.0]))

Compiled = Callable[..., Any]
COMPILE = nn.Module.compile


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


def operator(backend: Callable[..., Compiled], dropout: float = 0.0) -> Gaussian:
    """A new one, whose heads are 0."""
    torch.manual_seed(0)
    made = gaussian_mlp(Space((3,)), hidden=16, depth=2, dropout=dropout)
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
    require_same_gradients(made, STATE, LEVEL, seed=0)
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
        pytest.raises(
            ConformanceError, match=r"compiled operator \(\d+ of \d+ parameters.* without --compile"
        ),
    ):
        require_same_gradients(made, STATE, LEVEL, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        require_same_gradients(operator(sound, dropout), STATE, LEVEL, seed=0)


def test_an_operator_that_is_always_random_is_not_judged() -> None:
    made = operator(cutting)
    made.network.register_forward_hook(
        lambda _, __, outputs: tuple(output * 4 * torch.randn_like(output) for output in outputs)
    )
    require_same_gradients(made, STATE, LEVEL, seed=0)


def checked(case: Case, monkeypatch: pytest.MonkeyPatch, backend: Callable[..., Compiled]) -> Outcome:
    """The law of the kit, with another compiler than PyTorch's."""
    monkeypatch.setattr(nn.Module, "compile", lambda module: COMPILE(module, backend=backend))
    law = next(check for check in checks("operator") if check.name == "compiled-gradients")
    return law.outcome(case)


def test_the_law_refuses_what_forgets_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.of(
        "gaussian-mlp", {"network": {"hidden": 8, "depth": 1}}, spaces=(Space((3,)),), thorough=True
    )
    assert checked(case, monkeypatch, sound).status == "passed"
    outcome = checked(case, monkeypatch, cutting)
    assert outcome.status == "failed"
    assert "miscompiles its backward pass" in outcome.message


def test_the_law_is_for_thorough_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.of("gaussian-mlp", {"network": {"hidden": 8, "depth": 1}}, spaces=(Space((3,)),))
    assert checked(case, monkeypatch, cutting).status == "skipped"
