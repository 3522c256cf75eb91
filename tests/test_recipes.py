"""The recipes that the paper's plugin ships: each is complete, says whose settings it has, and trains."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from walkback.building.preparation import prepare
from walkback.configuration.layering import resolve
from walkback.extensions.registry import Registry
from walkback.training.trainer import Trainer

FILES = {path.stem: path for path in (Path(__file__).parent.parent / "plugins").glob("*/recipes/*.toml")}
RECIPES = sorted(FILES)
ON_POINTS = [name for name in RECIPES if name.removeprefix("paper-") in ("swiss-roll", "circle", "mog")]
METHODS = [name for name, path in FILES.items() if path.parent.parent.name != "walkback_paper"]
ON_DIGITS = [name for name in RECIPES if name.split("-")[0] == "digits"]
ON_IMAGES = sorted({*RECIPES} - {*ON_POINTS} - {*ON_DIGITS} - {"paper-svhn", *METHODS})
PAPER = [name for name in RECIPES if name.startswith("paper-")]

MIRROR = Path(os.environ.get("WALKBACK_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


def losses(registry: Registry, recipe: str, walks: int, *changes: str) -> list[float]:
    """Losses of the first walks of a recipe, with changes."""
    config = resolve(registry, recipe=recipe, overrides=changes)
    prepared = prepare(replace(config, run=config.run.model_copy(update={"precision": "fp32"})), registry)
    trainer = Trainer(
        prepared.model,
        prepared.objective,
        prepared.dataset,
        config.training,
        seed=config.run.seed,
        device=torch.device("cpu"),
    )
    return [trainer.walk().item() for _ in range(walks)]


def test_the_shipped_recipes_are_the_registered_ones(registry: Registry) -> None:
    assert sorted(recipe.spec.name for recipe in registry.recipes()) == RECIPES
    assert {"mnist", "cifar10", "celeba", "swiss-roll", "circle", "mog", "digits"} <= {*RECIPES}
    assert {f"paper-{data}" for data in ("mnist", "mnist-bound", "cifar10", "svhn", "celeba")} <= {*PAPER}
    assert {f"paper-{data}" for data in ("swiss-roll", "circle", "mog")} <= {*PAPER}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_complete_and_says_whose_settings_it_has(registry: Registry, name: str) -> None:
    config = resolve(registry, recipe=name)
    assert config.recipe == f"walkback:{name}" or config.recipe == name
    text = FILES[name].read_text("utf-8")
    comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    source = r"From the source \([^)]+ \d{4}\): .{30}" if name in METHODS else r"From the paper: .{30}"
    assert re.search(source, comment)
    assert re.search(r"Ours[:,] .{30}", comment)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_of_the_paper_takes_thirty_steps_online(registry: Registry, name: str) -> None:
    config = resolve(registry, recipe=name)
    schedule = registry.load(registry.find("schedule", config.schedule.name))(**config.schedule.options)
    temperatures = [level.temperature for level in schedule.levels(1e4)]
    factor = 1.1 if name in ON_POINTS else 2**0.5
    assert temperatures == pytest.approx([factor**t for t in range(30)])
    assert (config.training.updates, config.training.lr, config.training.ema) == ("online", 1e-4, 0.0)
    assert config.operator.options["variance"] == "softplus"
    assert config.operator.options["mean"] == "mix"
    # Each of the 30 temperatures has norms of its own.
    network = config.operator.options["network"].options
    sets = [round(network["norms_per_doubling"] * t * float(torch.tensor(factor).log2())) for t in range(30)]
    assert sets == list(range(30))
    assert network["level_norms"] == 30


@pytest.mark.parametrize("name", ON_POINTS)
def test_a_recipe_on_points_starts_to_learn(registry: Registry, name: str) -> None:
    found = losses(
        registry, name, 30, "training.batch_size=64", "training.warmup=0", "training.chains.pool=64"
    )
    assert all(torch.tensor(found).isfinite())
    assert sum(found[-5:]) < sum(found[:5])


@pytest.mark.data
@pytest.mark.parametrize("name", ON_IMAGES)
def test_a_recipe_on_images_takes_a_walk(
    registry: Registry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not MIRROR.is_dir():
        pytest.skip("needs the local mirror of the data sets")
    monkeypatch.setenv("WALKBACK_DATA", str(MIRROR))
    (loss,) = losses(registry, name, 1, "training.batch_size=2", "data.limit=64")
    assert torch.tensor(loss).isfinite()


@pytest.mark.parametrize("name", sorted({*METHODS, *ON_DIGITS}))
def test_a_recipe_on_embedded_digits_or_of_another_method_starts_to_learn(
    registry: Registry, name: str
) -> None:
    found = losses(registry, name, 12, "training.batch_size=32", "training.warmup=0")
    assert all(torch.tensor(found).isfinite())
    assert sum(found[-3:]) < sum(found[:3])
