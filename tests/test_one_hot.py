"""States of symbols, one-hot: what is said of their likelihood, and the laws that judge their kernels and priors."""

from __future__ import annotations

import math

import pytest
import torch
from tests.toy.statistics import normal, rng
from torch import Tensor
from torch.nn.functional import one_hot

from walkback.data import DataInfo
from walkback.measuring.baselines import baseline_figures
from walkback.measuring.estimates import nll_figures
from walkback.measuring.verdict import uniform_nats, verdict
from walkback.state import Space, State, leaves
from walkback.testing.cases import ConformanceError
from walkback.testing.laws import Law, require_normalized, require_samples
from walkback.testing.probes import data_like, require_state

SPACE = Space((3, 4), "one-hot")
INFO = DataInfo("symbols", (3, 4), "one-hot")
LOGITS = normal(3, 4)


def draws(num: int, generator: torch.Generator, logits: Tensor = LOGITS) -> Tensor:
    """`(num, 3, 4)`, independent symbols."""
    uniform = torch.rand(num, 3, 1, generator=generator, dtype=torch.float64)
    return one_hot((uniform >= logits.softmax(-1).cumsum(-1)[:, :-1]).sum(-1), 4).float()


def log_prob(state: State) -> Tensor:
    return (leaves(state)[0] * LOGITS.log_softmax(-1)).sum((1, 2)).float()


def test_bits_that_are_not_free_have_no_bits_per_dimension() -> None:
    nats = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert [figure.name for figure in nll_figures("bound", nats, INFO, "")] == ["bound"]
    free = DataInfo("bits", (3, 4), "binary")
    assert [figure.name for figure in nll_figures("bound", nats, free, "")] == ["bound", "bound_bits"]
    assert DataInfo.from_dict(INFO.to_dict()) == INFO


def test_simple_models_of_symbols_have_their_closed_forms() -> None:
    """Uniform: 3 log 4. Frequencies: the entropy, of 5,000 training states, to a hundredth."""
    train, test = draws(5000, rng(0)), draws(5000, rng(1))
    found = {figure.name: figure for figure in baseline_figures(train, test, INFO, 0)}
    assert found.keys() == {"baseline_uniform", "baseline_symbols"}
    assert found["baseline_uniform"].value == pytest.approx(3 * math.log(4))
    assert uniform_nats(INFO) == pytest.approx(3 * math.log(4))
    entropy = -float((LOGITS.softmax(-1) * LOGITS.log_softmax(-1)).sum())
    assert found["baseline_symbols"].value == pytest.approx(entropy, abs=0.05)
    (line,) = verdict("bound", 4.5, INFO, {})
    assert "equally likely symbols" in line


def test_a_law_of_symbols_is_told_from_a_wrong_one() -> None:
    for space in (SPACE, Space((5, 4), "one-hot")):  # listed, and not
        logits = normal(*space.shape)

        def sample(num: int, generator: torch.Generator, logits: Tensor = logits) -> Tensor:
            weights = logits - torch.rand((num, *logits.shape), generator=generator).log().neg().log()
            return one_hot(weights.argmax(-1), 4).float()

        def density(state: State, logits: Tensor = logits) -> Tensor:
            return (leaves(state)[0] * logits.log_softmax(-1)).sum((1, 2)).float()

        right = Law("law", (space,), sample, density)
        assert require_normalized(right)
        require_samples(right)
        with pytest.raises(ConformanceError, match="normalizing constant"):
            require_normalized(Law("law", (space,), sample, lambda state: density(state) + 0.5))
        with pytest.raises(ConformanceError):
            require_samples(Law("law", (space,), sample, lambda state: 0.2 * density(state)))


def test_states_of_symbols_are_made_up_and_checked() -> None:
    state = data_like(SPACE, 50)
    require_state(state, SPACE, 50, "a state")
    assert len(torch.unique(leaves(state)[0].argmax(-1))) == 4
    with pytest.raises(ConformanceError, match="not one-hot along the last dimension"):
        require_state(torch.zeros(50, 3, 4), SPACE, 50, "a state")
