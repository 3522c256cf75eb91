"""Optional libraries, imported on demand."""

from __future__ import annotations

import importlib
from types import ModuleType

from walkback.errors import ConfigurationError


class MissingLibraryError(ConfigurationError):
    """An optional library is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: Name of the module, for instance "pymbar".
        extra: The extra of walkback that installs it.

    Raises:
        MissingLibraryError: The library is not installed; the message names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingLibraryError(
            f"Got no {module.partition('.')[0].replace('_', '-')}, which this needs ({error}): "
            f"pip install 'walkback[{extra}]'."
        ) from error
