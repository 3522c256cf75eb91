"""Exceptions that walkback raises, and the exit code of each on the command line.

Every message is one sentence in the user's terms: what happened, what was expected, and what to do.
"""

from __future__ import annotations


class WalkbackError(Exception):
    """Base class: an operation failed while it was running (exit code 1)."""

    exit_code: int = 1


class ConfigurationError(WalkbackError):
    """The request is invalid; raised before any work starts (exit code 2)."""

    exit_code = 2


class DataError(ConfigurationError):
    """A dataset is missing, unreachable, empty or corrupt (exit code 2)."""


class CheckpointError(ConfigurationError):
    """A file is not a usable checkpoint (exit code 2)."""


class PluginError(WalkbackError):
    """A plugin cannot be imported or violates its interface (exit code 4)."""

    exit_code = 4
