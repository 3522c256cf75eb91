"""The shape of the code: imports point one way, plugins stay outside, files and functions stay short."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import walkback
from walkback.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
CORE, PLUGINS = ROOT / "src" / "walkback", ROOT / "plugins"

HEAVY = {"torch", "datasets", "numpy", "sklearn", "PIL", "pyarrow", "pydantic", "safetensors"}
"""What the program must not import before a command that needs it is called."""

MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 70

MAX_PARAMETERS = 10

MAX_TOP_FILES, MAX_TOP_LINES = 20, 2000
"""Of the top of the core, which is read in one sitting."""

UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Modules that run code found in files."""

FILES = sorted([*CORE.rglob("*.py"), *PLUGINS.rglob("*.py")])
PACKAGES = sorted(path for path in PLUGINS.iterdir() if path.is_dir() and path.name != "__pycache__")


def name_of(path: Path) -> str:
    """A file's module, dotted, from the top."""
    top = CORE.parent if path.is_relative_to(CORE) else PLUGINS
    parts = path.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Modules, or names of modules, that the statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """The module of ours that an imported name is, or is in; "" where it is somebody else's."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def loaded_with(module: str, seen: set[str]) -> set[str]:
    """Our modules, and the first names of others, that importing a module loads."""
    seen.add(module)
    for name in imported(at_import(tree_of(MODULES[module]))):
        ours = module_of(name)
        if ours not in MODULES:
            seen.add(name.partition(".")[0])
        elif ours not in seen:
            loaded_with(ours, seen)
    return seen


# --- directions


def test_imports_point_down() -> None:
    # The contracts are in pyproject.toml; imports inside functions count.
    check = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_importing_walkback_alone_imports_nothing() -> None:
    # The package names everything from above, and imports it when somebody asks for it.
    assert loaded_with("walkback", set()) == {"walkback", "__future__", "typing"}


def test_the_core_never_names_a_plugin() -> None:
    names = {package.name for package in PACKAGES}
    for path in CORE.rglob("*.py"):
        words = {name.partition(".")[0] for name in imported(ast.walk(tree_of(path)))}
        texts = {
            node.value.partition(".")[0].partition(":")[0]
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not (words | texts) & names, path


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=name_of)
def test_plugins_use_only_public_names_of_the_core(path: Path) -> None:
    names = [name for name in imported(ast.walk(tree_of(path))) if name.startswith("walkback.")]
    assert [name for name in names if any(part.startswith("_") for part in name.split("."))] == []
    aliases = {name.rpartition(".")[2] for name in names}
    private = [
        ast.unparse(node)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if isinstance(node.value, ast.Name) and node.value.id in aliases
    ]
    assert private == []


@pytest.mark.parametrize(
    "module", ["walkback", *(name for name in MODULES if name.startswith("walkback.cli"))]
)
def test_listing_commands_loads_nothing_heavy(module: str) -> None:
    assert loaded_with(module, set()) & HEAVY == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_listing_plugins_loads_nothing_heavy(package: Path) -> None:
    assert loaded_with(f"{package.name}.plugin", set()) & HEAVY == set()


def test_the_walk_of_imports_finds_what_it_should() -> None:
    assert "torch" in loaded_with("walkback.state", set())
    assert "pydantic" in loaded_with("walkback.configuration.config", set())
    assert module_of("walkback.errors.DataError") == "walkback.errors"
    assert module_of("torch.nn.Module") == ""


# --- safety and size


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_runs_code_found_in_files(path: Path) -> None:
    assert {name.partition(".")[0] for name in imported(ast.walk(tree_of(path)))} & UNSAFE == set()
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    for call in calls:
        name = ast.unparse(call.func)
        assert name not in ("torch.load", "torch.save", "eval", "exec")
        if name in ("np.load", "numpy.load"):
            assert any(
                word.arg == "allow_pickle" and ast.unparse(word.value) == "False" for word in call.keywords
            )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # The signature of a command, or of its twin in Python, is a table of options that is read by itself.
            start = node.body[0] if path.parent.name in ("cli", "api") else node
            length = (node.end_lineno or 0) - start.lineno + 1
            assert length <= MAX_FUNCTION_LINES, node.name


def _long_signatures(path: Path) -> list[str]:
    """Functions with more parameters than `MAX_PARAMETERS`, apart from `self`."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len([name for name in names if name not in ("self", "cls")]) > MAX_PARAMETERS:
                found.append(node.name)
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_have_few_parameters(path: Path) -> None:
    """All but commands, the functions of `import walkback` and the Gaussian operator, whose parameters users type."""
    long = _long_signatures(path)
    if path.is_relative_to(CORE / "api"):
        assert [name for name in long if name not in walkback.__all__] == []
    elif path.is_relative_to(CORE / "cli"):
        assert [name for name in long if name != path.stem] == []
        if long:
            assert f"walkback.cli.{path.stem}:{path.stem}" in {command.target for command in COMMANDS}
    elif path.name == "gaussian.py":
        assert len(long) <= 1
    else:
        assert long == []


def test_the_top_of_the_core_is_short() -> None:
    top = list(CORE.glob("*.py"))
    assert len(top) <= MAX_TOP_FILES
    assert sum(len(path.read_text("utf-8").splitlines()) for path in top) <= MAX_TOP_LINES


def test_no_concrete_method_is_overridden() -> None:
    found = [
        f"{cls.__module__}.{cls.__qualname__}.{name}, of {base.__qualname__}"
        for cls in classes()
        for name, member in vars(cls).items()
        if callable(member) or isinstance(member, property | classmethod | staticmethod)
        if not (name.startswith("__") and name.endswith("__"))
        for base in cls.__mro__[1:]
        if base.__module__ in MODULES
        if name in vars(base) and not getattr(vars(base)[name], "__isabstractmethod__", False)
    ]
    assert found == []


def classes() -> Iterator[type]:
    """Every class of the core and of the plugins."""
    for name in MODULES:
        if name != "walkback.__main__":
            for found in vars(importlib.import_module(name)).values():
                if isinstance(found, type) and found.__module__ == name:
                    yield found


# --- plugins


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_plugin_is_typed_and_has_an_entry_point(package: Path) -> None:
    assert (package / "__init__.py").is_file()
    assert (package / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    targets = project["entry-points"]["walkback"].values()
    assert [target for target in targets if target.partition(".")[0] == package.name] == [
        f"{package.name}.plugin"
    ]


def test_every_entry_point_has_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert [target for target in project["entry-points"]["walkback"].values() if target not in MODULES] == []
