"""The feature network: it learns, repeats, and is asked in pieces."""

from __future__ import annotations

import pytest
import torch
from tests.toy.data import InMemory
from tests.toy.statistics import normal

from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring.quality.features import Classifier, in_chunks, label_classifier, train_classifier
from walkback.measuring.quality.report import Rules, quality_figures
from walkback_toys.digits import Digits
from walkback_toys.figures import Mog


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits()
    data.prepare()
    return data


@pytest.fixture(scope="module")
def classifier(digits: Digits) -> Classifier:
    return label_classifier(digits, 0, steps=150)


def test_it_tells_digits_apart(classifier: Classifier, digits: Digits) -> None:
    assert classifier.classes == tuple("0123456789")
    assert classifier.accuracy.value > 90
    assert classifier.accuracy.error is not None
    # Its own word, checked on another split and with other noise.
    states = digits.states(digits.examples("validation"), torch.Generator().manual_seed(5))
    hits = classifier.log_probs(states).argmax(1) == digits.labels("validation")
    assert float(hits.double().mean()) > 0.88


def test_features_have_mean_square_one_in_training(classifier: Classifier, digits: Digits) -> None:
    states = digits.states(digits.examples("train"), torch.Generator().manual_seed(5))
    features = classifier.features(states)
    assert features.shape == (1297, 64)
    assert float(features.square().mean()) == pytest.approx(1, rel=0.02)
    assert torch.allclose(classifier.log_probs(states[:9]).exp().sum(1), torch.ones(9, dtype=torch.float64))


def test_one_seed_is_one_network_whatever_torchs_generator(digits: Digits) -> None:
    states = digits.states(digits.examples("test"), torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = label_classifier(digits, 3, steps=5).features(states)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, label_classifier(digits, 3, steps=5).features(states))
    assert not torch.equal(first, label_classifier(digits, 4, steps=5).features(states))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_where_gradients_are_off(digits: Digits, mode: type) -> None:
    with mode():
        assert label_classifier(digits, 0, steps=5).accuracy.value >= 0


def test_points_of_the_plane_have_a_perceptron() -> None:
    data = Mog(num=1000, num_held_out=200)
    data.prepare()
    found = label_classifier(data, 0, steps=200)
    assert found.accuracy.value > 98
    assert found.features(data.examples("test")).shape == (200, 64)


@pytest.mark.parametrize("shape", [(1, 9, 17), (3, 32, 32), (2, 7, 7), (1, 16, 15), (5,)])
def test_any_shape_has_a_network(shape: tuple[int, ...]) -> None:
    states = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 2
    found = train_classifier((states, labels), (states, labels), ("a", "b"), 0, steps=2)
    assert found.features(states).shape == (20, 64)


def test_a_constant_data_set_and_a_single_class_do_no_harm() -> None:
    states, labels = torch.zeros(20, 3), torch.zeros(20, dtype=torch.int64)
    found = train_classifier((states, labels), (states, labels), ("a",), 0, steps=2)
    assert found.accuracy.value == 100


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="in-memory has no labels"):
        label_classifier(InMemory(torch.zeros(5, 2)), 0)


def test_features_are_asked_in_pieces_and_checked() -> None:
    states = normal(1300, 2, 2)
    sizes = []

    def features(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return part.flatten(1)

    assert torch.equal(in_chunks(features, states), states.flatten(1))
    assert sizes == [512, 512, 276]
    for wrong in (lambda part: part, lambda part: part.flatten(1)[:1], lambda part: part.flatten(1) / 0):
        with pytest.raises(WalkbackError, match="Got features of shape"):
            in_chunks(wrong, states)


def test_figures_of_digits_tell_noise_from_digits(classifier: Classifier, digits: Digits) -> None:
    rng = torch.Generator().manual_seed(0)
    train, validation, test = (
        digits.states(digits.examples(split), rng) for split in ("train", "validation", "test")
    )
    rules = Rules(transport_limit=60, projections=32)
    noise = torch.rand(250, 1, 8, 8, generator=rng)
    good, bad = (
        {
            figure.name: figure
            for figure in quality_figures(
                samples, test, train, digits.info, seed=0, classifier=classifier, rules=rules
            )
        }
        for samples in (validation, noise)
    )
    assert good["classifier_accuracy"] == classifier.accuracy
    assert 8 < good["classifier_score"].value < 10
    assert "not Inception" in good["classifier_score"].meaning
    assert bad["classifier_score"].value < good["classifier_score"].value
    assert bad["frechet_distance"].value > 5 * good["frechet_distance"].value
    assert bad["coverage"].value < 0.5 < 0.9 < good["coverage"].value
    assert abs(good["frechet_distance"].value - good["frechet_distance_reference"].value) < 0.2
