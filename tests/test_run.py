"""`walkback run` from the command line to the files it leaves, on data that need no download."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.program import TINY, TITLE, Done, cells, digest, figures, records, run, tree, walkback

from walkback.storage.checkpoint import load_checkpoint

Install = Callable[..., Path]

LOGGED = ("--set", "training.log_every=2", "--set", "training.validate_every=4")

TRIPLES = """
    import torch
    from walkback.data import DataInfo, Dataset

    class Triples(Dataset):
        def __init__(self, *, count: int = 50):
            self.count = count

        def prepare(self): ...

        @property
        def info(self):
            return DataInfo("triples", (3,), splits=dict.fromkeys(("train", "validation", "test"), self.count))

        def examples(self, split):
            return torch.randn(self.count, 3, generator=torch.Generator().manual_seed(0))

        def states(self, rows, generator):
            return rows
"""

OFFER = """
    @hookimpl
    def walkback_datasets():
        yield Component("triples", "triples_code:Triples", "Not to be drawn")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A finished run, and what it said with `--json`."""
    directory = tmp_path_factory.mktemp("runs") / "a"
    done = run(directory, *LOGGED, "--set", "training.checkpoint_every=2", "--json")
    assert done.code == 0, done.err
    return directory, done


def size(picture: Path) -> tuple[int, int]:
    """Width and height of a picture that can be decoded."""
    with Image.open(picture) as image:
        image.load()
        return image.size


def without_none(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as TOML, which has no null, holds it."""
    return {
        key: {k: v for k, v in table.items() if v is not None} if isinstance(table, dict) else table
        for key, table in config.items()
    }


# --- what a run leaves


def test_files_are_those_of_the_contract(finished: tuple[Path, Done]) -> None:
    checkpoints = {
        f"checkpoints/step-{step}{end}"
        for step in (4, 6)
        for end in (".safetensors", ".state.safetensors", ".json")
    }
    pictures = {"samples/annealed.png", "samples/chain.png", "samples/walk.png"}
    files = {name for name, content in tree(finished[0]).items() if content}
    assert files == checkpoints | pictures | {
        ".lock",
        "config.toml",
        "metrics.jsonl",
        "final.safetensors",
        "result.json",
    }


def test_metrics_are_finite_and_hold_loss_and_validation(finished: tuple[Path, Done]) -> None:
    lines = records(finished[0])
    losses = [line["step"] for line in lines if "loss" in line]
    validated = [line["step"] for line in lines if "validation_nats" in line]
    assert (losses, validated) == ([1, 2, 4, 6], [4, 6])
    bound = {
        "validation_nats",
        "validation_nats_error",
        "validation_bits_per_dimension",
        "validation_bits_error",
    }
    assert all(bound <= line.keys() for line in lines if "validation_nats" in line)
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_manifests_name_the_digests_of_their_files(finished: tuple[Path, Done]) -> None:
    checkpoints = finished[0] / "checkpoints"
    manifest = json.loads((checkpoints / "step-6.json").read_text())
    names = ("step-6.safetensors", "step-6.state.safetensors")
    assert manifest == {
        "kind": "step",
        "format": 1,
        "step": 6,
        "sha256": {name: digest(checkpoints / name) for name in names},
    }


