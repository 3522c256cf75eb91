"""HTML for notebooks: tables, pictures and collapsible sections.

All escaping happens in this module. Names, warnings and protocols come from files and plugins and are not trusted.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from walkback.errors import escaped, shortened

_MOST_CHARACTERS = 2000
"""Maximum length of the text of a cell, a heading or a sentence."""


def text(value: object) -> str:
    """Escape a value for use as text in an HTML document.

    >>> text("<b>1 & 2</b>")
    '&lt;b&gt;1 &amp; 2&lt;/b&gt;'
    """
    return escape(escaped(shortened(str(value), _MOST_CHARACTERS), keep="\n\t"))


def table(rows: Iterable[Sequence[object]], header: Sequence[object] = ()) -> str:
    """Format rows of values as a table.

    >>> table([("bound", "<1")])
    '<table><tr><td>bound</td><td>&lt;1</td></tr></table>'
    """
    top = _row("th", header) if header else ""
    return f"<table>{top}{''.join(_row('td', row) for row in rows)}</table>"


def heading(title: object) -> str:
    """Format a heading."""
    return f"<p><b>{text(title)}</b></p>"


def notes(sentences: Iterable[object]) -> str:
    """Format sentences as paragraphs."""
    return "".join(f"<p>{text(sentence)}</p>" for sentence in sentences)


def folded(title: object, content: str) -> str:
    """Wrap HTML in a section that expands when its title is clicked."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def picture(png: bytes, title: object) -> str:
    """Embed a PNG file as an inline image."""
    return f'<img alt="{text(title)}" src="data:image/png;base64,{b64encode(png).decode("ascii")}">'


def _row(cell: str, values: Sequence[object]) -> str:
    cells = "".join(f"<{cell}>{text(value)}</{cell}>" for value in values)
    return f"<tr>{cells}</tr>"
