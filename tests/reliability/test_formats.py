"""Formats of files: one number a kind, and files of older formats are read as what they were."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import records, walkback

from walkback.configuration.layering import resolve
from walkback.errors import CheckpointError, ConfigurationError
from walkback.extensions.registry import Registry
from walkback.storage.checkpoint import load_checkpoint
from walkback.storage.description import read_description
from walkback.storage.migrations import CHECKPOINT, CONFIGURATION, KINDS, STEP, WORK_CACHE, FileKind
from walkback.storage.store import CheckpointStore
from walkback.storage.tensorfile import read_tensors
from walkback.storage.work_cache import WorkCache

OLD = Path(__file__).parents[1] / "formats"
MODELS = ("gaussian", "bernoulli")


# --- the table


def test_every_kind_has_another_name() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_there_is_a_migration_from_every_older_format(kind: FileKind) -> None:
    assert list(kind.migrations) == list(range(1, kind.format))


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    document["new"] = document.pop("old")
    return document


def test_migrations_are_applied_in_a_row_and_leave_the_argument() -> None:
    kind = FileKind("toy", {1: _renamed, 2: lambda document: {"again": document["new"]}})
    old = {"kind": "toy", "format": 1, "old": 5}
    assert kind.migrated(old, "a file") == {"kind": "toy", "format": 3, "again": 5}
    assert kind.migrated({"kind": "toy", "format": 2, "new": 6}, "") == {
        "kind": "toy",
        "format": 3,
        "again": 6,
    }
    assert old == {"kind": "toy", "format": 1, "old": 5}


def test_only_kinds_without_a_stamp_in_format_1_do_without() -> None:
    with pytest.raises(CheckpointError, match="holds None, expected 'toy'"):
        FileKind("toy").migrated({}, "a file")
    kind = FileKind("toy", {1: dict}, unstamped=True)
    assert kind.migrated({"a": 1}, "a file") == {"kind": "toy", "format": 2, "a": 1}
    with pytest.raises(ConfigurationError, match="in format 3, but this version reads formats up to 2"):
        kind.migrated(kind.stamp() | {"format": 3}, "a file", ConfigurationError)


def test_a_work_cache_of_format_1_is_gone_on_with(tmp_path: Path) -> None:
    protocol = {"checkpoint": "a", "paths": 3}
    (tmp_path / "protocol.json").write_text(json.dumps(protocol))
    WorkCache(tmp_path, protocol)
    with pytest.raises(ConfigurationError, match="another measurement"):
        WorkCache(tmp_path, protocol | {"paths": 4})


def test_a_work_cache_of_a_newer_format_says_so(tmp_path: Path) -> None:
    newer = replace(WORK_CACHE, migrations={**WORK_CACHE.migrations, WORK_CACHE.format: dict})
    (tmp_path / "protocol.json").write_text(json.dumps(newer.stamp() | {"protocol": {}}))
    with pytest.raises(ConfigurationError, match="upgrade walkback"):
        WorkCache(tmp_path, {})


def test_a_step_of_a_newer_format_is_passed_over(tmp_path: Path) -> None:
    shutil.copytree(OLD / "1" / "run" / "checkpoints", tmp_path / "checkpoints")
    store = CheckpointStore(tmp_path / "checkpoints")
    saved, warnings = store.latest()
    assert saved is not None
    assert (saved.step, warnings) == (4, [])
    manifest = json.loads(saved.manifest.read_text()) | STEP.stamp() | {"format": STEP.format + 1}
    saved.manifest.write_text(json.dumps(manifest))
    found, warnings = store.latest()
    assert found is None
    assert "upgrade walkback" in warnings[0]


# --- configurations


def test_a_configuration_says_its_format() -> None:
    written = tomllib.loads(resolve(Registry.discover(enabled=False)).to_toml())
    assert (written["kind"], written["format"]) == ("configuration", CONFIGURATION.format)


def test_loggers_were_a_list_in_format_1(tmp_path: Path) -> None:
    registry = Registry.discover(enabled=False)
    recipe = tmp_path / "old.toml"
    recipe.write_text("[run]\nloggers = ['tensorboard']\nseed = 7\n")
    config = resolve(registry, recipe=str(recipe), components={"operator": "gaussian-mlp", "data": "digits"})
    assert [logger.name for logger in config.loggers] == ["tensorboard"]
    assert config.run.seed == 7


def test_a_configuration_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    registry = Registry.discover(enabled=False)
    newer = tmp_path / "new.toml"
    newer.write_text("kind = 'configuration'\nformat = 99\n")
    with pytest.raises(ConfigurationError, match=r"recipe '.*new\.toml' in format 99.*upgrade walkback"):
        resolve(registry, recipe=str(newer))


@pytest.mark.parametrize("config", [None, [1], {"run": 3}, {"run": {"loggers": [["a"]]}}])
def test_an_old_checkpoint_with_no_configuration_is_damaged(config: object) -> None:
    with pytest.raises(CheckpointError, match="it is damaged"):
        CHECKPOINT.migrated({"kind": "checkpoint", "format": 1, "config": config}, "a file")


# --- files of format 1


@pytest.mark.parametrize("name", ["1/gaussian", "1/bernoulli", "2/gaussian"])
def test_an_old_checkpoint_samples_as_it_did(name: str, tmp_path: Path) -> None:
    out = tmp_path / "samples.safetensors"
    options = ("--num", "8", "--extra", "2", "--seed", "1", "--device", "cpu")
    assert walkback("sample", OLD / f"{name}.safetensors", *options, "--out", out).code == 0
    expected, _ = read_tensors(OLD / f"{name}-samples.safetensors")
    found, _ = read_tensors(out)
    # The same to the bit where they were made; another machine may add in another order.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_an_old_checkpoint_has_the_bound_that_it_had(name: str) -> None:
    options = ("--paths", "4", "--simulated", "10", "--limit", "20", "--device", "cpu", "--json")
    done = walkback("evaluate", OLD / "1" / f"{name}.safetensors", *options)
    assert done.code == 0, done.err
    found = {figure["name"]: figure["value"] for figure in done.document()["figures"]}
    expected = json.loads((OLD / "1" / f"{name}-figures.json").read_text())
    del expected["is_nll_error_of_paths"]  # it could not exceed 1 nat, whatever the works were
    assert {figure: found[figure] for figure in expected} == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_an_old_checkpoint_says_what_it_is(name: str) -> None:
    path = OLD / "1" / f"{name}.safetensors"
    assert path.stat().st_size < 100_000
    done = walkback("info", path)
    assert done.code == 0
    assert {"gaussian": "gaussian-mlp", "bernoulli": "bernoulli-plain-mlp"}[name] in done.out
    assert load_checkpoint(path).description == read_description(path)


@pytest.mark.parametrize("number", ["1", "2"])
def test_an_old_run_goes_on_as_it_would_have(tmp_path: Path, number: str) -> None:
    shutil.copytree(OLD / number / "run", tmp_path / "run")
    done = walkback("run", "--resume", tmp_path / "run", "--steps", "8")
    assert done.code == 0, done.err
    expected = [json.loads(line) for line in (OLD / number / "run-whole.jsonl").read_text().splitlines()]
    found = records(tmp_path / "run")
    assert len(found) == len(expected)
    for record, before in zip(found, expected, strict=True):
        # Validations have had other noise since processes divide them; training has not.
        validated = {name for name in before if name.startswith("validation")}
        for name in before.keys() - {"seconds", "best_step"} - validated:
            assert math.isclose(record[name], before[name], rel_tol=1e-4), (name, record, before)
