"""The options of a component in words: type, default, and what its docstring says of each.

    sigma   number > 0   0.03   σ, standard deviation of the noise at T = 1

The result is what `walkback plugins show` prints.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_json

from walkback.configuration.schema import component_options

REQUIRED = "required"
"""What stands in the place of a default where there is none."""

_TYPES = {
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "none",
    "array": "list",
    "object": "table",
}

_BOUNDS = {
    "exclusiveMinimum": "> {}",
    "minimum": "≥ {}",
    "exclusiveMaximum": "< {}",
    "maximum": "≤ {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "multipleOf": "a multiple of {}",
    "pattern": "like {}",
}

_ENTRY = re.compile(r"\*{0,2}(\w+)(?:\s*\(.*?\))?:\s*(.*)")


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword-only argument of a component's `__init__`.

    Attributes:
        name: As users type it.
        type: What values it takes, in words.
        default: The default as TOML writes it, "none", or `REQUIRED`.
        help: One line; empty where the docstring says nothing.
    """

    name: str
    type: str
    default: str
    help: str


def options_of(cls: type) -> tuple[Option, ...]:
    """The options of a component class, in the order of its `__init__`.

    Raises:
        PluginError: The annotations cannot be read.
    """
    model = component_options(cls)
    schema = model.model_json_schema()
    properties, definitions = schema.get("properties", {}), schema.get("$defs", {})
    said = documented(cls)
    return tuple(
        Option(
            name,
            describe(properties.get(name, {}), definitions),
            _default(field),
            field.description or said.get(name, ""),
        )
        for name, field in model.model_fields.items()
    )


def documented(cls: type) -> dict[str, str]:
    """What the `Args:` sections of a class and of its `__init__` say, each argument in one line.

    >>> class Example:
    ...     '''Does nothing.
    ...
    ...     Args:
    ...         width: Units per layer,
    ...             in all layers.
    ...     '''
    >>> documented(Example)
    {'width': 'Units per layer, in all layers'}
    """
    found: dict[str, str] = {}
    for owner in (cls.__init__, cls):  # type: ignore[misc]
        found |= _arguments(inspect.cleandoc(owner.__doc__ or ""))
    return found


def describe(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> str:
    """A JSON schema in words.

    >>> describe({"type": "integer", "exclusiveMinimum": 0})
    'integer > 0'
    >>> describe({"anyOf": [{"items": {"type": "number"}, "type": "array"}, {"type": "null"}]})
    'list of number, or none'
    >>> describe({"enum": ["mix", "preconditioned"]})
    '"mix" or "preconditioned"'
    """
    definitions = definitions or {}
    if "$ref" in schema:
        return describe(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return ", or ".join(dict.fromkeys(describe(branch, definitions) for branch in schema[union]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(to_json(value).decode() for value in values)
    kind = _TYPES.get(schema.get("type", ""), "anything")
    if schema.get("format") == "path":
        kind = "path"
    if "prefixItems" in schema:
        return "list of " + ", ".join(describe(item, definitions) for item in schema["prefixItems"])
    if schema.get("items"):
        return f"list of {describe(schema['items'], definitions)}"
    bounds = [text.format(_number(schema[name])) for name, text in _BOUNDS.items() if name in schema]
    return " ".join([kind, " and ".join(bounds)]).rstrip()


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    return "none" if value is None else to_json(value, fallback=str).decode()


def _arguments(docstring: str) -> dict[str, str]:
    """The entries of the `Args:` section of a cleaned docstring."""
    lines = docstring.splitlines()
    if "Args:" not in lines:
        return {}
    found: dict[str, str] = {}
    name, indent = "", 0
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line[0].isspace():
            break  # the next section
        text, depth = line.strip(), len(line) - len(line.lstrip())
        entry = _ENTRY.fullmatch(text)
        if entry and (not name or depth <= indent):
            name, indent = entry[1], depth
            found[name] = entry[2]
        elif name and text:
            found[name] = f"{found[name]} {text}".strip()
    return {name: text.rstrip(".") for name, text in found.items()}
