"""Error messages about options, in one sentence: dotted path, actual and expected value, nearest name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json

from walkback.errors import ConfigurationError
from walkback.support.text import nearest

_RecordFields: TypeAlias = Callable[[Any], Mapping[str, Any] | None]
"""Maps the annotation of a record to those of its fields, and any other annotation to None."""

_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "model_type": "a table",
    "missing": "more items",
}

_LENGTHS = {"too_short": ("min_length", "at least"), "too_long": ("max_length", "at most")}


def refuse_unknown(
    section: str,
    options: Iterable[str],
    known: Iterable[str],
    component: str = "",
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Raise ConfigurationError for an option that does not exist, suggesting the nearest or the new name.

    Args:
        section: Path of the options, for messages.
        options: Names of the given options.
        known: Names of existing options.
        component: Name of the component that the options belong to, if any.
        renamed: New paths of former options.
    """
    more = f" (see walkback plugins show {component})" if component and known else ""
    for name in options:
        if name not in known:
            path = f"{section}.{name}"
            if name in (renamed or {}):
                raise ConfigurationError(f"Unknown option {path!r}: it is {(renamed or {})[name]!r} now.")
            paths = [f"{section}.{option}" for option in known]
            listing = f"the options are: {', '.join(known)}" if paths else "there are no options"
            raise ConfigurationError(f"Unknown option {path!r}{nearest(path, paths)}; {listing}{more}.")


def sentence(
    section: str, error: ValidationError, known: Mapping[str, Any], record_fields: _RecordFields
) -> str:
    """Return a sentence about the first invalid option; the branches of a union are joined by "or".

    Args:
        section: Path of the options.
        error: The error of pydantic.
        known: Annotations by option.
        record_fields: Returns the fields of records.
    """
    problems = error.errors(include_url=False)
    paths = [_path(section, problem, known, record_fields) for problem in problems]
    first, where = problems[0], paths[0]
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        said = f"{where} is missing: give it with --set {where}=VALUE"
    else:
        branches = [
            _complaint(problem) for problem, path in zip(problems, paths, strict=True) if path == where
        ]
        expected = " or ".join(dict.fromkeys(branches)).replace(" or expected ", " or ")
        # The message of a component's own validator may already contain the value.
        got = "" if expected.startswith("got ") else f"got {to_json(first['input']).decode():.80}, "
        said = f"{where}: {got}{expected}"
    others = len({problem["loc"][0] for problem in problems}) - 1
    more = f" (and {others} more at fault)" if others else ""
    return f"{said}{more}."


def _path(section: str, problem: ErrorDetails, known: Mapping[str, Any], record_fields: _RecordFields) -> str:
    """Return the path of the invalid option, into records and lists; further steps of `loc` are branches of a union."""
    path, within = section, known
    for number, step in enumerate(problem["loc"]):
        if isinstance(step, int):
            is_item = problem["type"] != "missing" or number + 1 < len(problem["loc"])
            return f"{path}[{step}]" if is_item else path
        if step not in within:
            return path
        path, within = f"{path}.{step}", record_fields(within[step]) or {}
    return path


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
