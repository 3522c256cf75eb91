"""Absurd recipes, configurations and values of `--set`: one sentence, exit code 2, bounded time and memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import walkback

from walkback.configuration.documents import NotTomlError, parse_toml
from walkback.configuration.overrides import parse_value
from walkback.errors import ConfigurationError
from walkback.storage.work_cache import WorkCache
from walkback.support.textfile import MOST_BYTES, read_text


def _huge(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(60 * 2**20)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nested lists": (lambda file: file.write_text("recipe = " + "[" * 5000), "nested more than 32 levels"),
    "nested tables": (lambda file: file.write_text("recipe = " + "{a=" * 5000), "nested more than 32 levels"),
    "nested and closed": (
        lambda file: file.write_text("recipe = " + "[" * 40 + "]" * 40),
        "nested more than 32 levels",
    ),
    "long key": (lambda file: file.write_text("a." * 400_000 + "b = 1"), "nested more than 32 levels"),
    "quoted key": (lambda file: file.write_text('"a" . ' * 4000 + "b = 1"), "nested more than 32 levels"),
    "5,000 digits": (lambda file: file.write_text("recipe = " + "1" * 5000), "thousands of digits"),
    "4,000 digits": (lambda file: file.write_text("[run]\nseed = " + "1" * 4000), "64 bits"),
    "65 bits": (
        lambda file: file.write_text(f"[run]\nseed = {2**63}"),
        "run.seed|has seed = 9223372036854775808",
    ),
    "pipe": (os.mkfifo, "not a regular file"),
    "device": (lambda file: file.symlink_to("/dev/zero"), "not a regular file"),
    "directory": (lambda file: file.mkdir(), "not a regular file"),
    "60 MB": (_huge, "larger than 1,048,576 bytes"),
    "bytes": (lambda file: file.write_bytes(b"recipe = '\xff'"), "not a text file in UTF-8"),
    "twice": (lambda file: file.write_text("[run]\nseed = 1\nseed = 2"), "not valid TOML"),
    "twice a section": (lambda file: file.write_text("[run]\n[run]\n"), "not valid TOML"),
}


@pytest.mark.parametrize("what", FILES)
def test_recipes_that_cannot_be_meant_are_refused(what: str, tmp_path: Path) -> None:
    make, said = FILES[what]
    make(tmp_path / "a.toml")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = walkback("run", "--recipe", tmp_path / "a.toml", "--dry-run")
    (line,) = done.err.splitlines()
    assert done.code == 2, line
    assert any(part in line for part in said.split("|")), line
    assert len(line) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


@pytest.mark.parametrize("what", ["nested lists", "5,000 digits", "pipe", "device", "bytes", "60 MB"])
def test_configurations_of_runs_are_bounded_alike(what: str, tmp_path: Path) -> None:
    make, _ = FILES[what]
    make(tmp_path / "config.toml")
    done = walkback("run", "--resume", tmp_path, "--dry-run")
    (line,) = done.err.splitlines()
    assert done.code == 2, line


@pytest.mark.parametrize("value", ["[" * 5000, "1" * 5000, "1" * 400, "{a=" * 3000])
def test_values_of_set_are_bounded_alike(value: str) -> None:
    done = walkback("run", "--dry-run", "--set", f"training.steps={value}")
    (line,) = done.err.splitlines()
    assert done.code == 2, line
    assert len(line) < 300
    with pytest.raises(ConfigurationError):
        parse_value(value)


def test_usual_documents_and_values_are_read() -> None:
    assert (
        parse_toml("a = [[[1, -2.5]]]\n[b.c.d]\ne = 9223372036854775807", "It")["b"]["c"]["d"]["e"]
        == 2**63 - 1
    )
    assert parse_value("1.2.3.4") == "1.2.3.4"
    floats = [0.25 * n for n in range(200)]
    assert parse_value(str(floats)) == floats
    with pytest.raises(NotTomlError, match="It is not valid TOML"):
        parse_toml("a", "It")


def test_text_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_text(file) == "a = 1"
    file.write_text("x" * MOST_BYTES)
    assert len(read_text(file)) == MOST_BYTES


def test_a_cache_whose_protocol_is_a_pipe_or_nested_is_of_another_measurement(tmp_path: Path) -> None:
    for number, make in enumerate((os.mkfifo, lambda file: file.write_text("[" * 100_000), _huge)):
        place = tmp_path / str(number)
        place.mkdir()
        make(place / "protocol.json")
        with pytest.raises(ConfigurationError, match="another measurement"):
            WorkCache(place, {})
