"""TOML that is not trusted: checked against limits before and after it is parsed.

`tomllib` recurses into lists and tables, takes quadratic time for long dotted keys, and accepts integers of any size.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from walkback.errors import ConfigurationError, shortened
from walkback.support.text import one_line

_MOST_DEPTH = 32
"""Maximum nesting depth of lists and tables; a configuration needs about six."""

_LARGEST = 2**63
"""TOML guarantees integers of 64 bits."""

_KEY_PART = re.compile(r"""[\w"' \t-]*""")


class NotTomlError(ConfigurationError):
    """The text is not TOML. TOML that exceeds the limits raises ConfigurationError itself."""


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """Parse a TOML document.

    Args:
        text: The document.
        origin: Source of the document, the beginning of messages.

    Raises:
        NotTomlError: The text is not valid TOML.
        ConfigurationError: The document is nested too deeply, or contains an integer of more than 64 bits.
    """
    if _has_long_key(text):
        raise _too_deep(origin)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotTomlError(f"{origin} is not valid TOML: {one_line(error)}.") from error
    except RecursionError as error:
        raise _too_deep(origin) from error
    except ValueError as error:  # from `int`, which limits the number of digits
        raise ConfigurationError(
            f"{origin} has a number of thousands of digits, expected at most 64 bits."
        ) from error
    for path, depth, value in _values(document):
        if depth > _MOST_DEPTH:
            raise _too_deep(origin)
        if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise ConfigurationError(
                f"{origin} has {path} = {shortened(str(value), 40)}, expected an integer of at most 64 bits."
            )
    return document


def _too_deep(origin: str) -> ConfigurationError:
    return ConfigurationError(f"{origin} is nested more than {_MOST_DEPTH} levels deep.")


def _has_long_key(text: str) -> bool:
    """Return whether more than `_MOST_DEPTH` consecutive parts of the text could form a dotted key."""
    run = 0
    for part in text.split("."):
        run = run + 1 if _KEY_PART.fullmatch(part) else 0
        if run > _MOST_DEPTH:
            return True
    return False


def _values(document: dict[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """Yield every value with its key and depth; without recursion, which could overflow the stack."""
    left: list[tuple[str, int, Any]] = [("", 0, document)]
    while left:
        path, depth, value = left.pop()
        yield path, depth, value
        if depth > _MOST_DEPTH:
            continue
        if isinstance(value, dict):
            left += [(shortened(key, 60), depth + 1, item) for key, item in value.items()]
        elif isinstance(value, list):
            left += [(path, depth + 1, item) for item in value]
