"""The data sets that need no download: figures in the plane, and scikit-learn's digits."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_swiss_roll

from walkback.data import SPLITS, DataInfo, Dataset
from walkback.errors import ConfigurationError, DataError
from walkback_toys import plugin
from walkback_toys.digits import Digits
from walkback_toys.figures import Circle, Mog, SwissRoll

PLANE = [SwissRoll, Circle, Mog]


def prepared(dataset: Dataset) -> Dataset:
    dataset.prepare()
    return dataset


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_components_are_light_and_lead_to_data_sets():
    code = (
        "import sys; from walkback_toys.plugin import walkback_datasets as hook;"
        "print(*(c.name for c in hook()));"
        "assert not {'torch', 'sklearn', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    spaces = ["real-states", "binary-states", "one-hot-states"]
    assert names.split() == ["swiss-roll", "circle", "mog", "digits", "potts", "symbols", *spaces]
    for component in plugin.walkback_datasets():
        module, attribute = component.target.split(":")
        assert issubclass(getattr(importlib.import_module(module), attribute), Dataset)
        assert component.summary.endswith(".")


@pytest.mark.parametrize("figure", PLANE)
def test_figures_have_two_real_dimensions_and_no_bins(figure):
    data = prepared(figure(num=50, num_held_out=20))
    assert data.info.shape == (2,)
    assert (data.info.support, data.info.bins) == ("real", None)
    assert data.info.bits_per_dimension(1.0) is None
    assert data.info.splits == {"train": 50, "validation": 20, "test": 20}
    assert all(data.examples(split).dtype == torch.float32 for split in SPLITS)
    assert DataInfo.from_dict(data.info.to_dict()) == data.info


@pytest.mark.parametrize("figure", PLANE)
def test_figures_are_centred_and_have_the_scale_asked_for(figure):
    # 200,000 points against the closed forms behind `scale`; |z| < 4.5 fails once in 50,000 seeds.
    points = prepared(figure(num=200_000, scale=0.7)).examples("train").double()
    error = points.std(0) / len(points) ** 0.5
    assert ((points.mean(0) / error).abs() < 4.5).all()
    squares = (points**2).mean(1)
    assert abs((squares.mean() - 0.7**2) / (squares.std() / len(points) ** 0.5)) < 4.5


@pytest.mark.parametrize("figure", [*PLANE, Digits])
def test_the_same_options_give_the_same_data(figure):
    one, two = prepared(figure()), prepared(figure())
    assert one.info == two.info
    assert all(torch.equal(one.examples(split), two.examples(split)) for split in SPLITS)


@pytest.mark.parametrize("figure", PLANE)
def test_seed_and_options_change_points_and_fingerprint(figure):
    infos = {prepared(figure(seed=seed, scale=scale)).info.fingerprint for seed in (0, 1) for scale in (1, 2)}
    assert len(infos) == 4


@pytest.mark.parametrize("figure", PLANE)
def test_splits_are_different_points(figure):
    data = prepared(figure(num=500, num_held_out=500))
    points = torch.cat([data.examples(split) for split in SPLITS])
    assert len(points.unique(dim=0)) == 1500


def test_swiss_roll_lies_on_the_curve_of_scikit_learn():
    # Noise-free rolls are one curve up to a shift and a factor, which the 60,000 points of either determine.
    ours = prepared(SwissRoll(noise=0, num=60_000)).examples("train").numpy()
    curve, _ = make_swiss_roll(60_000, random_state=0)
    theirs = (curve[:, [0, 2]] - [2, 2 / (3 * np.pi)]) / 6.7934
    distances, _ = nearest(ours, theirs)
    assert distances.max() < 0.002


def nearest(points, others):
    from scipy.spatial import KDTree

    return KDTree(others).query(points)


def test_circle_has_its_radius():
    data = prepared(Circle(noise=0))
    assert torch.allclose(data.examples("train").norm(dim=1), torch.tensor(data.radius))
    assert data.radius == pytest.approx(2**0.5)


@pytest.mark.parametrize(("modes", "arrangement"), [(8, "ring"), (2, "ring"), (25, "grid")])
def test_mog_draws_every_mode_equally_with_the_std_asked_for(modes, arrangement):
    # Counts and squared distances at z < 4.5 each, 27 checks at most: fails once in 5,000 seeds.
    data = Mog(modes=modes, arrangement=arrangement, std=0.03, num=50_000)
    centres = data.centres.numpy()
    distances, mode = nearest(prepared(data).examples("train").numpy(), centres)
    shares = np.bincount(mode, minlength=modes) / 50_000
    assert (abs(shares - 1 / modes) < 4.5 * np.sqrt((1 - 1 / modes) / modes / 50_000)).all()
    squares = distances**2 / (2 * 0.03**2)
    assert abs(squares.mean() - 1) < 4.5 * squares.std() / 50_000**0.5
    assert centres.shape == (modes, 2)


@pytest.mark.parametrize(
    ("figure", "options", "words"),
    [
        (SwissRoll, {"noise": 1.0}, "noise"),
        (Circle, {"noise": -0.1}, "noise"),
        (Circle, {"scale": 0.0}, "scale"),
        (Mog, {"std": 2.0}, "std"),
        (Mog, {"modes": 1}, "at least 2"),
        (Mog, {"modes": 8, "arrangement": "grid"}, "square number"),
        (Mog, {"arrangement": "star"}, "ring or grid"),
        (Circle, {"num": 0}, "data.num = 0"),
        (Circle, {"num_held_out": 0}, "data.num_held_out = 0"),
        (Circle, {"seed": -1}, "data.seed"),
        (Digits, {"binarize": "half"}, "none, threshold, stochastic"),
    ],
)
def test_bad_options_are_refused_when_constructed(figure, options, words):
    with pytest.raises(ConfigurationError, match=words):
        figure(**options)


@pytest.mark.parametrize("figure", [*PLANE, Digits])
def test_unprepared_data_say_so(figure):
    with pytest.raises(DataError, match="call prepare"):
        _ = figure().info
    with pytest.raises(DataError, match="call prepare"):
        figure().examples("train")


def test_states_of_figures_are_the_points_themselves():
    data = prepared(Circle(num=10))
    rows = data.examples("train")
    assert torch.equal(data.states(rows, generator()), rows)


def test_digits_are_scikit_learns_split_without_overlap_and_with_all_classes():
    data = prepared(Digits())
    assert data.info.splits == {"train": 1297, "validation": 250, "test": 250}
    source = load_digits()
    images = source.images.astype(np.uint8)
    classes = {image.tobytes(): label for image, label in zip(images, source.target, strict=True)}
    assert len(classes) == 1797, "no two digits are alike, so that pixels identify them"
    found = [[classes.pop(image.numpy().tobytes()) for image in data.examples(split)] for split in SPLITS]
    assert not classes
    for labels in found[1:]:
        assert set(np.bincount(labels)) <= {23, 24, 25, 26}


def test_digits_are_dequantized_uniformly_within_their_bin():
    # The 83,000 noises of 1,297 digits are uniform: mean and variance at z < 4.5; fails once in 75,000 seeds.
    data = prepared(Digits())
    rows = data.examples("train")
    states = data.states(rows, generator())
    assert (rows.dtype, states.dtype, data.info.shape, data.info.bins) == (
        torch.uint8, torch.float32, (1, 8, 8), 17,
    )  # fmt: skip
    noise = (states * 17 - rows).double()
    assert states.min() >= 0
    assert states.max() <= 1
    assert abs(noise.mean() - 1 / 2) < 4.5 * (1 / 12 / noise.numel()) ** 0.5
    assert abs(noise.var() - 1 / 12) < 4.5 * (1 / 180 / noise.numel()) ** 0.5


def test_digits_binarized_at_the_threshold():
    data = prepared(Digits(binarize="threshold"))
    states = data.states(torch.arange(17, dtype=torch.uint8).reshape(1, 17), generator())
    assert states.tolist() == [[0.0] * 8 + [1.0] * 9]
    assert (data.info.support, data.info.bins) == ("binary", None)


def test_digits_binarized_stochastically_follow_their_ink():
    # 40,000 draws of each level at z < 4.5, and anew each time; fails once in 9,000 seeds.
    data = prepared(Digits(binarize="stochastic"))
    rows = torch.arange(17, dtype=torch.uint8).expand(40_000, 17)
    source = generator()
    one, two = data.states(rows, source), data.states(rows, source)
    ink = torch.arange(17) / 16
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert ((one.mean(0) - ink).abs() <= 4.5 * (ink * (1 - ink) / 40_000).sqrt()).all()
    assert not torch.equal(one, two)
    assert torch.equal(data.states(rows, generator()), one)


def test_fingerprints_of_digits_tell_the_preprocessing():
    assert len({prepared(Digits(binarize=rule)).info.fingerprint for rule in ("none", "threshold")}) == 2
