"""Exceptions that walkback raises, and the exit code of each on the command line.

Every message is one sentence in the user's terms: what happened, what was expected, and what to do. Names from files in
it are not trusted, so it is escaped, bounded and on one line.
"""

from __future__ import annotations

from typing import Self

_MOST_CHARACTERS = 2000


class WalkbackError(Exception):
    """Base class: an operation failed while it was running (exit code 1)."""

    exit_code: int = 1

    suspects: tuple[object, ...] = ()
    """Parts that this may be the fault of: if one of them is a plugin's, the command line blames the plugin."""

    def suspecting(self, *parts: object) -> Self:
        """The same error, with parts that it may be the fault of."""
        self.suspects = parts
        return self

    def __str__(self) -> str:
        return in_one_line(super().__str__())


class ConfigurationError(WalkbackError):
    """The request is invalid; raised before any work starts (exit code 2)."""

    exit_code = 2


class DataError(ConfigurationError):
    """A dataset is missing, unreachable, empty or corrupt (exit code 2)."""


class CheckpointError(ConfigurationError):
    """A file is not a usable checkpoint (exit code 2)."""


class PluginError(WalkbackError):
    """A plugin cannot be imported or violates its interface (exit code 4)."""

    exit_code = 4


class ConstructionError(PluginError):
    """The constructor of a component raised an unexpected exception (exit code 4)."""


def escaped(text: str, keep: str = "") -> str:
    r"""Text with `\uXXXX` for every character that is not printable: control, bidirectional and invisible characters.

    JSON and TOML read the escapes in a string as the characters themselves.

    Args:
        text: Text of unknown origin.
        keep: Characters to leave as they are, such as line breaks.

    >>> escaped("\x1b[31mred")
    '\\u001b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def in_one_line(text: str, most: int = _MOST_CHARACTERS) -> str:
    r"""Text as one line of at most `most` characters, escaped; a longer one loses its middle.

    >>> in_one_line("a\nb"), in_one_line("x" * 9, most=5)
    ('a\\nb', 'xxx…x')
    """
    return shortened(escaped(shortened(text, most)), most)


def shortened(text: str, most: int) -> str:
    """Text without its middle if it has more than `most` characters: both its beginning and its end matter."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}…{text[len(text) - end :]}"


def _escape(character: str) -> str:
    if character in "\n\r\t":
        return repr(character)[1:-1]
    code = ord(character)
    return f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"
