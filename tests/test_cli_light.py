"""The program around the engine: listings, exit codes, streams, broken plugins, starting without torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from walkback.cli.app import COMMANDS, build_app
from walkback.cli.console import Output
from walkback.cli.main import call
from walkback.extensions.registry import Registry

Install = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

OPERATOR = """
    @hookimpl
    def walkback_operators():
        yield Component("fine", "collections:OrderedDict", "{summary}")
"""

COMMAND = """
    import typer
    app, unreadable = typer.Typer(), typer.Typer()

    @app.command()
    def go(value: int = 0):
        {body}

    @unreadable.command()
    def stray(value: "Nowhere" = 0): ...

    @hookimpl
    def walkback_commands():
        yield Command("{name}", "{target}", "A command [of] a plugin")
"""

DATASET = """
    from walkback.data import DataInfo

    class Dots:
        def __init__(self, *, count: int = 3):
            self.count = count

        def prepare(self):
            print("preparing")

        @property
        def info(self):
            splits = {"train": self.count, "test": 1}
            return DataInfo("[/dots]", (1, 2, 2), "real", 256, ("[bold]scaled", "cut"), splits, "abc123")
"""

DATASETS = """
    @hookimpl
    def walkback_datasets():
        yield Component("dots", "dots_code:Dots", "Dots")
"""


def command(body: str, name: str = "extra", target: str = "good_main:app") -> str:
    return COMMAND.format(body=body, name=name, target=target)


def program(*arguments: str, site: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("WALKBACK")
    } | variables
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    line = [sys.executable, "-m", "walkback", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)


# --- starting


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["plugins", "list"], ["data", "list", "--json"]]
)
def test_light_commands_import_neither_torch_nor_datasets(arguments: list[str]) -> None:
    code = f"""
import sys
from walkback.cli.main import call
assert call({arguments!r}) == 0
heavy = {{"torch", "datasets", "numpy", "sklearn", "walkback.configuration.config"}}
print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == ""


def test_version(capsys: Capture) -> None:
    assert call(["--version"]) == 0
    assert re.fullmatch(r"walkback \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_help_lists_every_command_once(capsys: Capture) -> None:
    assert call(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (own.name for own in COMMANDS):
        assert sum(line.startswith(f"│ {name} ") for line in lines) == 1


def test_no_arguments_shows_the_help(capsys: Capture) -> None:
    assert call([]) == 2
    streams = capsys.readouterr()
    assert "Usage: walkback" in streams.out
    assert streams.err == ""


# --- broken plugins


def test_broken_plugin_is_named_in_one_line_and_everything_works(install: Install, capsys: Capture) -> None:
    install("bad", "raise SystemExit(7)")
    install("good", OPERATOR.format(summary="An operator"))
    for arguments in (["--help"], ["plugins", "list"], ["data", "list"], ["recipes", "list", "--json"]):
        assert call(arguments) == 0
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "bad" in line]
        assert line == "warning: Plugin bad:main (1.0) is broken: SystemExit: 7."


def test_listing_shows_states_and_errors(install: Install, capsys: Capture) -> None:
    install("bad", "raise ImportError('no [/such] thing')")
    install("good", OPERATOR.format(summary="[/foo] [bold]x[/bold] \\x1b[31m"))
    assert call(["plugins", "list", "--kind", "operator"]) == 0
    out = capsys.readouterr().out
    assert "broken: ImportError: no [/such] thing" in out
    assert "[/foo] [bold]x[/bold] \\u001b[31m" in out
    assert "\x1b" not in out


def test_listing_as_json(install: Install, capsys: Capture) -> None:
    install("bad", "print('not json')\n1 / 0")
    install("good", OPERATOR.format(summary="One"))
    install("other", OPERATOR.format(summary="Two"))
    assert call(["plugins", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (bad,) = [plugin for plugin in document["plugins"] if plugin["name"] == "bad:main"]
    assert bad == {
        "name": "bad:main",
        "distribution": "bad",
        "version": "1.0",
        "status": "broken",
        "error": "ZeroDivisionError: division by zero",
    }
    found = {offer["qualified_name"]: offer["rivals"] for offer in document["offers"]["operator"]}
    assert found["good:fine"] == ["other:fine"]


def test_debug_shows_the_tracebacks_of_broken_plugins(install: Install, capsys: Capture) -> None:
    install("bad", "1 / 0")
    assert call(["plugins", "list", "--debug"]) == 0
    assert 'bad_main.py", line 3' in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--no-plugins", "plugins", "list"], ["plugins", "list", "--no-plugins"]]
)
def test_no_plugins(install: Install, capsys: Capture, arguments: list[str]) -> None:
    install("bad", "raise SystemExit")
    assert call(arguments) == 0
    streams = capsys.readouterr()
    assert re.search(r"bad:main +1\.0 +blocked", streams.out)
    assert "bad" not in streams.err


@pytest.mark.parametrize(("names", "state"), [("main", "ok"), ("good:main , x", "ok"), ("", "blocked")])
def test_plugins_named_in_the_environment(
    install: Install, capsys: Capture, monkeypatch: pytest.MonkeyPatch, names: str, state: str
) -> None:
    install("good", OPERATOR.format(summary=""))
    monkeypatch.setenv("WALKBACK_PLUGINS", names)
    assert call(["plugins", "list"]) == 0
    streams = capsys.readouterr()
    assert re.search(rf"good:main +1\.0 +{state}", streams.out)
    assert ("No installed plugin is called 'x'." in streams.err) == ("x" in names)


# --- exit codes


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope"], 2, "No such command 'nope'"),
        (["rcipes"], 2, "Did you mean 'recipes'?"),
        (["plugins", "list", "--frob"], 2, "No such option: --frob (see walkback plugins list --help)."),
        (["recipes", "show"], 2, "Missing argument"),
        (["plugins", "list", "--kind", "operater"], 2, "did you mean 'operator'"),
        (["data", "prepare", "./no-such-place"], 2, "No such path: './no-such-place'"),
        (["data", "prepare", "x", "--set", "y"], 2, "Got --set 'data.y', expected"),
        (["recipes", "show", "[/b]"], 2, "Unknown recipe '[/b]'"),
        (["recipes", "show", "bad:x"], 4, "bad:main is broken (SystemExit)"),
        (["bad:x"], 2, "No such command"),
    ],
)
def test_errors_are_one_sentence(
    install: Install, capsys: Capture, arguments: list[str], code: int, message: str
) -> None:
    install("bad", "raise SystemExit")
    assert call(arguments) == code
    streams = capsys.readouterr()
    (error,) = [line for line in streams.err.splitlines() if not line.startswith("warning: ")]
    assert error.startswith("error: ")
    assert message in error
    assert streams.out == ""


