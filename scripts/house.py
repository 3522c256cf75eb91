"""How large and how simple the code is: `python scripts/house.py [PATH]`, for any checkout.

Counts `src/` and `plugins/`. A code line is one that is not blank, not a comment alone and not part of a docstring; a
docstring is any string that stands as a statement, and its blank lines count with it. A function's lines and parameters
are those of its definition: signature with `self`, docstring and nested functions, without decorators. Public names are
classes, functions and variables of a module's top level without a leading underscore.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

CORE = Path("src/walkback")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Counts:
    """What is counted of some files."""

    files: int = 0
    lines: int = 0
    code: int = 0
    docstrings: int = 0
    comments: int = 0
    names: int = 0
    function_lines: list[int] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Count one more file."""
        text = path.read_text("utf-8")
        tree = ast.parse(text, str(path))
        lines = text.splitlines()
        docstrings = {
            line
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node.value.value, str)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        other = [line.strip() for number, line in enumerate(lines, 1) if number not in docstrings]
        self.files += 1
        self.lines += len(lines)
        self.docstrings += len(docstrings)
        self.code += sum(bool(line) and not line.startswith("#") for line in other)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        self.comments += sum(token.type == tokenize.COMMENT for token in tokens)
        self.names += sum(not name.startswith("_") for name in _top_level_names(tree))
        for node in ast.walk(tree):
            if isinstance(node, Function):
                arguments = node.args
                self.function_lines.append((node.end_lineno or node.lineno) - node.lineno + 1)
                self.parameters.append(
                    len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
                )


def _top_level_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _quantile(values: Sequence[int], share: float) -> int:
    """The smallest value that more than `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def count(paths: Iterator[Path]) -> Counts:
    """The counts of some Python files together."""
    counts = Counts()
    for path in sorted(paths):
        counts.add(path)
    return counts


def table(root: Path) -> str:
    """The table in Markdown, one row for the checkout at `root`."""
    all_files = [*(root / "src").rglob("*.py"), *(root / "plugins").rglob("*.py")]
    everything = count(iter(all_files))
    top = count((root / CORE).glob("*.py"))
    ends = count(path for name in ("cli", "api") for path in (root / CORE / name).rglob("*.py"))
    functions, parameters = everything.function_lines, everything.parameters
    hundred = max(everything.code, 1) / 100
    cells = {
        "files": f"{everything.files}",
        "code lines": f"{everything.code:,}",
        "docstring / comment lines per 100 code": (
            f"{everything.docstrings / hundred:.0f} / {everything.comments / hundred:.1f}"
        ),
        "function lines, median / p95 / max": (
            f"{median(functions or [0]):.0f} / {_quantile(functions, 0.95)} / {max(functions, default=0)}"
        ),
        "parameters p95 / max": f"{_quantile(parameters, 0.95)} / {max(parameters, default=0)}",
        "public top-level names": f"{everything.names}",
        "top of the core, files / lines": f"{top.files} / {top.lines:,}",
        "cli + api, lines": f"{ends.lines:,}",
    }
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in (cells.keys(), ["---"] * len(cells), cells.values())
    )


def _subject(folder: Path) -> str:
    """What a folder says that it holds: the first line of its docstring, or of its plugin's."""
    for name in ("__init__.py", "plugin.py"):
        if (folder / name).is_file():
            docstring = ast.get_docstring(ast.parse((folder / name).read_text("utf-8")))
            if docstring:
                return docstring.splitlines()[0]
    return ""


def tree(root: Path) -> str:
    """Each folder with code: its files and lines (all of them, without those of folders inside), and its subject."""
    rows = []
    for start in (root / CORE, *sorted((root / "plugins").glob("*/"))):
        for folder in sorted({path.parent for path in start.rglob("*.py")}):
            here = count(folder.glob("*.py"))
            name = "  " * len(folder.relative_to(start).parts) + folder.name + "/"
            rows.append(f"{name:26} {here.files:3} {here.lines:6,}  {_subject(folder)}".rstrip())
    return "\n".join(rows)


def main() -> None:
    """Print the table, and the tree below it."""
    parser = argparse.ArgumentParser(description="Sizes of the code of a checkout.")
    parser.add_argument("path", nargs="?", type=Path, default=Path(__file__).parents[1])
    path: Path = parser.parse_args().path
    if not (path / CORE).is_dir():
        parser.error(f"{path} has no {CORE}: give the root of a checkout")
    print(table(path), tree(path), sep="\n\n")


if __name__ == "__main__":
    main()
