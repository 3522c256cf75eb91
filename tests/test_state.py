"""States: one tensor or a tuple, handled alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from walkback.state import (
    Space,
    State,
    batch_size,
    concatenate,
    device_of,
    dimensions,
    leaves,
    map_state,
    spaces,
    sum_events,
)

IMAGE = torch.arange(24.0).reshape(2, 3, 2, 2)
PAIR = (torch.arange(6.0).reshape(2, 3), torch.arange(2.0).reshape(2, 1))


@pytest.mark.parametrize(("state", "number"), [(IMAGE, 1), (PAIR, 2), ((IMAGE,), 1)])
def test_leaves_batch_and_device(state: State, number: int) -> None:
    assert len(leaves(state)) == number
    assert batch_size(state) == 2
    assert device_of(state) == torch.device("cpu")


def test_spaces_and_dimensions_count_every_leaf() -> None:
    image, code = Space((3, 4, 5)), Space((), "binary")
    assert spaces(image) == (image,)
    assert spaces((image, code)) == (image, code)
    assert [image.size, code.size, dimensions((image, code))] == [60, 1, 61]


def test_map_keeps_the_structure() -> None:
    doubled = map_state(torch.add, PAIR, PAIR)
    assert isinstance(doubled, tuple)
    assert [leaf.equal(2 * old) for leaf, old in zip(doubled, PAIR, strict=True)] == [True, True]
    one = map_state(torch.neg, (IMAGE,))
    assert isinstance(one, tuple)
    assert isinstance(map_state(torch.neg, IMAGE), Tensor)


def test_map_refuses_states_of_different_structure() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        map_state(torch.add, PAIR, (PAIR[0],))


def test_concatenation_joins_batches_in_order() -> None:
    whole = concatenate([PAIR, (PAIR[0][:1] + 10, PAIR[1][:1] + 10)])
    assert leaves(whole)[0].tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12]]
    assert leaves(whole)[1].tolist() == [[0], [1], [10]]
    assert leaves(concatenate([IMAGE, IMAGE]))[0].shape == (4, 3, 2, 2)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3), (2, 3, 4, 5)])
def test_sum_events_leaves_the_batch(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape, dtype=torch.float64)
    expected = torch.tensor([row.sum() for row in values], dtype=torch.float64)
    assert torch.allclose(sum_events(values), expected, rtol=1e-14)
    assert sum_events(values).shape == (2,)
