"""Libraries that only some figures need."""

from __future__ import annotations

import importlib
from types import ModuleType

from walkback.errors import ConfigurationError


class MissingLibraryError(ConfigurationError):
    """A library that only some figures need is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """An optional library, imported now.

    Args:
        module: For instance "pymbar".
        extra: The extra of walkback that brings it.

    Raises:
        MissingLibraryError: It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingLibraryError(
            f"Got no {module.partition('.')[0].replace('_', '-')}, which this needs ({error}): "
            f"pip install 'walkback[{extra}]'."
        ) from error
