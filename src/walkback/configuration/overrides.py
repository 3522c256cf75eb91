"""Parsing of settings: TOML documents, and `--set section.option=value`.

The path of an option may extend into tables, `operator.network.channels`. Names that contain dots are quoted, as in
TOML: `loggers."a.b".project`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import tomli_w

from walkback.configuration.documents import NotTomlError, parse_toml
from walkback.errors import ConfigurationError, shortened
from walkback.support.text import nearest

Tables: TypeAlias = dict[str, dict[str, Any]]
"""Plain values by section and option; a value may itself be a table."""

_STEP = re.compile(r'"([^"]+)"|([^."]+)')


def parse_value(text: str) -> Any:
    """Return the text as a TOML value if it is one, else unchanged.

    >>> parse_value("1e-3"), parse_value("[1, 2]"), parse_value("true"), parse_value("cuda:0")
    (0.001, [1, 2], True, 'cuda:0')

    Raises:
        ConfigurationError: The value is nested too deeply, or contains an integer of more than 64 bits.
    """
    try:
        # As TOML, so that numbers, lists and tables have the same meaning as in a recipe.
        document = parse_toml(f"value = {text}", f"The value {shortened(text, 40)!r}")
    except NotTomlError:
        return text
    # Text with a line break could define further keys: it is then not a single value.
    return document["value"] if document.keys() == {"value"} else text


def parse_overrides(assignments: Iterable[str], sections: Collection[str]) -> Tables:
    """Parse `section.option=value` assignments; the last one for an option wins.

    Raises:
        ConfigurationError: An assignment has another form, or its section does not exist.
    """
    tables: Tables = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        steps = _steps(path.strip())
        if not equals or len(steps) < 2:
            raise ConfigurationError(f"Got --set {assignment!r}, expected --set SECTION.OPTION=VALUE.")
        section, *options = steps
        _refuse_unknown_section(section, sections)
        assign(tables.setdefault(section, {}), options, parse_value(value.strip()))
    return tables


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Convert Python values to assignments `section.option=value` for `--set`.

    >>> assignments({"training.ema": 0.99, "operator.network.channels": (16, 32), "run.compile": False})
    ['training.ema=0.99', 'operator.network.channels=[16, 32]', 'run.compile=false']

    Raises:
        ConfigurationError: TOML cannot represent a value. It has text, numbers, booleans, and lists and tables of them.
    """
    return [f"{name}={_toml(name, value)}" for name, value in settings.items()]


def assign(table: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value in a table at a path, creating tables along the path.

    A component may be given by its name instead of a table; the name becomes a table when one of its options is set.
    Naming another component drops the options of the previous one.

    >>> table = {}
    >>> assign(table, ["network"], "unet")
    >>> assign(table, ["network", "channels"], [32, 96])
    >>> table
    {'network': {'name': 'unet', 'channels': [32, 96]}}
    """
    first, *rest = path
    below = table.get(first)
    if rest:
        inner = (
            dict(below) if isinstance(below, Mapping) else {"name": below} if isinstance(below, str) else {}
        )
        assign(inner, rest, value)
        table[first] = inner
    elif isinstance(below, Mapping) and isinstance(value, str):
        # Options of one component have no meaning for another, so a new name drops them.
        table[first] = {**below, "name": value} if below.get("name", value) == value else {"name": value}
    else:
        table[first] = value


def _steps(path: str) -> list[str]:
    """Split a dotted path into names; returns [] if it is malformed.

    >>> _steps("operator.network.channels"), _steps('loggers."a.b".project'), _steps("a..b")
    (['operator', 'network', 'channels'], ['loggers', 'a.b', 'project'], [])
    """
    steps = [quoted or bare for quoted, bare in _STEP.findall(path)]
    # Whatever the pattern skipped (empty names, stray quotes) is missing here.
    whole = ".".join(match[0] for match in _STEP.finditer(path))
    return steps if whole == path else []


def parse_tables(
    text: str, origin: str, sections: Collection[str], extra: Collection[str] = ()
) -> dict[str, Any]:
    """Parse a TOML document of sections.

    Args:
        text: The document.
        origin: Source of the document, for messages.
        sections: Allowed sections; each is a table.
        extra: Other allowed keys.

    Raises:
        ConfigurationError: The text is not TOML, or contains other entries.
    """
    document = parse_toml(text, origin)
    refuse_unknown_tables(document, origin, sections, extra)
    return document


def refuse_unknown_tables(
    document: Mapping[str, Any], origin: str, sections: Collection[str], extra: Collection[str] = ()
) -> None:
    """Raise ConfigurationError unless the document contains only tables for `sections` and `extra` keys."""
    for section, table in document.items():
        if section in extra:
            continue
        _refuse_unknown_section(section, sections, origin)
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{origin} has {section} = {table!r:.80}, expected a table [{section}].")


def _refuse_unknown_section(section: str, sections: Collection[str], origin: str = "") -> None:
    """Raise ConfigurationError for a section that does not exist, suggesting the nearest name."""
    if section not in sections:
        where = f" in {origin}" if origin else ""
        listing = ", ".join(sections)
        raise ConfigurationError(
            f"Unknown section {section!r}{where}{nearest(section, sections)}; there are: {listing}."
        )


def _toml(name: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(float(value) if isinstance(value, float) else int(value))
        case str() | os.PathLike():
            return tomli_w.dumps({"value": os.fspath(value)}).removeprefix("value = ").rstrip("\n")
        case Mapping():
            pairs = (f"{_toml(name, str(key))} = {_toml(name, item)}" for key, item in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case Sequence():
            return f"[{', '.join(_toml(name, item) for item in value)}]"
    raise ConfigurationError(
        f"Got a {type(value).__name__} for {name}, expected text, a number, true or false, or a list of them; "
        "leave out what is to keep its default."
    )
