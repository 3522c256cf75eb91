"""Errors at work: which third-party component they come from, so that the message says whom to write to."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from walkback.component import Component, spoken
from walkback.errors import PluginError, WalkbackError
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.support.interrupts import Interrupted
from walkback.support.text import one_line


@contextmanager
def blaming(registry: Registry) -> Iterator[None]:
    """Name the third-party component behind an unexpected exception of the block.

    Its code may have raised it, or may have handed on what the core then fails at, such as a tensor of another shape.

    Raises:
        PluginError: A component of a third party raised the exception, or is at work where the core raised it.
    """
    try:
        yield
    except (WalkbackError, Interrupted, KeyboardInterrupt, GeneratorExit, BrokenPipeError):
        raise
    except BaseException as error:  # third-party code may raise SystemExit, or a class of its own
        used = registry.third_parties
        raised = _raised_by(used, error)
        if raised is not None:
            raise PluginError(f"{_named(raised)} failed: {one_line(error)}.") from error
        if used:
            names = " and ".join(_named(registered) for registered in used)
            verb = "is" if len(used) == 1 else "are"
            raise PluginError(
                f"{one_line(error)}: {names} {verb} in use here and probably at fault; "
                f"check {'it' if len(used) == 1 else 'them'} with walkback plugins check {used[0].reference}."
            ) from error
        raise


def _raised_by(used: tuple[Registered[Component], ...], error: BaseException) -> Registered[Component] | None:
    """The component whose code is innermost in the traceback; None if there is only code of others."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    for module in reversed(modules):
        for registered in used:
            if module == _module(registered):
                return registered
        for registered in used:  # another module of the same package
            if module.partition(".")[0] == _module(registered).partition(".")[0]:
                return registered
    return None


def _module(registered: Registered[Component]) -> str:
    return registered.spec.target.partition(":")[0]


def _named(registered: Registered[Any]) -> str:
    kind, name = spoken(registered.kind), registered.spec.name
    return f"The {kind} {name!r} of {registered.distribution} {registered.version}"
