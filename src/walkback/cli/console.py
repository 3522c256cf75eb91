"""Output of commands: results on stdout; errors, warnings and progress on stderr.

Rich honors NO_COLOR. Text from plugins, files and users is never interpreted as Rich markup: it passes through `plain`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from walkback.errors import escaped, in_one_line
from walkback.support.text import printable

if TYPE_CHECKING:
    from walkback.support.progress import ProgressBar


def plain(text: str, style: str = "") -> Text:
    """Return untrusted text for display, without markup and control characters."""
    return Text(printable(text), style)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """Return a table without a frame; all columns wrap except the first. Without names, there is no header.

    Each cell is one line; the middle of long cells is omitted.
    """
    heading = plain(title, "bold") if title else None
    grid = Table(
        title=heading,
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="dim",
        show_header=any(columns),
    )
    for index, column in enumerate(columns):
        grid.add_column(column, no_wrap=index == 0, overflow="fold", style="cyan" if index == 0 else "")
    for row in rows:
        grid.add_row(*(plain(in_one_line(cell)) for cell in row))
    return grid


@final
class Output:
    """The two streams of a command.

    Attributes:
        results: Rich console on stdout.
        messages: Rich console on stderr, also for progress bars.
    """

    def __init__(self) -> None:
        self.results = Console(highlight=False)
        self.messages = Console(stderr=True, highlight=False)

    def show(self, *renderables: RenderableType) -> None:
        """Print results for people on stdout, one below another."""
        for renderable in renderables:
            self.results.print(renderable)

    def write(self, text: str) -> None:
        """Write a result to stdout, keeping its lines; control characters are escaped as in TOML."""
        sys.stdout.write(escaped(text, keep="\n\t"))

    def emit_json(self, document: Any) -> None:
        """Write the JSON document of a `--json` command; NaN and infinities become null."""
        sys.stdout.write(json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")

    def note(self, text: str) -> None:
        """Print a message as one line on stderr."""
        self._say(plain(in_one_line(text)))

    def warn(self, text: str) -> None:
        """Print a warning as one line on stderr."""
        self._say(Text.assemble(("warning: ", "bold yellow"), plain(in_one_line(text))))

    def error(self, text: str) -> None:
        """Print an error as one line on stderr."""
        self._say(Text.assemble(("error: ", "bold red"), plain(in_one_line(text))))

    def progress(self, *, shown: bool = True) -> ProgressBar:
        """Return a bar on stderr, or occasional lines if that is not a terminal; only warnings if not `shown`."""
        from walkback.support.progress import ProgressBar

        return ProgressBar(self.messages, self.warn, shown=shown)

    def _say(self, text: Text) -> None:
        self.messages.print(text, soft_wrap=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
