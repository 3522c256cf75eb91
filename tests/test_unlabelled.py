"""Examples without a class (-1): what needs classes passes them over, and says so where there is nothing else."""

from __future__ import annotations

from typing import final

import pytest
import torch
from tests.toy.irreversible import Parted, real_prior, subject, turning_line
from tests.toy.statistics import normal
from torch import Tensor

from walkback.data import Labelled, Split
from walkback.errors import DataError
from walkback.measuring.quality.features import label_classifier
from walkback_diagnostics.neighbours import neighbours


@final
class PartlyLabelled(Parted, Labelled):
    """Class 1 where the first entry is positive; none where the second is, or in splits that are named."""

    bare: tuple[Split, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return ("negative", "positive")

    def labels(self, split: Split) -> Tensor:
        rows = self.examples(split).flatten(1)
        known = (rows[:, 1] <= 0) & (split not in self.bare)
        return torch.where(known, (rows[:, 0] > 0).long(), -1)


def test_the_classifier_is_trained_and_judged_on_examples_with_a_class() -> None:
    found = label_classifier(PartlyLabelled(normal(4000, 2)), 0, steps=200)
    assert found.accuracy.value > 95


def test_a_split_of_examples_without_a_class_is_named() -> None:
    data = PartlyLabelled(normal(400, 2))
    data.bare = ("test",)
    with pytest.raises(DataError, match=r"No test example of .* has a class"):
        label_classifier(data, 0, steps=2)


def test_neighbours_are_those_with_a_class() -> None:
    data = PartlyLabelled(normal(300, 2))
    known = neighbours(subject(turning_line(0.5), real_prior(2), data))
    assert known.labels is not None
    states = known.states + known.mean
    assert len(states) == int((data.labels("train") >= 0).sum())
    assert torch.equal(states[:, 0] > 0, known.labels == 1)
    data.bare = ("train",)
    bare = neighbours(subject(turning_line(0.5), real_prior(2), data))
    assert (bare.labels, bare.num_classes) == (None, 0)
    assert len(bare.states) == len(data.examples("train"))
