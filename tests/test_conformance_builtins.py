"""Every component that walkback ships with keeps the laws of its kind, as the conformance kit states them."""

from __future__ import annotations

import io
import math
from functools import cache

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from walkback.component import KINDS
from walkback.extensions.registry import Registry
from walkback.state import Space
from walkback.testing import Case, checks

SMALL_NETWORKS = {
    "": {"hidden": 8, "depth": 1},
    "mlp": {"hidden": 8, "depth": 1},
    "conv": {"hidden": 8, "channels": [4, 8]},
    "unet": {"channels": [8, 8], "blocks": 1},
    "plain-mlp": {"hidden": [8, 8]},
}
"""Options of the networks of operators, by what follows the first word of their names."""

SMALL = {
    "mlp": {"hidden": 8, "depth": 1},
    "encoder-decoder": {"hidden": 8, "channels": [4, 8]},
    "unet": {"channels": [8, 8], "blocks": 1},
    "plain-mlp": {"hidden": [8, 8]},
    "diffusers-unet": {"block_out_channels": [8, 16]},
    "betas": {"betas": [1 - math.exp(-0.05), 0.2, 0.5]},  # for T_max = 100
    "learned": {"num_steps": 4},
    "explicit": {"temperatures": [1.0, 2.0, 4.0]},
    "swiss-roll": {"num": 500, "num_held_out": 100},
    "circle": {"num": 500, "num_held_out": 100},
    "mog": {"num": 500, "num_held_out": 100},
    "potts": {"sites": 24, "num": 500, "num_held_out": 100},
    "symbols": {"path": "symbols.npy"},
    "markov": {"matrix": [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.7, 0.1, 0.2]]},
    "celeba": {"size": 12},
    "celeba-faces": {"size": 12},
    "hub": {"id": "somebody/pictures"},
    "folder": {"path": "mirror/ylecun/mnist"},
    "table": {"path": "table.csv", "label": "kind"},
    "categories": {"path": "categories.csv"},
    "array": {"path": "volumes.npy"},
    "reversibility": {"chains": 20, "steps": 20, "burn_in": 2, "rank_chains": 100, "rank_steps": 5},
    "stationarity": {"chains": 20, "steps": 20, "frames": 10, "reference": 100},
    "mixing": {"chains": 8, "steps": 200, "frames": 200, "burn_in": 10, "axes": 2},
    "thermodynamics": {"examples": 40, "paths": 4, "chains": 20, "stationary_steps": 5, "burn_in": 2},
    "symmetry": {"examples": 20, "probes": 2},
    "wandb": {"mode": "disabled"},
}
"""Options that keep components other than operators small."""


def small(kind, name):
    """Options that keep a component small."""
    if kind == "operator" and name not in SMALL:
        return {"network": SMALL_NETWORKS[name.partition("-")[2]]}
    return SMALL.get(name, {})


SPACES = {
    **dict.fromkeys(("gaussian", "ddpm"), (Space((2,)), Space((1, 8, 8)))),
    "bernoulli": (Space((5,), "binary"), Space((1, 8, 8), "binary")),
    "categorical": (Space((3, 4), "one-hot"), Space((2, 2, 3), "one-hot")),
    "markov": (Space((1, 3), "one-hot"), Space((4, 3), "one-hot")),
}
"""Spaces by the first word of operators; each refuses what is not for it."""

STAYS = "its temperatures are options, whatever T_max is"
EXPECTED = {
    ("schedule", "constant"): {"reaches": STAYS},
    ("schedule", "explicit"): {"reaches": STAYS},
    ("schedule", "betas"): {"reaches": "its steps together forget the state, and no single one does"},
    ("schedule", "learned"): {"coldest-first": "times rise, and their differences need not"},
    ("prior", "fair-bits"): {"fit": "its probability is an option, whatever the data are"},
    ("prior", "uniform-symbols"): {"fit": "all symbols are equally likely, whatever the data are"},
}

HUB = {
    "ylecun/mnist": ("mnist", "image", ("train", "test"), 1),
    "zalando-datasets/fashion_mnist": ("fashion_mnist", "image", ("train", "test"), 1),
    "uoft-cs/cifar10": ("plain_text", "img", ("train", "test"), 3),
    "ufldl-stanford/svhn": ("cropped_digits", "image", ("train", "test"), 3),
    "flwrlabs/celeba": ("img_align+identity+attr", "image", ("train", "valid", "test"), 3),
    "nielsr/CelebA-faces": ("data", "image", ("train",), 3),
    "somebody/pictures": ("data", "image", ("train", "test"), 3),
}
"""Configuration, column, splits and channels of the hub's data sets."""


@cache
def registry() -> Registry:
    return Registry.discover(enabled=False)


EMPTY = {"real-states", "binary-states", "one-hot-states"}
"""Spaces without examples, about which the checks of data have nothing to say."""

NAMES = [
    (kind, offer.spec.name)
    for kind in KINDS
    for offer in registry().components(kind)
    if offer.spec.name not in EMPTY
]
CASES = [
    pytest.param(kind, name, check, id=f"{kind}-{name}-{check}")
    for kind, name in NAMES
    for check in checks(kind, EXPECTED.get((kind, name)))
]


def picture(seed: int, channels: int) -> dict[str, object]:
    values = np.random.default_rng(seed).integers(0, 256, (12, 12, channels), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values.squeeze()).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """The data sets of the hub, with 60 made-up pictures in each split."""
    top = tmp_path_factory.mktemp("conformance") / "mirror"
    noise = np.random.default_rng(0)
    table = {"a": 100 + 7 * noise.standard_normal(500), "n": noise.poisson(3, 500), "kind": ["x", "y"] * 250}
    pd.DataFrame(table).to_csv(top.parent / "table.csv", index=False)
    pd.DataFrame({"kind": ["x", "y"] * 250, "size": [*"abcde"] * 100}).to_csv(
        top.parent / "categories.csv", index=False
    )
    np.save(top.parent / "volumes.npy", noise.standard_normal((100, 1, 3, 4, 5)))
    np.save(top.parent / "symbols.npy", noise.integers(0, 4, (100, 9)))
    for hub_id, (config, column, splits, channels) in HUB.items():
        folder = top / hub_id / config
        folder.mkdir(parents=True)
        features = datasets.Features(
            {column: datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])}
        )
        for number, split in enumerate(splits):
            rows = range(60 * number, 60 * (number + 1))
            table = {column: [picture(row, channels) for row in rows], "label": [row % 2 for row in rows]}
            content = datasets.Dataset.from_dict(table, features)
            content.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return top


@pytest.mark.parametrize(("kind", "name", "check"), CASES)
def test_conforms(kind, name, check, mirror, monkeypatch):
    if name == "wandb":
        pytest.importorskip(
            "wandb", reason="needs walkback[wandb], which is no part of walkback[dev]: it is large"
        )
    if name == "diffusers-unet":
        pytest.importorskip("diffusers", reason="needs walkback[diffusers]")
    monkeypatch.setenv("WALKBACK_DATA", str(mirror))
    monkeypatch.chdir(mirror.parent)
    spaces = SPACES.get(name.partition("-")[0], ()) if kind == "operator" else ()
    check(Case.of(name, small(kind, name), spaces=spaces, registry=registry()))


def test_the_tables_name_components():
    names = {name for _, name in NAMES}
    assert SMALL.keys() <= names
    assert {name for _, name in EXPECTED} <= names
