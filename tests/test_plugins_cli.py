"""`walkback plugins list|show|check`, the version of the interface, and plugins that are wrong in every way."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt
from tests.program import ENVIRONMENT, TINY, Done, walkback

from walkback.component import API_VERSION, KINDS
from walkback.configuration.options import REQUIRED, Option, describe, documented, options_of
from walkback.extensions.registry import Registry

Install = Callable[..., Path]

OPERATOR = """
    @hookimpl
    def walkback_operators():
        yield Component("fine", "{target}", "An operator", {defaults})
"""

PARTS = {"prior": "gaussian", "schedule": "geometric", "process": "tied", "objective": "walkback"}
DEFAULTS = str({section: {"name": name} for section, name in PARTS.items()})

CODE = '''
import torch
from walkback.kernels import NormalKernel
from walkback.operators import Conditional, TransitionOperator

class Step(Conditional):
    def __init__(self, kernel):
        self.kernel = kernel
    def cooling(self, level):
        return self.kernel
    def heating(self, level):
        return self.kernel

class Base(TransitionOperator):
    """Adds noise.

    Args:
        size: Standard deviation of the noise,
            whatever the temperature.
    """

    max_temperature = 4.0

    def __init__(self, space, *, size: float = 1.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(space.shape))
        self.size = size

    def forward(self, state, level, context=None):
        return Step(NormalKernel(*self.moments(state)))

    def moments(self, state):
        return state + self.shift, torch.full_like(state, self.size**2)

class WrongShape(Base):
    def moments(self, state):
        return (state + self.shift)[:, :1].flatten(), torch.ones(())

class NotANumber(Base):
    def moments(self, state):
        return state + self.shift, torch.full_like(state, float("nan"))

class WrongSignature(TransitionOperator):
    def __init__(self):
        super().__init__()
    max_temperature = 4.0
    def forward(self, state):
        return state
'''


def offer(
    install: Install, cls: str, *, distribution: str = "other", code: str = CODE, defaults: str = "{}"
) -> Path:
    """Install a plugin with the operator "fine", a class of `CODE`."""
    module = f"{distribution}_code"
    target = f"{module}:{cls}"
    site = install(distribution, OPERATOR.format(target=target, defaults=defaults), version="2.3")
    (site / f"{module}.py").write_text(code)
    return site


@pytest.fixture(autouse=True)
def _forget_modules() -> None:
    """Modules of an earlier test have the same names."""
    for name in [name for name in sys.modules if name.endswith("_code")]:
        del sys.modules[name]


# --- options in words


class Example:
    """An example.

    Args:
        space: Not an option.
        size: Units per layer,
            in all layers.
        kind (str): Form: of the mean.
        path: Where it is.

    Raises:
        size: Never.
    """

    def __init__(
        self,
        space: object,
        *,
        size: PositiveInt,
        kind: Literal["mix", "plain"] = "mix",
        share: Annotated[float, Field(gt=0, le=1, description="A share.")] = 0.5,
        widths: tuple[PositiveInt, ...] | None = None,
        pair: tuple[int, float] = (1, 2.0),
        path: Path = Path("here"),
        flag: bool = False,
        anything: object = None,
    ) -> None:
        """Make it.

        Args:
            flag: Whether it flies.
        """


def test_options_in_words() -> None:
    assert options_of(Example) == (
        Option("size", "integer > 0", REQUIRED, "Units per layer, in all layers"),
        Option("kind", '"mix" or "plain"', '"mix"', "Form: of the mean"),
        Option("share", "number > 0 and ≤ 1", "0.5", "A share."),
        Option("widths", "list of integer > 0, or none", "none", ""),
        Option("pair", "list of integer, number", "[1,2.0]", ""),
        Option("path", "path", '"here"', "Where it is"),
        Option("flag", "true or false", "false", "Whether it flies"),
        Option("anything", "anything", "none", ""),
    )


def test_unions_and_references_in_words() -> None:
    definitions = {"Law": {"enum": ["a", "b"]}}
    schema = {"anyOf": [{"$ref": "#/$defs/Law"}, {"type": "number", "minimum": 0}, {"const": "x"}]}
    assert describe(schema, definitions) == '"a" or "b", or number ≥ 0, or "x"'
    assert describe({"$ref": "#/$defs/Gone"}) == "anything"


@pytest.mark.parametrize(
    "docstring", [None, "", "Args:", "One line.", "Args:\n    no colon", "Args:\n\n\nx: y"]
)
def test_docstrings_without_arguments(docstring: str | None) -> None:
    assert documented(type("Bare", (), {"__doc__": docstring, "__init__": lambda self: None})) == {}


def test_every_option_of_every_component_can_be_told() -> None:
    registry = Registry.discover(enabled=False)
    told = {
        offered.spec.name: options_of(registry.load(offered), offered.spec.preset, registry)
        for kind in KINDS
        for offered in registry.components(kind)
    }
    assert [option.type for option in told["gaussian-mlp"] if option.name == "network.hidden"] == [
        "integer > 0"
    ]
    assert not [option for options in told.values() for option in options if option.type == "anything"]


# --- show


def test_show_a_component(install: Install) -> None:
    offer(install, "Base", defaults='{"prior": {"name": "gaussian"}, "training": {"lr": 0.01}}')
    document = walkback("plugins", "show", "fine", "--json").document()
    assert document == {
        "name": "fine",
        "kind": "operator",
        "qualified_name": "other:fine",
        "plugin": "other:main",
        "distribution": "other",
        "version": "2.3",
        "status": "ok",
        "error": None,
        "rivals": [],
        "summary": "An operator",
        "class": "other_code:Base",
        "options": [
            {
                "name": "size",
                "type": "number",
                "default": "1.0",
                "help": "Standard deviation of the noise, whatever the temperature",
            }
        ],
        "defaults": {"prior": {"name": "gaussian"}, "training": {"lr": 0.01}},
    }
    shown = walkback("plugins", "show", "fine").out
    for piece in ("other 2.3", "size", "Standard deviation", "training.lr", "0.01", "other_code:Base"):
        assert piece in shown


@pytest.mark.parametrize(
    ("target", "words"),
    [("no_such_module:Thing", "No module named 'no_such_module'"), ("math:pi", "math:pi is not a class")],
)
def test_show_a_component_that_cannot_be_imported(install: Install, target: str, words: str) -> None:
    install("other", OPERATOR.format(target=target, defaults="{}"))
    done = walkback("plugins", "show", "fine", "--json", "--traceback")
    document = done.document()
    assert (done.code, document["status"], document["options"]) == (0, "broken", [])
    assert words in document["error"]
    assert "Traceback" in document["traceback"]
    assert "traceback" not in walkback("plugins", "show", "fine", "--json").document()


@pytest.mark.parametrize("name", ["bad", "main", "bad:main", "Bad"])
def test_show_a_broken_plugin(install: Install, name: str) -> None:
    install("bad", "def mistaken(): 1 / 0\nmistaken()", version="4.5")
    done = walkback("plugins", "show", name)
    assert done.code == 0
    for piece in ("bad 4.5", "broken", "ZeroDivisionError: division by zero"):
        assert piece in done.out
    assert "in mistaken" not in done.out
    assert "in mistaken" in walkback("plugins", "show", name, "--traceback").out
    (plugin,) = walkback("plugins", "show", name, "--json").document()["plugins"]
    assert (plugin["status"], plugin["version"], plugin["offers"]) == ("broken", "4.5", {})


def test_show_a_plugin_with_what_it_offers(install: Install) -> None:
    offer(install, "Base")
    (plugin,) = walkback("plugins", "show", "other:main", "--json").document()["plugins"]
    assert plugin["offers"] == {"operator": ["fine"]}


def test_traceback_is_shown_without_control_characters(install: Install) -> None:
    install("bad", "raise ValueError('\\x1b[31m[/red]')")
    assert "\x1b" not in walkback("plugins", "show", "bad", "--traceback").out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fien"], 2, "Unknown component 'fien' (did you mean 'fine'?)"),
        (["fine", "--kind", "schedule"], 2, "Unknown schedule 'fine'"),
        (["fine", "--kind", "scedule"], 2, "did you mean 'schedule'"),
        (["gaussian"], 2, "add --kind operator or --kind prior"),
        (["bad:fine"], 4, "bad:main is broken"),
        (["nowhere:fine"], 2, "Unknown component 'nowhere:fine'"),
    ],
)
def test_names_that_cannot_be_shown(install: Install, arguments: list[str], code: int, message: str) -> None:
    install("bad", "raise SystemExit")
    offer(install, "Base")
    install("more", "@hookimpl\ndef walkback_operators(): yield Component('gaussian', 'a:b')")
    done = walkback("plugins", "show", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_clashing_names(install: Install) -> None:
    offer(install, "Base")
    offer(install, "Base", distribution="rival")
    done = walkback("plugins", "show", "fine")
    assert (done.code, "'other:fine' or 'rival:fine'" in done.err) == (2, True)
    document = walkback("plugins", "show", "rival:fine", "--json").document()
    assert (document["status"], document["rivals"]) == ("shadowed", ["other:fine"])
    listing = walkback("plugins", "list", "--kind", "operator", "--json").document()["offers"]["operator"]
    states = {o["qualified_name"]: (o["status"], o["distribution"], o["version"]) for o in listing}
    assert states["other:fine"] == ("shadowed", "other", "2.3")
    assert states["rival:fine"] == ("shadowed", "rival", "2.3")
    assert states["walkback:gaussian-mlp"][0] == "ok"
    assert re.search(r"other:fine +An operator; shadowed:", walkback("plugins", "list").out)


def test_unknown_option_says_where_options_are_explained(install: Install) -> None:
    offer(install, "Base", defaults=DEFAULTS)
    done = walkback(
        "run", "--operator", "fine", "--data", "swiss-roll", "--set", "operator.szie=2", "--dry-run"
    )
    assert done.code == 2
    assert "did you mean 'operator.size'?" in done.err
    assert "walkback plugins show fine" in done.err
    assert "walkback plugins show NAME" in " ".join(walkback("run", "--help").out.replace("│", " ").split())


# --- check


def checked(name: str, *options: str) -> tuple[Done, Mapping[str, Mapping[str, str]]]:
    done = walkback("plugins", "check", name, *options, "--json")
    return done, {check["name"]: check for check in done.document()["checks"]}


def test_check_a_sound_component() -> None:
    done, checks = checked("geometric", "--set", "factor=3.0")
    assert done.code == 0
    assert {check["status"] for check in checks.values()} <= {"passed", "skipped", "expected"}
    assert done.document()["options"] == {"factor": 3.0}


@pytest.mark.parametrize("cls", ["WrongShape", "NotANumber", "WrongSignature"])
def test_check_a_component_at_fault(install: Install, cls: str) -> None:
    offer(install, cls)
    done, checks = checked("fine")
    assert done.code == 4
    failures = [check for check in checks.values() if check["status"] == "failed"]
    assert failures
    assert all(check["message"] for check in failures)
    assert done.document()["passed"] is False
    assert f"{len(failures)} of {len(checks)} checks failed" in done.err


def test_check_tells_in_a_table(install: Install) -> None:
    offer(install, "WrongSignature")
    done = walkback("plugins", "check", "fine")
    assert done.code == 4
    assert "operator fine of other 2.3" in done.out
    assert "failed" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["geometric", "--set", "factor"], 2, "expected --set"),
        (["elsewhere"], 2, "Unknown component"),
        (["fine"], 4, "No module named 'gone'"),
    ],
)
def test_what_cannot_be_checked(install: Install, arguments: list[str], code: int, message: str) -> None:
    install("other", OPERATOR.format(target="gone:Thing", defaults="{}"))
    done = walkback("plugins", "check", *arguments)
    assert done.code == code
    assert message in done.err


# --- the version of the interface


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (str(API_VERSION + 1), "pip install --upgrade walkback"),
        (str(API_VERSION - 1), "pip install --upgrade other"),
        ("'1'", "WALKBACK_API = '1', expected an integer such as 1"),
        ("True", "WALKBACK_API = True, expected an integer"),
        ("1.0", "WALKBACK_API = 1.0, expected an integer"),
    ],
)
def test_another_version_of_the_interface_is_broken(install: Install, version: str, reason: str) -> None:
    # A hook that this version does not know is no excuse for a message about a misspelt name.
    code = f"WALKBACK_API = {version}\n@hookimpl\ndef walkback_dreams(): return []"
    install("other", code)
    install("good", "@hookimpl\ndef walkback_operators(): yield Component('fine', 'a:b')")
    registry = Registry.discover()
    (status,) = [status for status in registry.plugins if status.name == "other:main"]
    assert status.status == "broken"
    assert reason in status.error
    assert registry.find("operator", "fine").distribution == "good"


@pytest.mark.parametrize("line", [f"WALKBACK_API = {API_VERSION}", ""])
def test_this_version_of_the_interface_or_none(install: Install, line: str) -> None:
    install("other", f"{line}\n@hookimpl\ndef walkback_operators(): yield Component('fine', 'a:b')")
    assert Registry.discover().find("operator", "fine").distribution == "other"


# --- isolation

FAULTS = {
    "import error": "import no_such_module",
    "exit": "raise SystemExit(9)",
    "wrong signature of a hook": "@hookimpl\ndef walkback_operators(registry): return []",
    "another version": "WALKBACK_API = 99",
    "prints and warns": "import warnings\nwarnings.warn('x')\nprint(1)\n@hookimpl\ndef walkback_priors(): return []",
    "slow": "import time\ntime.sleep(0.3)\n@hookimpl\ndef walkback_priors(): return []",
    "clash": "@hookimpl\ndef walkback_operators(): yield Component('gaussian-conv', 'a:b')",
    "no such class": "@hookimpl\ndef walkback_operators(): yield Component('fine', 'no_such_module:Thing')",
    "endless recursion": "def f(): f()\nf()",
    "raises a class of its own": "class Mine(Exception):\n    def __str__(self): raise ValueError\nraise Mine",
}

UNRELATED = (
    ("--help",),
    ("recipes", "list", "--json"),
    ("plugins", "list", "--json"),
    ("run", *TINY, "--dry-run", "--json"),
)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore:x:UserWarning")
def test_no_fault_breaks_an_unrelated_command(install: Install, fault: str) -> None:
    install("sick", FAULTS[fault])
    for arguments in UNRELATED:
        done = walkback(*arguments)
        assert done.code == 0, done.err
        assert len(done.err.splitlines()) <= 2
        if "--json" in arguments:
            done.document()


@pytest.mark.parametrize("cls", ["WrongShape", "NotANumber", "WrongSignature"])
def test_a_component_at_fault_breaks_its_own_run_only(install: Install, cls: str, tmp_path: Path) -> None:
    offer(install, cls, defaults=DEFAULTS)
    wrong = walkback("run", *tiny_run("fine"), "--out", tmp_path / "wrong")
    assert wrong.code in (1, 4)
    assert wrong.err.splitlines()[-1].startswith("error: ")
    right = walkback(
        "run", *tiny_run("gaussian-mlp"), "--set", "operator.network.hidden=8", "--out", tmp_path / "right"
    )
    assert right.code == 0, right.err


def tiny_run(operator: str) -> tuple[str, ...]:
    settings = ("samples.num=2", "samples.chains=2", "samples.chain_steps=2", "samples.chain_every=1")
    more = ("evaluation.limit=5", "training.validation_examples=5", "schedule.max_temperature=8")
    words = tuple(word for setting in (*settings, *more) for word in ("--set", setting))
    return ("--operator", operator, "--data", "swiss-roll", "--steps", "2", "--batch-size", "4", *words)


def test_a_slow_plugin_is_told_by_its_seconds(install: Install) -> None:
    install("slow", FAULTS["slow"])
    (plugin,) = walkback("plugins", "show", "slow", "--json").document()["plugins"]
    assert plugin["status"] == "ok"
    assert plugin["seconds"] >= 0.3


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--version"], {}),
        (["--no-plugins", "recipes", "list"], {}),
        (["recipes", "list"], {"WALKBACK_PLUGINS": ""}),
    ],
)
def test_a_plugin_that_hangs_can_be_left_out(
    install: Install, arguments: list[str], variables: dict[str, str]
) -> None:
    site = install("hung", "import time\ntime.sleep(600)")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(site), **variables}
    line = [sys.executable, "-m", "walkback", *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["plugins", "new", "mine"], ["plugins", "show", "walkback:paper"]])
def test_light_commands_do_not_import_torch(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
        import sys
        from walkback.cli.main import call
        assert call({arguments!r}) == 0
        print(*sorted({{"torch", "datasets", "numpy"}} & set(sys.modules)), file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=dict(ENVIRONMENT),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""
