"""Options: arguments of a component's `__init__`, validated against their annotations.

    def __init__(self, space, network: Network, *, sigma: PositiveFloat = 0.03, mean: Literal["mix", "plain"] = "mix")

Keyword-only arguments are options, and so are other arguments that are components, such as `network`. A class that
takes `**keywords` passes them to its base class, and has the options of that class too.

An option is a plain value, a record (a dataclass or pydantic model: a table inside the section), or a component (a
table with a name, see `configuration.components`).

TOML, JSON and the command line carry the same plain values, so all are validated as strict JSON: a list is accepted for
a tuple and a string for a path, but not a string for a number, 1.0 for an integer or 1 for a boolean.
"""

from __future__ import annotations

import inspect
import types
import typing
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from walkback.component import INTERFACES, Kind
from walkback.configuration.ranges import require_in_range
from walkback.configuration.sentences import refuse_unknown, sentence
from walkback.errors import ConfigurationError, PluginError

Model = TypeVar("Model", bound=BaseModel)

_KIND_OF: Mapping[str, Kind] = {target: kind for kind, targets in INTERFACES.items() for target in targets}


@dataclass(frozen=True, slots=True)
class Nested:
    """An option that is a component.

    Attributes:
        kind: Kind of the component.
        many: Whether the option is a list of components.
    """

    kind: Kind
    many: bool = False


def component_options(cls: type) -> type[BaseModel]:
    """Return the options of a component class as a pydantic model; other positional arguments are no options.

    Raises:
        PluginError: The annotations cannot be read, or the name of an option is reserved.
    """
    try:
        return _options_model(cls)
    except Exception as error:
        raise PluginError(
            f"The options of {cls.__module__}.{cls.__qualname__} cannot be read: {error}."
        ) from error


def nested_in(field: FieldInfo) -> Nested | None:
    """Return the kind of component that an option is; None for plain values and records."""
    return next((note for note in field.metadata if isinstance(note, Nested)), None)


