"""What all requests have in common.

request ──check──► checked job ──run──► result
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

from walkback.configuration.ranges import LARGEST_COUNT, LARGEST_SEED
from walkback.errors import ConfigurationError
from walkback.extensions.attribution import naming_plugins
from walkback.extensions.registry import Registry
from walkback.support.watch import Watch

Result = TypeVar("Result", covariant=True)
Value = TypeVar("Value")

Say: TypeAlias = Callable[..., str]
"""Names an option, with or without its value, as the one who asked would write it: `keywords`, or `flags`."""


class Checked(Protocol[Result]):
    """A request that nothing speaks against, with all that it needs at hand."""

    def run(self, watch: Watch) -> Result:
        """Do the work."""


class Job(Protocol[Result]):
    """A request."""

    def check(self, registry: Registry, watch: Watch) -> Checked[Result]:
        """Refuse what can be refused; models are loaded and data prepared for it, nothing is written.

        Raises:
            ConfigurationError: The request is wrong.
        """


def carry_out(job: Job[Result], registry: Registry, watch: Watch) -> Result:
    """Check a request, then do the work.

    Raises:
        ConfigurationError: The request is wrong.
        PluginError: A third-party plugin has failed.
    """
    with naming_plugins(registry):
        return job.check(registry, watch).run(watch)


_NOTHING = object()
_PYTHON = {"set": "settings"}
_FLAGS = {"start": "from"}


def keywords(name: str, value: object = _NOTHING) -> str:
    """An option as Python has it.

    >>> keywords("num"), keywords("num", 0), keywords("split", "tset")
    ('num', 'num = 0', "split = 'tset'")
    """
    spelled = _PYTHON.get(name, name)
    return spelled if value is _NOTHING else f"{spelled} = {value!r}"


def flags(name: str, value: object = _NOTHING) -> str:
    """An option as the command line has it.

    >>> flags("num"), flags("num", 0), flags("classifier", True), flags("anneal", False)
    ('--num', '--num 0', '--classifier', '--no-anneal')
    """
    spelled = _FLAGS.get(name, name).replace("_", "-")
    if isinstance(value, bool):
        return f"--{spelled}" if value else f"--no-{spelled}"
    return f"--{spelled}" if value is _NOTHING else f"--{spelled} {value}"


def at_least(smallest: int, say: Say, **numbers: int | None) -> None:
    """Raise ConfigurationError for a number, not None, that is below `smallest`, or no size of anything."""
    for name, number in numbers.items():
        if number is not None and number < smallest:
            raise ConfigurationError(f"Got {say(name, number)}, expected at least {smallest}.")
        largest = LARGEST_SEED if name == "seed" else LARGEST_COUNT
        if number is not None and number > largest:
            raise ConfigurationError(f"Got {say(name, number)}, expected at most {largest:,}.")


def one_of(choices: tuple[str, ...], say: Say, **words: str | None) -> None:
    """Raise ConfigurationError for a word, not None, that is none of `choices`."""
    for name, word in words.items():
        if word is not None and word not in choices:
            raise ConfigurationError(f"Got {say(name, word)}, expected one of {', '.join(choices)}.")


def renamed(
    warn: Callable[[str], object], say: Say, old: str, value: Value | None, new: str, given: Value | None
) -> Value | None:
    """Return the value of an option that may be given under its old name, with a warning; None if not given.

    Raises:
        ConfigurationError: Both are given.
    """
    if value is None:
        return given
    if given is not None:
        raise ConfigurationError(f"{say(old)} is the old name of {say(new)}: give {say(new)} alone.")
    warn(f"{say(old)} has been renamed to {say(new)} and will be removed.")
    return value
