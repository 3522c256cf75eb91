"""Descriptions of the options of a component: type, default, and help from its docstring.

    sigma              number > 0         0.03     σ, standard deviation of the noise at T = 1
    network            "mlp" or "unet"    "unet"   What learns
    network.channels   list of integer    [64]     Feature maps at each resolution

The result is what `walkback plugins show` prints.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json, to_jsonable_python

from walkback.configuration.schema import Nested, component_options, nested_in, option_owners, record_fields
from walkback.extensions.registry import Registry
from walkback.support.text import spoken

REQUIRED = "required"
"""Shown if an option has no default."""

_MISSING = object()

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
    """One option of a component, or of a record or component nested in it.

    Attributes:
        name: The name that users type, dotted if the option is nested.
        type: Description of its values.
        default: The default in TOML, "none", or `REQUIRED`.
        help: One line; empty if the docstring does not describe it.
    """

    name: str
    type: str
    default: str
    help: str


def options_of(
    cls: type, preset: Mapping[str, Any] | None = None, registry: Registry | None = None
) -> tuple[Option, ...]:
    """Return the options of a component class in the order of its `__init__`, each followed by nested options.

    Args:
        cls: The class.
        preset: Values set by the component, see `Component.preset`.
        registry: Resolves nested components; None omits their options.

    Raises:
        PluginError: The annotations cannot be read, or a nested component cannot be imported.
    """
    return _options_in(component_options(cls), documented(cls), preset or {}, registry)


def options_of_settings(model: type[BaseModel]) -> tuple[Option, ...]:
    """Return the options of a section of settings in order, each followed by nested options."""
    return _options_in(model, {}, {}, None)


def _options_in(
    model: type[BaseModel], said: Mapping[str, str], preset: Mapping[str, Any], registry: Registry | None
) -> tuple[Option, ...]:
    schema = model.model_json_schema()
    properties, definitions = schema.get("properties", {}), schema.get("$defs", {})
    found: list[Option] = []
    for name, field in model.model_fields.items():
        default: Any = None if field.is_required() else field.get_default(call_default_factory=True)
        value = preset.get(name, _MISSING if field.is_required() else default)
        help_text = field.description or said.get(name, "")
        nested = nested_in(field)
        if nested is not None:
            found += _component(
                name, nested, value, default is None and not field.is_required(), help_text, registry
            )
        else:
            found += _plain(name, field.annotation, properties.get(name, {}), definitions, value, help_text)
    return tuple(found)


def _plain(
    name: str,
    annotation: Any,
    schema: Mapping[str, Any],
    definitions: Mapping[str, Any],
    value: Any,
    help_text: str,
) -> Iterator[Option]:
    """Yield a plain option, or a record and its fields."""
    record = record_fields(annotation)
    if record is None:
        yield Option(name, describe(schema, definitions), _written(value), help_text)
        return
    yield Option(name, "table", "none" if value is None else "", help_text)
    inner = _properties(schema, definitions)
    values = {} if value is None or value is _MISSING else to_jsonable_python(value)
    said = documented(annotation) if isinstance(annotation, type) else {}
    for part, hint in record.items():
        own = inner.get(part, {})
        yield from _plain(
            f"{name}.{part}",
            hint,
            own,
            definitions,
            values.get(part, own.get("default", _MISSING)),
            own.get("description", "") or said.get(part, ""),
        )


def _component(
    name: str, nested: Nested, value: Any, optional: bool, help_text: str, registry: Registry | None
) -> Iterator[Option]:
    """Yield an option that is a component, and the options of its default component."""
    offers = () if registry is None else registry.components(nested.kind)
    names = " or ".join(offer.reference for offer in offers) or spoken(nested.kind)
    kind = f"list of {names}" if nested.many else f"{names}, or none" if optional else names
    table = {"name": value} if isinstance(value, str) else value if isinstance(value, Mapping) else {}
    chosen = table.get("name")
    yield Option(name, kind, _written(chosen if chosen else value), help_text)
    if registry is None or not chosen:
        return
    found = registry.find(nested.kind, str(chosen))
    inner = options_of(registry.load(found), {**found.spec.preset, **table}, registry)
    for option in inner:
        yield replace(option, name=f"{name}.{option.name}")


def documented(cls: type) -> dict[str, str]:
    """Return the descriptions in the `Args:` sections of a class and its `__init__`, one line per argument.

    Arguments that the class does not describe are taken from base classes that accept them.

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
    texts = [
        text for owner in option_owners(cls) for text in (owner.__doc__, vars(owner)["__init__"].__doc__)
    ]
    for text in (*reversed(texts), cls.__doc__):  # the class's own descriptions take precedence
        found |= _arguments(inspect.cleandoc(text or ""))
    return found


def describe(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> str:
    """Describe a JSON schema in words.

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


def _written(value: Any) -> str:
    if value is _MISSING:
        return REQUIRED
    return "none" if value is None else to_json(value, fallback=str).decode()


def _properties(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a record's schema, which may be part of a union with null."""
    for branch in (schema, *schema.get("anyOf", ()), *schema.get("allOf", ())):
        found = definitions.get(branch.get("$ref", "").rpartition("/")[2], branch)
        if "properties" in found:
            properties: Mapping[str, Any] = found["properties"]
            return properties
    return {}


def _arguments(docstring: str) -> dict[str, str]:
    """Return the entries of the `Args:` section of a cleaned docstring."""
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
