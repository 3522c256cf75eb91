"""What walkback raises, and the exit code each error becomes on the command line.

Every message is one sentence in the user's words: what was got, what was expected, what to do.
"""

from __future__ import annotations


class WalkbackError(Exception):
    """Something failed while working (exit code 1)."""

    exit_code: int = 1


class ConfigurationError(WalkbackError):
    """The request itself is wrong; raised before any work starts (exit code 2)."""

    exit_code = 2


class DataError(ConfigurationError):
    """A data set is missing, out of reach, empty or corrupt (exit code 2)."""


class CheckpointError(ConfigurationError):
    """A file is not a usable checkpoint (exit code 2)."""


class PluginError(WalkbackError):
    """A plugin is at fault: it cannot be imported, or broke its contract (exit code 4)."""

    exit_code = 4