def test_unexpected_error_hides_its_traceback_until_debug(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> NoReturn:
        raise ValueError("[/odd]")

    monkeypatch.setattr(Registry, "recipes", fail)
    assert call(["recipes", "list"]) == 1
    assert capsys.readouterr().err == "error: ValueError: [/odd]; run again with --debug for the traceback.\n"
    for arguments in (["--debug", "recipes", "list"], ["recipes", "list", "--debug"]):
        assert call(arguments) == 1
        assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_error_of_a_command_of_a_plugin_is_the_plugins(install: Install, capsys: Capture) -> None:
    install("good", command("raise ValueError('[/odd]')"))
    assert call(["extra", "go"]) == 4
    said = "error: The plugin good 1.0 failed: ValueError: [/odd] (good_main.py, line "
    assert capsys.readouterr().err.startswith(said)
    assert call(["extra", "go", "--debug"]) == 4
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "code"), [("raise typer.Exit(3)", 3), ("return 7", 0), ("raise KeyboardInterrupt", 130)]
)
def test_exit_codes_of_commands(install: Install, body: str, code: int) -> None:
    install("good", command(body))
    assert call(["extra", "go"]) == code


def test_interrupt_by_signal(install: Install) -> None:
    site = install(
        "good", command("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)")
    )
    done = program("extra", "go", site=site)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted.\n")


def test_reader_that_has_gone_is_no_error() -> None:
    line = [sys.executable, "-m", "walkback", "plugins", "list", "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


# --- commands of plugins


def test_plugin_command_is_listed_without_its_code(install: Install, capsys: Capture) -> None:
    install("good", command("pass", target="no_such_module:app"))
    assert call(["--help"]) == 0
    assert "A command [of] a plugin" in capsys.readouterr().out
    assert call(["extra"]) == 4
    assert "'extra' of distribution good 1.0 is broken" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["math:pi", "good_main:Command", "good_main:unreadable"])
def test_plugin_command_that_is_none(install: Install, capsys: Capture, target: str) -> None:
    install("good", command("pass", target=target))
    assert call(["extra"]) == 4
    assert "'good:extra' is broken" in capsys.readouterr().err


def test_plugin_command_runs_and_parses(install: Install, capsys: Capture) -> None:
    install("good", command("print(value + 1)"))
    assert call(["extra", "go", "--value", "2"]) == 0
    assert call(["good:extra", "go", "--value", "x"]) == 2
    streams = capsys.readouterr()
    assert streams.out == "3\n"
    assert "Invalid value for '--value'" in streams.err


def test_plugin_command_claimed_twice(install: Install, capsys: Capture) -> None:
    install("good", command("print('good')"))
    install("other", command("print('other')", target="other_main:app"))
    assert call(["extra", "go"]) == 2
    assert "'good:extra' or 'other:extra'" in capsys.readouterr().err
    assert call(["other:extra", "go"]) == 0
    assert capsys.readouterr().out == "other\n"


def test_plugin_cannot_replace_a_command(install: Install, capsys: Capture) -> None:
    install("good", command("print('mine now')", name="recipes"))
    assert call(["recipes", "list", "--json"]) == 0
    json.loads(capsys.readouterr().out)


# --- data and recipes


