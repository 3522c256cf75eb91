"""The interface of requests.

request ──check──► checked job ──run──► result
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias, TypeVar

from walkback.configuration.ranges import LARGEST_COUNT, LARGEST_SEED
from walkback.errors import ConfigurationError
from walkback.extensions.attribution import naming_plugins
from walkback.extensions.registry import Registry
from walkback.support.interrupts import Interrupted, Stopped
from walkback.support.watch import Watch

Result = TypeVar("Result", covariant=True)
Value = TypeVar("Value")

Say: TypeAlias = Callable[..., str]
"""Spells an option, with or without a value, as the user would write it: `keywords` or `flags`."""


class Checked(Protocol[Result]):
    """A checked request with everything that it needs loaded."""

    def run(self, watch: Watch) -> Result:
        """Do the work and return the result."""


class Job(Protocol[Result]):
    """A request."""

    def check(self, registry: Registry, watch: Watch) -> Checked[Result]:
        """Check the request before any work: load models and prepare data as needed, but write nothing.

        Raises:
            ConfigurationError: The request is invalid.
        """


def carry_out(job: Job[Result], registry: Registry, watch: Watch) -> Result:
    """Check a request, do the work, and return the result.

    Raises:
        ConfigurationError: The request is invalid.
        PluginError: A third-party plugin failed.
    """
    with naming_plugins(registry):
        return job.check(registry, watch).run(watch)


_NOTHING = object()
_PYTHON = {"set": "settings"}
_FLAGS = {"start": "from"}


def keywords(name: str, value: object = _NOTHING) -> str:
    """Spell an option as a Python keyword.

    >>> keywords("num"), keywords("num", 0), keywords("split", "tset")
    ('num', 'num = 0', "split = 'tset'")
    """
    spelled = _PYTHON.get(name, name)
    return spelled if value is _NOTHING else f"{spelled} = {value!r}"


def flags(name: str, value: object = _NOTHING) -> str:
    """Spell an option as a command-line flag.

    >>> flags("num"), flags("num", 0), flags("classifier", True), flags("anneal", False)
    ('--num', '--num 0', '--classifier', '--no-anneal')
    """
    spelled = _FLAGS.get(name, name).replace("_", "-")
    if isinstance(value, bool):
        return f"--{spelled}" if value else f"--no-{spelled}"
    return f"--{spelled}" if value is _NOTHING else f"--{spelled} {value}"


def at_least(smallest: int, say: Say, **numbers: int | None) -> None:
    """Raise ConfigurationError for a number (other than None) below `smallest` or too large to be a count or a seed."""
    for name, number in numbers.items():
        if number is not None and number < smallest:
            raise ConfigurationError(f"Got {say(name, number)}, expected at least {smallest}.")
        largest = LARGEST_SEED if name == "seed" else LARGEST_COUNT
        if number is not None and number > largest:
            raise ConfigurationError(f"Got {say(name, number)}, expected at most {largest:,}.")


def one_of(choices: tuple[str, ...], say: Say, **words: str | None) -> None:
    """Raise ConfigurationError for a word (other than None) that is not among `choices`."""
    for name, word in words.items():
        if word is not None and word not in choices:
            raise ConfigurationError(f"Got {say(name, word)}, expected one of {', '.join(choices)}.")


def renamed(
    warn: Callable[[str], object], say: Say, old: str, value: Value | None, new: str, given: Value | None
) -> Value | None:
    """Return the value of a renamed option; warns if it is given under its old name. None if not given.

    Raises:
        ConfigurationError: Both names are given.
    """
    if value is None:
        return given
    if given is not None:
        raise ConfigurationError(f"{say(old)} is the old name of {say(new)}: use {say(new)} only.")
    warn(f"{say(old)} has been renamed to {say(new)} and will be removed.")
    return value


@contextmanager
def resumable(watch: Watch, what: str) -> Iterator[None]:
    """Say that the same command resumes `what` ("the sweep") if a signal stops the work in the block."""
    words = f"the same command resumes {what}"
    try:
        yield
    except Interrupted:
        watch.note(words)
        raise
    except Stopped as stopped:
        stopped.add_note(words)
        raise
