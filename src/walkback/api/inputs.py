"""What callers pass: plugins, settings, numbers, names or instances."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import tomli_w
from rich.console import Console

from walkback.errors import ConfigurationError
from walkback.extensions.loader import chosen
from walkback.extensions.registry import Registry
from walkback.support.progress import ProgressBar


def installed() -> Registry:
    """The installed plugins, those of `WALKBACK_PLUGINS` where it is set; broken ones are warned of."""
    registry = Registry.discover(chosen())
    for warning in registry.warnings():
        warnings.warn(warning, stacklevel=3)
    return registry


def progress_bar(shown: bool) -> ProgressBar:
    """A bar in terminals and notebooks if `shown`; silence elsewhere."""
    console = Console(stderr=True, highlight=False)
    return ProgressBar(console, partial(warnings.warn, stacklevel=2), shown=shown, lines=False)


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """`section.option=value`, as `--set` takes them, of Python values.

    >>> assignments({"training.ema": 0.99, "operator.network.channels": (16, 32), "run.compile": False})
    ['training.ema=0.99', 'operator.network.channels=[16, 32]', 'run.compile=false']

    Raises:
        ConfigurationError: A value is none that TOML has: text, numbers, booleans, lists and tables of them.
    """
    return [f"{name}={_toml(name, value)}" for name, value in settings.items()]


def split_choice(name: str, value: object, bases: tuple[type, ...]) -> tuple[str | None, Any]:
    """A component as (name, None) or (None, instance).

    Args:
        name: What it is, for messages.
        value: A name, an instance of one of `bases`, or None.
        bases: What instances derive from.

    Raises:
        ConfigurationError: It is neither.
    """
    if value is None or isinstance(value, str):
        return value, None
    if isinstance(value, bases):
        return None, value
    what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    expected = " or ".join(base.__name__ for base in bases)
    raise ConfigurationError(f"Got {what} as {name}, expected a name or an instance of {expected}.")


def at_least(smallest: int, **numbers: int | None) -> None:
    """Raise ConfigurationError for a number, not None, that is below `smallest`."""
    for name, number in numbers.items():
        if number is not None and number < smallest:
            raise ConfigurationError(f"Got {name} = {number}, expected at least {smallest}.")


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