def record_fields(annotation: Any) -> Mapping[str, Any] | None:
    """Return the annotations of the fields of a record (dataclass or pydantic model, or None); None for other types."""
    annotation = _without_none(annotation)
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, BaseModel):
        return {name: field.annotation for name, field in annotation.model_fields.items()}
    if is_dataclass(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        return {entry.name: hints[entry.name] for entry in fields(annotation) if entry.init}
    return None


def merge(options: dict[str, Any], table: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Override options by the values of a table; tables of records are merged.

    Args:
        options: Options, modified in place.
        table: Plain values.
        known: Annotations by option.
    """
    for name, value in table.items():
        inner, below = record_fields(known.get(name)), options.get(name)
        if inner is not None and isinstance(value, Mapping) and isinstance(below, Mapping):
            together = dict(below)
            merge(together, value, inner)
            options[name] = together
        else:
            options[name] = value


def annotations_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the annotations of a model by option."""
    return {name: field.annotation for name, field in model.model_fields.items()}


def validate(section: str, cls: type, options: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Validate the options of a component without nested components, and fill in defaults.

    Args:
        section: The section of the configuration, for messages.
        cls: The component's class.
        options: Plain values by option.
        name: The component's name, for the message about an unknown option.

    Returns:
        All options, in the types of the annotations.

    Raises:
        ConfigurationError: An option is unknown, missing or ill-typed.
        PluginError: The annotations of the class cannot be read, or do not allow a default.
    """
    model = check(section, component_options(cls), options, name)
    return {name: getattr(model, name) for name in type(model).model_fields}


def check(
    section: str,
    model: type[Model],
    options: Mapping[str, Any],
    name: str = "",
    renamed: Mapping[str, str] | None = None,
) -> Model:
    """Validate options with a pydantic model.

    Args:
        section: The section of the configuration, for messages.
        model: Model of the options.
        options: Plain values by option.
        name: The component's name, for the message about an unknown option.
        renamed: New dotted paths of former options.

    Raises:
        ConfigurationError: An option is unknown, missing or ill-typed.
        PluginError: A default does not match its annotation, or cannot be written to a file.
    """
    known = annotations_of(model)
    _refuse_unknown(section, options, known, name, renamed or {})
    try:
        defaults = {
            option: to_jsonable_python(field.get_default(call_default_factory=True))
            for option, field in model.model_fields.items()
            if not field.is_required()
        }
        given = dict(defaults)
        merge(given, to_jsonable_python(dict(options)), known)
        checked = model.model_validate_json(to_json(given), strict=True)
        for option in given:
            require_in_range(f"{section}.{option}", getattr(checked, option))
        return checked  # noqa: TRY300
    except PydanticSerializationError as error:
        raise PluginError(f"Section [{section}] has a value that a file cannot hold: {error}.") from error
    except ValidationError as error:
        problem = sentence(section, error, known, record_fields)
        if error.errors()[0]["loc"][0] in defaults.keys() - options.keys():
            raise PluginError(f"The default of {problem}") from error
        raise ConfigurationError(problem) from error


def option_owners(cls: type) -> Iterator[type]:
    """Yield the classes whose `__init__` takes options of `cls`: itself, and those that receive its `**keywords`."""
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            yield owner
            if all(p.kind is not p.VAR_KEYWORD for p in _signature(owner)):
                return


def _signature(owner: type) -> Iterable[inspect.Parameter]:
    return inspect.signature(vars(owner)["__init__"]).parameters.values()


def _parameters(cls: type) -> Iterator[tuple[inspect.Parameter, Any]]:
    """Yield the parameters of all `option_owners` with their annotations; the first of equal names takes precedence."""
    for owner in option_owners(cls):
        hints = typing.get_type_hints(vars(owner)["__init__"], include_extras=True)
        for parameter in _signature(owner):
            yield parameter, hints.get(parameter.name, Any)


def _options_model(cls: type) -> type[BaseModel]:
    options: dict[str, Any] = {}
    for parameter, hint in _parameters(cls):
        nested = _nested(hint)
        if parameter.name in options or (parameter.kind is not parameter.KEYWORD_ONLY and nested is None):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        if nested is not None:
            if default not in (..., None, ()):
                raise PluginError(
                    f"the option {parameter.name!r} is a component, whose default can be None only: propose one in "
                    "`Component.preset`"
                )
            hint = Annotated[Any, nested]
        options[parameter.name] = (hint, default)
    if "name" in options:
        raise PluginError("an option cannot be called 'name', which is the component's")
    config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # an option may have the name of a method of BaseModel, such as `copy`
        return create_model(cls.__name__, __config__=config, **options)


def _nested(hint: Any) -> Nested | None:
    """Return the component that an annotation stands for: an interface, an interface or None, or a tuple of them."""
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        first, *rest = typing.get_args(hint) or (None,)
        inner = _nested(first) if rest == [...] else None
        return None if inner is None or inner.many else Nested(inner.kind, many=True)
    if not isinstance(hint, type):
        return None
    kind = _KIND_OF.get(f"{hint.__module__}:{hint.__qualname__}")
    return None if kind is None else Nested(kind)


def _without_none(hint: Any) -> Any:
    """Return X for `X`, `Annotated[X, …]` and `X | None`; other unions are returned unchanged."""
    if typing.get_origin(hint) is Annotated:
        return _without_none(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (Union, types.UnionType):
        others = [branch for branch in typing.get_args(hint) if branch is not types.NoneType]
        return _without_none(others[0]) if len(others) == 1 else hint
    return hint


def _refuse_unknown(
    section: str,
    options: Mapping[str, Any],
    known: Mapping[str, Any],
    component: str,
    renamed: Mapping[str, str],
) -> None:
    """Raise ConfigurationError for options that do not exist, including those inside records."""
    refuse_unknown(section, options, known, component, renamed)
    for name, value in options.items():
        inner = record_fields(known[name])
        if inner is not None and isinstance(value, Mapping):
            below = {
                old.removeprefix(f"{name}."): new
                for old, new in renamed.items()
                if old.startswith(f"{name}.")
            }
            _refuse_unknown(f"{section}.{name}", value, inner, component, below)