def test_data_prepare(install: Install, capsys: Capture) -> None:
    site = install("dots", DATASETS)
    (site / "dots_code.py").write_text("\n".join(line[4:] for line in DATASET.splitlines()))
    assert call(["data", "prepare", "dots", "--set", "count=5000", "--json"]) == 0
    document = json.loads(capsys.readouterr().out.removeprefix("preparing\n"))
    assert document["data"] == {"name": "dots", "count": 5000}
    assert document["info"]["splits"] == {"train": 5000, "test": 1}
    assert call(["data", "prepare", "dots", "--set", "data.count=5000"]) == 0
    out = capsys.readouterr().out
    for piece in ("[/dots]", "1 × 2 × 2", "5,000 train, 1 test", "[bold]scaled; cut", "abc123", "256"):
        assert piece in out
    assert call(["data", "prepare", "dots", "--set", "cuont=5"]) == 2
    assert "Unknown option 'data.cuont' (did you mean 'data.count'?)" in capsys.readouterr().err


def test_data_list_tells_where_hub_data_come_from(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WALKBACK_DATA", str(tmp_path / "gone"))
    assert call(["data", "list"]) == 0
    assert "no such directory" in " ".join(capsys.readouterr().out.split())
    assert call(["data", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mirror"] == str(tmp_path / "gone")


def test_source_hook_that_fails_is_named_at_the_end(install: Install, capsys: Capture) -> None:
    install("sick", "@hookimpl\ndef walkback_dataset_source(source): 1 / 0")
    assert call(["data", "prepare", "s3://nowhere"]) == 2
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warning == "warning: Plugin sick:main (1.0) is broken: ZeroDivisionError: division by zero."


def test_recipes_show_prints_the_file_as_it_is(install: Install, capsys: Capture) -> None:
    site = install(
        "good", "@hookimpl\ndef walkback_recipes():\n    yield Recipe('mine', 'good_recipes:r.toml', 'Mine')"
    )
    text = f"# [bold]{'long ' * 40}[/nothing]\n[training]\nsteps = 3\n"
    (site / "good_recipes").mkdir()
    (site / "good_recipes" / "r.toml").write_text(text)
    assert call(["recipes", "show", "mine"]) == 0
    assert capsys.readouterr().out == text
    assert call(["recipes", "list", "--json"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)["recipes"]}
    assert records["mine"] == {"name": "mine", "plugin": "good:main", "summary": "Mine", "default": False}


# --- streams


def test_no_color_is_honoured() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    assert colour.search(program("nope", FORCE_COLOR="1").stderr)
    assert not colour.search(program("nope", FORCE_COLOR="1", NO_COLOR="1").stderr)


def test_terminal_without_unicode_is_no_error(install: Install) -> None:
    site = install("good", OPERATOR.format(summary="28×28"))
    done = program("plugins", "list", site=site, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "28?28" in done.stdout


def test_tables_fit_80_columns(install: Install, capsys: Capture) -> None:
    install("a-distribution-with-a-rather-long-name", OPERATOR.format(summary="many words " * 20))
    assert call(["plugins", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("many" in line for line in lines) > 1


def test_json_has_no_nan(capsys: Capture) -> None:
    Output().emit_json({"loss": float("nan"), "path": [1.5, float("-inf")], "text": "[bold]ü"})
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == {
        "loss": None,
        "path": [1.5, None],
        "text": "[bold]ü",
    }


def test_completion_of_names(install: Install) -> None:
    site = install("good", DATASETS)
    words = {
        "COMP_WORDS": "walkback data prepare do",
        "COMP_CWORD": "3",
        "_WALKBACK_COMPLETE": "complete_bash",
    }
    assert program(site=site, **words).stdout.split() == ["dots"]
    top = {"COMP_WORDS": "walkback rec", "COMP_CWORD": "1", "_WALKBACK_COMPLETE": "complete_bash"}
    assert program(**top).stdout.split() == ["recipes"]


def test_completion_of_settings_knows_the_chosen_components() -> None:
    def completed(words: str) -> list[str]:
        count = str(len(words.split()) - (not words.endswith(" ")))
        done = program(COMP_WORDS=words, COMP_CWORD=count, _WALKBACK_COMPLETE="complete_bash")
        return done.stdout.split()

    assert completed("walkback run --set tr") == ["training."]
    assert "training.chains.share=" in completed("walkback run --set training.ch")
    assert "data.num=" in completed("walkback run --data swiss-roll --set data.nu")
    assert completed("walkback run --operator nonsense --set operator.si") == []
    assert completed("walkback run --set nonsense.si") == []


def test_show_completion_prints_a_script() -> None:
    done = program("--show-completion", SHELL="/bin/bash")
    assert "_WALKBACK_COMPLETE" in done.stdout or "shell" in done.stderr.lower()


def test_application_with_a_given_registry() -> None:
    result = CliRunner().invoke(build_app(Registry([])), ["recipes", "list", "--json"])
    assert json.loads(result.stdout) == {"recipes": []}
