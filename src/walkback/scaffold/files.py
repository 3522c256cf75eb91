"""Creation of a new distribution from templates, all files at once.

    templates → texts by path → temporary directory next to the target → rename

Another process sees all files or none.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from walkback.component import API_VERSION, Kind
from walkback.errors import ConfigurationError
from walkback.extensions.loader import hook_name
from walkback.scaffold.names import Names, article
from walkback.storage.files import TEMPORARY, writing_to

_NOUNS: Mapping[Kind, str] = {
    "operator": "transition operator",
    "network": "network",
    "temperature_law": "temperature law",
    "schedule": "annealing schedule",
    "prior": "prior",
    "process": "heating process",
    "objective": "objective",
    "dataset": "dataset",
    "diagnostic": "diagnostic",
    "logger": "metric logger",
    "metric": "metric",
}
"""Name of each kind in a sentence."""

_SUMMARIES: Mapping[Kind, str] = {
    "operator": "Gaussian step, small residual network",
    "network": "Multilayer perceptron, told temperature and label with the state",
    "temperature_law": "The variance grows as a power of T",
    "schedule": "T grows by one factor, in a given number of steps",
    "prior": "Factorized Laplace distribution that follows s_K",
    "process": "Heat with the operator at a temperature that is higher by a factor",
    "objective": "-T^-a log p_T(s_{t-1} | s_t): cold steps count for more",
    "dataset": "Points on a Lissajous curve",
    "diagnostic": "Mean squared length of a step at T = 1",
    "logger": "Figures as a table in long form, figures.csv",
    "metric": "Norm of the weights, and the largest of them",
}

_USAGE: Mapping[Kind, str] = {
    "operator": "walkback run --operator {name} --data swiss-roll --steps 600 --lr 2e-3 --set training.updates=stacked",
    "network": "walkback run --operator gaussian --set operator.network={name} --steps 200",
    "temperature_law": "walkback run --operator gaussian --set operator.temperature_law={name} --steps 200",
    "schedule": "walkback run --schedule {name} --steps 200",
    "prior": "walkback run --prior {name} --steps 200",
    "process": "walkback run --process {name} --steps 200",
    "objective": "walkback run --objective {name} --steps 200",
    "dataset": "walkback run --data {name} --operator gaussian-mlp --steps 200",
    "diagnostic": "walkback diagnose {name} runs/gaussian-mlp-digits/final.safetensors",
    "logger": "walkback run --logger {name} --steps 200",
    "metric": "walkback run --set metrics.{name}=true --steps 200",
}

_DEFAULTS = """
        # What suits it elsewhere in a configuration, so that `--operator $component` is all that is needed.
        defaults={
            "schedule": {"name": "doubling"},
            "prior": {"name": "gaussian"},
            "process": {"name": "tied"},
            "objective": {"name": "walkback"},
        },"""


def rendered(names: Names) -> dict[str, str]:
    """Return the files of a new distribution: text by path.

    Raises:
        ConfigurationError: The class would have the same name as a class used by the template.
    """
    kind, package = names.kind, f"src/{names.package}"
    module = _template(f"kinds/{kind}.py.in")
    if re.search(rf"\b{names.cls}\b", module):
        raise ConfigurationError(
            f"{names.component!r} would define a class {names.cls}, which walkback has already: choose another name."
        )
    templates = {
        "pyproject.toml": _template("pyproject.toml.in"),
        "README.md": _template("README.md.in"),
        "LICENSE": _template("LICENSE.in"),
        ".gitignore": _template("gitignore.in"),
        ".github/workflows/test.yml": _template("workflow.yml.in"),
        f"{package}/__init__.py": _template("init.py.in"),
        f"{package}/py.typed": "",
        f"{package}/plugin.py": _template("plugin.py.in"),
        f"{package}/{kind}.py": module,
        "tests/test_conformance.py": _template("test_conformance.py.in"),
        f"tests/test_{kind}.py": _template(f"kinds/test_{kind}.py.in"),
    }
    words = _words(names)
    return {path: Template(text).substitute(words) for path, text in templates.items()}


def write_distribution(directory: Path, names: Names) -> tuple[Path, ...]:
    """Create `directory` with a new distribution; return its files, sorted.

    All files appear at once, or none does.

    Raises:
        ConfigurationError: The directory exists and is not empty, or the name is not allowed.
        WalkbackError: The files cannot be written.
    """
    texts = rendered(names)
    directory = directory.absolute()
    _require_empty(directory)
    with writing_to(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(directory.parent) as temporary:
            for path, text in texts.items():
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_text(text, "utf-8")
            # Also replaces an empty directory; fails if another process has filled it in the meantime.
            temporary.rename(directory)
    return tuple(sorted(directory / path for path in texts))


def _require_empty(directory: Path) -> None:
    """Raise ConfigurationError unless the path is free or an empty directory."""
    if directory.is_symlink() or directory == Path.cwd() or (directory.exists() and not directory.is_dir()):
        raise ConfigurationError(f"{directory} is not a new directory: choose another with --out.")
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigurationError(
            f"{directory} is not empty: choose another directory with --out, or remove it first."
        )


@contextlib.contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    """Create a directory inside `parent`, and remove it at the end unless it has been renamed."""
    directory = parent / TEMPORARY.replace("*", secrets.token_hex(8))
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _template(path: str) -> str:
    place = files("walkback.scaffold")
    for part in ("templates", *path.split("/")):
        place = place / part
    return place.read_text("utf-8")


def _words(names: Names) -> dict[str, str]:
    """Return the text of each placeholder."""
    kind, noun = names.kind, _NOUNS[names.kind]
    defaults = Template(_DEFAULTS).substitute(component=names.component) if kind == "operator" else ""
    return {
        "api": str(API_VERSION),
        "article": article(noun).capitalize(),
        "cls": names.cls,
        "component": names.component,
        "defaults": defaults,
        "distribution": names.distribution,
        "entry": names.component,
        "hook": hook_name(kind),
        "kind": kind,
        "module": kind,
        "noun": noun,
        "package": names.package,
        "summary": _SUMMARIES[kind],
        "usage": _USAGE[kind].format(name=names.component),
        "walkback_version": importlib.metadata.version("walkback"),
    }
