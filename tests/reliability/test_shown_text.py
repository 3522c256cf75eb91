"""Text from files and users in messages, tables, progress and HTML: escaped, on one line, and bounded."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.program import walkback

from walkback.cli.console import Output, table
from walkback.errors import ConfigurationError, WalkbackError, escaped, in_one_line
from walkback.support import html
from walkback.support.progress import ProgressBar

NAMES = (
    "a\nerror: forged",
    "a\r\x1b[2Jb",
    "\x9b31m",
    "\u202egnp",
    "a\u2028b",
    "a\u200bb",
    "a\x00b",
    "\udce9",
    "[/red]x",
)
CUT = "…"


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_errors_are_one_printable_line(name: str) -> None:
    message = str(WalkbackError(f"Got {name}, expected another."))
    assert message.isprintable()
    assert message.startswith("Got ")
    assert message.endswith(", expected another.")


def test_escapes_are_those_of_json_and_toml() -> None:
    assert escaped("\x1b\u202e\U000e0001\n") == "\\u001b\\u202e\\U000e0001\\n"
    assert json.loads('"' + escaped("\x1b\u202e") + '"') == "\x1b\u202e"
    assert escaped("σ = ½ 日本 🙂") == "σ = ½ 日本 🙂"


def test_a_name_of_half_a_million_characters_leaves_the_ends_of_a_sentence() -> None:
    message = str(ConfigurationError(f"Got {'x' * 500_000}, expected a name: rename it."))
    assert len(message) <= 2000
    assert message.startswith("Got xxx")
    assert message.endswith("xxx, expected a name: rename it.")
    assert CUT in message
    assert len(in_one_line("\x1b" * 500_000)) <= 2000


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_what_the_program_says_is_a_line_each(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.note(name)
    output.warn(name)
    output.error(name)
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", [*NAMES, "x" * 500_000], ids=lambda name: ascii(name[:20]))
def test_tables_and_progress_are_printable_and_bounded(name: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    console.print(table(("", ""), [("name", name)]))
    with ProgressBar(console, console.print) as bar:
        bar.stage(f"Preparing {name}", 10)
        bar.advance(5, {})
        bar.note(name)
        bar.warn(f"Warning: {name}".replace("[/red]", ""))
    text = stream.getvalue()
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text) < 20_000


def test_html_is_escaped_and_bounded() -> None:
    made = html.table([("<b>", "\x1b" + "y" * 500_000)])
    assert "&lt;b&gt;" in made
    assert "\\u001b" in made
    assert len(made) < 5000


@pytest.mark.parametrize("name", ["a\nerror: forged.safetensors", "\x1b[31m.safetensors", "x" * 5000])
def test_file_names_forge_nothing(name: str, tmp_path: Path) -> None:
    for command in (("info",), ("sample",), ("evaluate",), ("diagnose", "mixing")):
        done = walkback(*command, f"{tmp_path}/{name}")
        (line,) = done.err.splitlines()
        assert done.code == 2
        assert line.startswith("error: ")
        assert line.isprintable()
        assert len(line) < 2100
