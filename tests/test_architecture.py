"""The shape of the code: imports point one way, plugins stay outside, files and functions stay short."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE, PLUGINS = ROOT / "src" / "walkback", ROOT / "plugins"

LAYERS: Mapping[str, tuple[str, ...]] = {
    "words": (
        "errors",
        "optional",
        "vocabulary",
        "text",
        "markup",
        "component",
        "hookspecs",
        "seeding",
        "memory",
    ),
    "mathematics": (
        *("state", "schedules", "kernels", "operators", "priors", "processes", "walk", "model"),
        *("objectives", "paths", "sampling", "readout", "inpainting", "discrepancy", "work"),
    ),
    "data": ("data", "grey", "evaluation"),
    "records": ("report", "estimates", "baselines", "likelihood"),
    "storage": (
        *("storage", "storage.files", "storage.tensorheader", "storage.tensorfile", "storage.description"),
        *("storage.checkpoint", "storage.store", "storage.rundir", "metrics"),
        "storage.ledger",
    ),
    "measurement": ("diagnostics", "traces"),
    "quality": (
        "quality",
        *(
            f"quality.{name}"
            for name in ("jackknife", "wasserstein", "coverage", "features", "frechet", "figures")
        ),
    ),
    "extensions": ("extensions", "extensions.loader", "extensions.registered", "extensions.registry"),
    "configuration": (
        *("configuration", "configuration.settings", "configuration.overrides", "configuration.schema"),
        *(
            "configuration.options",
            "configuration.config",
            "configuration.recipes",
            "configuration.layering",
            "configuration.resuming",
        ),
    ),
    "pictures": (
        "pictures",
        *(
            f"pictures.{name}"
            for name in ("images", "starts", "archives", "gif", "sinks", "frames", "inpainted")
        ),
        *(f"pictures.{name}" for name in ("field", "walks", "figures", "plots")),
    ),
    "engine": (
        *(
            "engine",
            "engine.reporting",
            "engine.interrupts",
            "engine.launch",
            "engine.devices",
            "engine.timing",
        ),
        *(
            "engine.distributed",
            "engine.batches",
            "engine.optimization",
            "engine.finite",
            "engine.compiling",
            "engine.own_chains",
            "engine.stopping",
        ),
        *("engine.updates", "engine.training"),
        *("engine.assembly", "engine.held_out", "engine.preparation", "engine.run_pictures", "engine.runner"),
        *("engine.evaluating", "engine.likelihood_figures", "engine.comparing"),
        *("engine.protocols", "engine.measuring", "engine.diagnosing"),
        *("engine.racing", "engine.benchmarking", "engine.benchmark_figures"),
    ),
    "testing": (
        *("testing.cases", "testing.laws", "testing.probes", "testing.kernels", "testing.reference"),
        *("testing.operators", "testing.schedules", "testing.priors", "testing.processes"),
        *("testing.objectives", "testing.datasets", "testing.diagnostics", "testing.loggers"),
        *("testing.suites", "testing"),
    ),
    "scaffold": ("scaffold", "scaffold.names", "scaffold.files"),
    "api": (
        *("api", "api.inputs", "api.tensors", "api.progress", "api.records", "api.models"),
        *("api.training", "api.measuring", "api.sampling"),
    ),
    "command line": (
        *("cli", "cli.console", "cli.common", "cli.choices", "cli.progress", "cli.reports"),
        *("cli.bench", "cli.evaluate", "cli.diagnose"),
        *("cli.plugins_new", "cli.plugins_check", "cli.plugins_show", "cli.plugins"),
        *("cli.data", "cli.info", "cli.inpaint", "cli.recipes", "cli.run", "cli.sample"),
        *("cli.app", "cli.main", "__main__"),
    ),
}
"""The core from the bottom to the top: a module imports only what stands before it."""

ORDER = ("", *(module for layer in LAYERS.values() for module in layer))

HEAVY = {"torch", "datasets", "numpy", "sklearn", "PIL", "pyarrow", "pydantic", "safetensors"}
"""What the program must not import before a command that needs it is called."""

MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 70

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


def test_every_module_of_the_core_has_one_place() -> None:
    modules = {
        name.removeprefix("walkback").removeprefix(".") for name in MODULES if name.startswith("walkback.")
    }
    assert sorted(ORDER[1:]) == sorted(modules)


@pytest.mark.parametrize("path", sorted({*CORE.rglob("*.py")} - {CORE / "__init__.py"}), ids=name_of)
def test_imports_of_the_core_point_down(path: Path) -> None:
    place = ORDER.index(name_of(path).removeprefix("walkback").removeprefix("."))
    ours = {module_of(name) for name in imported(ast.walk(tree_of(path)))} & MODULES.keys()
    above = [name for name in ours if ORDER.index(name.removeprefix("walkback").removeprefix(".")) >= place]
    assert above == []


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
    assert [name for name in names if name.startswith("walkback.cli")] == []
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
            # From the first statement on: the signature of a command is a table of its options.
            length = (node.end_lineno or 0) - node.body[0].lineno + 1
            assert length <= MAX_FUNCTION_LINES, node.name


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
