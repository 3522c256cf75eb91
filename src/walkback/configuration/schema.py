"""Options: the keyword-only arguments of a component's `__init__`, checked against their annotations.

    def __init__(self, space, *, sigma: PositiveFloat = 0.03, mean: Literal["mix", "preconditioned"] = "mix")

TOML, JSON and the command line carry the same plain values, so all are checked as strict JSON: a list may be
a tuple and a string a path, but a string is no number, 1.0 no integer and 1 no boolean.
"""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from walkback.errors import ConfigurationError, PluginError
from walkback.support.text import nearest

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "missing": "more items",
}

_LENGTHS = {"too_short": ("min_length", "at least"), "too_long": ("max_length", "at most")}


def component_options(cls: type) -> type[BaseModel]:
    """The options of a component class as a pydantic model; positional arguments come from the engine.

    Raises:
        PluginError: The annotations cannot be read, or an option has a name that a configuration cannot hold.
    """
    try:
        return _options_model(cls)
    except Exception as error:
        raise PluginError(
            f"The options of {cls.__module__}.{cls.__qualname__} cannot be read: {error}."
        ) from error


def validate(section: str, cls: type, options: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Check the options of a component, and fill in the defaults of those that are not given.

    Args:
        section: The section of the configuration, for messages.
        cls: The component's class.
        options: Plain values by option.
        name: The component's name, which a message about an unknown option names.

    Returns:
        Every option, as the types of the annotations.

    Raises:
        ConfigurationError: An option is unknown, missing or ill-typed.
        PluginError: The class is at fault: its annotations, or a default that they do not allow.
    """
    model = check(section, component_options(cls), options, name)
    return {name: getattr(model, name) for name in type(model).model_fields}


def check(section: str, model: type[Model], options: Mapping[str, Any], name: str = "") -> Model:
    """Check options against a pydantic model; raises as `validate`."""
    _refuse_unknown(section, options, model.model_fields, name)
    fields = model.model_fields.items()
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in fields
        if not field.is_required()
    }
    try:
        return model.model_validate_json(to_json({**defaults, **options}), strict=True)
    except PydanticSerializationError as error:
        raise PluginError(f"Section [{section}] has a value that a file cannot hold: {error}.") from error
    except ValidationError as error:
        problem = _sentence(section, error)
        if error.errors()[0]["loc"][0] in defaults.keys() - options.keys():
            raise PluginError(f"The default of {problem}") from error
        raise ConfigurationError(problem) from error


def _options_model(cls: type) -> type[BaseModel]:
    initializer = cls.__init__  # type: ignore[misc]
    hints = typing.get_type_hints(initializer, include_extras=True)
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in inspect.signature(initializer).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    if "name" in fields:
        raise PluginError("an option cannot be called 'name', which is the component's")
    config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # an option may be called `copy`, as BaseModel's method is
        return create_model(cls.__name__, __config__=config, **fields)


def _refuse_unknown(section: str, options: Iterable[str], known: Iterable[str], component: str) -> None:
    more = f" (see walkback plugins show {component})" if component and known else ""
    for name in options:
        if name not in known:
            paths = [f"{section}.{option}" for option in known]
            listing = f"the options are: {', '.join(known)}" if paths else "there are no options"
            path = f"{section}.{name}"
            raise ConfigurationError(f"Unknown option {path!r}{nearest(path, paths)}; {listing}{more}.")


def _sentence(section: str, error: ValidationError) -> str:
    """What is wrong with the first option at fault; the branches of a union are joined by "or"."""
    problems = error.errors(include_url=False)
    first, others = problems[0], {problem["loc"][0] for problem in problems}
    where = _path(section, first)
    if first["type"] == "missing" and len(first["loc"]) == 1:
        sentence = f"{where} is missing: give it with --set {where}=VALUE"
    else:
        branches = [_complaint(problem) for problem in problems if _path(section, problem) == where]
        said = " or ".join(dict.fromkeys(branches)).replace(" or expected ", " or ")
        # A validator of a component may say itself what it got.
        got = "" if said.startswith("got ") else f"got {to_json(first['input']).decode():.80}, "
        sentence = f"{where}: {got}{said}"
    more = f" (and {len(others) - 1} more at fault)" if len(others) > 1 else ""
    return f"{sentence}{more}."


def _path(section: str, problem: ErrorDetails) -> str:
    """`section.option`, with the index of a list's item; what follows names branches of a union."""
    option, *rest = problem["loc"]
    index = f"[{rest[0]}]" if rest and isinstance(rest[0], int) and problem["type"] != "missing" else ""
    return f"{section}.{option}{index}"


def _complaint(problem: ErrorDetails) -> str:
    if problem["type"] in _EXPECTED:
        return f"expected {_EXPECTED[problem['type']]}"
    if problem["type"] == "string_pattern_mismatch":
        return f"expected a string like {problem['ctx']['pattern'].strip('^$')}"
    if problem["type"] in _LENGTHS:
        bound, words = _LENGTHS[problem["type"]]
        return f"expected {words} {problem['ctx'][bound]} items"
    message = (
        " ".join(problem["msg"].split())
        .removeprefix("Value error, ")
        .removeprefix("Assertion failed, ")
        .rstrip(". ")
    )
    if not message.startswith("Input should be "):
        return message[:1].lower() + message[1:]
    expected = message.removeprefix("Input should be ")
    return (
        f"expected a number {expected}"
        if expected.startswith(("greater", "less"))
        else f"expected {expected}"
    )