def without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as TOML can say it."""
    return {
        key: {option: value for option, value in table.items() if value is not None}
        if isinstance(table, Mapping)
        else table
        for key, table in config.items()
    }


def test_the_final_checkpoint_is_that_of_the_last_step(finished: tuple[Path, Done]) -> None:
    final = finished[0] / "final.safetensors"
    assert digest(final) == digest(finished[0] / "checkpoints" / "step-6.safetensors")
    description = load_checkpoint(final).description
    assert description.progress == {"walks": 6, "updates": 6, "calls": 672, "gradient_calls": 672}
    written = tomllib.loads((finished[0] / "config.toml").read_text())
    assert (written.pop("kind"), written.pop("format")) == ("configuration", 3)
    assert written.pop("digest")
    assert without_none(description.config) == written | {"recipe": "digits"}


def test_pictures_are_grids_of_images(finished: tuple[Path, Done]) -> None:
    # Nine digits in 3 × 3, and 3 chains of 3 frames: 8 × 8 pixels, each drawn as a square.
    for name, header in (("annealed", 0), ("chain", TITLE)):
        grid = cells(finished[0] / "samples" / f"{name}.png", 3, 3, header)
        scale, rest = divmod(grid.shape[2], 8)
        assert (grid.shape, rest) == ((3, 3, 8 * scale, 8 * scale, 1), 0)
        blocks = grid[..., 0].reshape(3, 3, 8, scale, 8, scale)
        assert (blocks == blocks[:, :, :, :1, :, :1]).all()
        assert len({picture.tobytes() for row in grid for picture in row}) == 9


def test_json_is_one_document_with_bound_errors_and_protocol(finished: tuple[Path, Done]) -> None:
    directory, done = finished
    document = done.document()
    assert document["directory"] == str(directory)
    assert [Path(path).is_file() for path in (document["checkpoint"], *document["pictures"])] == [True] * 4
    bound, protocol = document["bound"], document["protocol"]
    assert (bound["examples"], bound["paths"], document["walks"]) == (20, 1, 6)
    assert bound["nats_error"] > 0
    # A bound on digits of 64 pixels and 17 grey levels in bits: (nats / D + log 17) / log 2.
    assert bound["bits_per_dimension"] == pytest.approx((bound["nats"] / 64 + math.log(17)) / math.log(2))
    assert bound["bits_error"] == pytest.approx(bound["nats_error"] / 64 / math.log(2))
    assert (protocol["data"], protocol["split"], protocol["seed"]) == ("digits", "test", 0)
    assert len(protocol["preprocessing"]) == 2
    assert protocol["fingerprint"]


@pytest.mark.parametrize("name", ["annealed", "chain"])
def test_a_picture_carries_its_protocol(finished: tuple[Path, Done], name: str) -> None:
    with Image.open(finished[0] / "samples" / f"{name}.png") as image:
        found = json.loads(image.info["walkback"])
    assert found == {**finished[1].document()["protocol"], "readout": "state"}


def test_results_for_people_go_to_stdout_and_progress_to_stderr(tmp_path: Path) -> None:
    done = run(tmp_path / "a")
    assert done.code == 0
    assert re.search(r"bound .*nats = \d\.\d+ ± \d\.\d+ bits/dim", done.out)
    assert str(tmp_path / "a" / "final.safetensors") in "".join(done.out.split())
    assert "Training" not in done.out
    assert re.search(r"Training 6/6 loss -?\d+\.\d\d · bound \d\.\d+ bits/dim", done.err)


# --- seeds


def test_equal_seeds_leave_equal_files_and_other_seeds_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert run(tmp_path / name, "--seed", seed).code == 0
    equal, other = tree(tmp_path / "b"), tree(tmp_path / "c")
    pictures = [f"samples/{name}.png" for name in ("annealed", "chain", "walk")]
    for name in ("final.safetensors", "config.toml", *pictures):
        assert tree(tmp_path / "a")[name] == equal[name] != other[name]
    assert figures(tmp_path / "a") == figures(tmp_path / "b")


def test_what_is_only_watched_does_not_change_what_is_learned(tmp_path: Path) -> None:
    assert run(tmp_path / "a").code == 0
    watched = (*LOGGED, "--set", "training.sample_every=2", "--set", "training.checkpoint_every=1")
    assert run(tmp_path / "b", *watched).code == 0
    first, second = (load_checkpoint(tmp_path / name / "final.safetensors").tensors for name in "ab")
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert sorted(path.name for path in (tmp_path / "b" / "samples").glob("step-*")) == [
        f"step-{step}.png" for step in (2, 4, 6)
    ]


# --- configuration


def test_a_dry_run_writes_nothing_and_shows_configuration_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = walkback("run", "--dry-run", *TINY)
    assert (done.code, list(tmp_path.iterdir())) == (0, [])
    assert tomllib.loads(done.out)["operator"]["network"]["hidden"] == 16
    assert re.match(r"[\d,]+ parameters, 14 levels, on cpu", done.err)


def test_the_parameter_count_is_that_of_the_weights(finished: tuple[Path, Done]) -> None:
    document = walkback("run", "--dry-run", "--json", "--recipe", finished[0] / "config.toml").document()
    checkpoint = load_checkpoint(finished[0] / "final.safetensors")
    weights = [tensor for name, tensor in checkpoint.part("operator.").items() if name.startswith("network.")]
    assert document["parameters"] == sum(tensor.numel() for tensor in weights)


def test_a_configuration_given_back_as_recipe_is_the_same(finished: tuple[Path, Done]) -> None:
    config = tomllib.loads((finished[0] / "config.toml").read_text())
    done = walkback("run", "--dry-run", "--json", "--recipe", finished[0] / "config.toml")
    again = done.document()["config"]
    assert again.pop("recipe") == str(finished[0] / "config.toml")
    beside = {"recipe", "kind", "format", "digest"}
    assert without_none(again) == {
        section: table for section, table in config.items() if section not in beside
    }


def test_runs_without_a_name_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert walkback("run", *TINY, "--steps", "1").code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "gaussian-mlp-digits",
        "gaussian-mlp-digits-2",
    ]


# --- kinds of training, data and loggers


@pytest.mark.parametrize(
    ("updates", "updates_of_six_walks"), [("online", range(66, 85)), ("batch", [6]), ("stacked", [6])]
)
def test_every_kind_of_update_trains(tmp_path: Path, updates: str, updates_of_six_walks: range) -> None:
    done = run(tmp_path / "a", "--set", f"training.updates={updates}")
    assert done.code == 0, done.err
    progress = load_checkpoint(tmp_path / "a" / "final.safetensors").description.progress
    assert progress["walks"] == 6
    assert progress["updates"] in updates_of_six_walks


@pytest.mark.parametrize("data", ["swiss-roll", "circle", "mog"])
def test_points_in_the_plane_are_scattered(tmp_path: Path, data: str) -> None:
    done = run(tmp_path / "a", "--data", data, "--json")
    assert done.code == 0, done.err
    assert done.document()["bound"]["bits_per_dimension"] is None
    assert size(tmp_path / "a" / "samples" / "annealed.png") == (480, 480)
    assert size(tmp_path / "a" / "samples" / "chain.png")[0] > 3 * 240 // 2
    pictures = [Path(path).stem for path in done.document()["pictures"]]
    assert pictures == ["annealed", "chain", "walk", "field"]
    assert size(tmp_path / "a" / "samples" / "walk.png") == (4 + 8 * 204, 4 + 2 * 204)
    assert size(tmp_path / "a" / "samples" / "field.png") == (640, 640)


def test_a_bernoulli_operator_binarizes_the_data_it_is_given(tmp_path: Path) -> None:
    done = run(tmp_path / "a", "--operator", "bernoulli-mlp", "--json")
    assert done.code == 0, done.err
    config = tomllib.loads((tmp_path / "a" / "config.toml").read_text())
    assert (config["data"]["binarize"], config["prior"]["name"]) == ("stochastic", "bernoulli")
    bound = done.document()["bound"]
    assert bound["bits_per_dimension"] == pytest.approx(bound["nats"] / 64 / math.log(2))


def test_states_of_any_shape_are_drawn(install: Install, tmp_path: Path) -> None:
    install("triples", TRIPLES, entry="code")
    install("triples", OFFER)
    done = run(tmp_path / "a", "--data", "triples", "--set", "training.sample_every=2", "--json")
    assert done.code == 0, done.err
    names = {Path(path).stem for path in done.document()["pictures"]}
    assert names == {"annealed", "chain", "walk"}
    assert names < {path.stem for path in (tmp_path / "a" / "samples").iterdir()}


def test_tensorboard_gets_the_figures(tmp_path: Path) -> None:
    done = run(tmp_path / "a", "--logger", "tensorboard", *LOGGED)
    assert done.code == 0, done.err
    (events,) = (tmp_path / "a" / "tensorboard").iterdir()
    assert b"validation_nats" in events.read_bytes()


def test_a_logger_that_cannot_work_leaves_the_directory_free(install: Install, tmp_path: Path) -> None:
    code = """
        from walkback.errors import ConfigurationError
        from walkback.loggers import Logger

        class Needy(Logger):
            def __init__(self):
                raise ConfigurationError("Got no paper, expected some: buy it.")

            def open(self, directory, config):
                pass

            def log(self, step, figures):
                pass

            def log_picture(self, step, name, png):
                pass

            def close(self):
                pass

        @hookimpl
        def walkback_loggers():
            yield Component("needy", "needy_main:Needy", "Needs paper")
    """
    install("needy", code)
    done = run(tmp_path / "a", "--logger", "needy")
    assert (done.code, done.err.splitlines()[-1]) == (2, "error: Got no paper, expected some: buy it.")
    assert run(tmp_path / "a").code == 0
