"""Text for messages: the nearest name, an error in one line, text that is safe to print."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Sequence

from walkback.errors import WalkbackError, escaped, in_one_line, shortened

_MOST_CHARACTERS = 100_000
"""Maximum length of text that is shown in full; files may contain names of any length."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a clause that suggests the nearest of `names`; empty if none is near.

    >>> nearest("sgima", ["sigma", "levels"])
    " (did you mean 'sigma'?)"
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def spoken(kind: str) -> str:
    """Return a kind as it is written in a sentence.

    >>> spoken("temperature_law")
    'temperature law'
    """
    return kind.replace("_", " ")


def one_line(error: BaseException) -> str:
    r"""Return the message of an exception in at most 300 characters, without a final period.

    The message is preceded by the type of the exception, unless it is a WalkbackError.

    >>> one_line(ValueError("two\nlines."))
    'ValueError: two lines'
    """
    lines = [str(error)] if isinstance(error, WalkbackError) else traceback.format_exception_only(error)
    return " ".join(escaped(lines[-1], keep="\n\t").split())[:300].rstrip(". ")


def printable(text: str) -> str:
    r"""Escape characters of untrusted text that could control a terminal, but keep line breaks; see `escaped`.

    >>> printable("\x1b[31mred")
    '\\u001b[31mred'
    """
    return escaped(shortened(text, _MOST_CHARACTERS), keep="\n\t")


_MOST_ROWS, _WIDEST = 40, 100
"""Maximum number of lines of a record printed in Python, which should fit a screen, and of characters per cell."""


def columns(rows: Sequence[Sequence[str]], more: Sequence[str] = ()) -> str:
    """Format rows in columns, followed by further lines; safe to print, and truncated to the length of a screen.

    >>> print(columns([("bound", "1.2"), ("n", "3")], ["Few examples."]))
    bound  1.2
    n      3
    Few examples.
    """
    cells = [[in_one_line(cell, _WIDEST) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    lines += [in_one_line(line) for line in more]
    left_out = len(lines) - _MOST_ROWS
    return "\n".join(lines if left_out <= 0 else [*lines[:_MOST_ROWS], f"… and {left_out} more lines"])
