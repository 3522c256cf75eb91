"""Whose fault an error is: that of the third-party plugin whose code raised it, or that gave what it is about.

    exception       → the innermost frame of its traceback in a module of a plugin; else the components in use
    WalkbackError   → the first of its suspects whose class is of a plugin (`WalkbackError.suspecting`)

Components of walkback's own distribution are never blamed: what fails there are the user's numbers, or a bug of
walkback.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from walkback.component import spoken
from walkback.errors import PluginError, WalkbackError
from walkback.extensions.loader import CORE_DISTRIBUTION, RECORDS, canonical
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.support.faults import is_not_of_code
from walkback.support.text import one_line


@contextmanager
def naming_plugins(registry: Registry) -> Iterator[None]:
    """Turn what third-party plugins raise in the block into an error that names the plugin.

    Errors of walkback pass, unless they suspect a part of a plugin. So do signals and lack of memory.

    Raises:
        PluginError: A plugin is at fault.
    """
    try:
        yield
    except WalkbackError as error:
        found = _owner_of(error.suspects, registry)
        if found is None:
            raise
        # Advice on settings does not help where a plugin is at fault.
        said = str(error).rpartition(": ")[0] or str(error).rstrip(".")
        raise PluginError(f"{said}: {_named(*found)} is at fault, or the options given to it.") from error
    except BaseException as error:  # third-party code may raise SystemExit, or a class of its own
        closed = isinstance(error, GeneratorExit)  # this very generator
        blamed = None if closed or is_not_of_code(error) else _blamed(error, registry)
        if blamed is None:
            raise
        raise PluginError(blamed) from error


def _blamed(error: BaseException, registry: Registry) -> str | None:
    """What happened, where, and whose code it was; None where it was not a third party's."""
    packages = _packages(registry)
    calls = list(traceback.walk_tb(error.__traceback__))
    frames = [frame for frame, _ in calls]
    for index, (frame, number) in reversed(list(enumerate(calls))):
        offers = packages.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
        if offers is None:
            continue
        part = _component_in(frames[: index + 1], offers) or _only_one(registry, offers)
        place = f"{Path(frame.f_code.co_filename).name}, line {number}"
        return f"{_named(offers[0], part)} failed: {one_line(error)} ({place})."
    used = registry.third_parties
    if not used:
        return None
    names = " and ".join(_named(offer, offer) for offer in used)
    are, them = ("is", "it") if len(used) == 1 else ("are", "them")
    return (
        f"{one_line(error)}: {names} {are} in use here and probably at fault; check {them} with walkback plugins check "
        f"{used[0].reference}."
    )


def _component_in(frames: list[FrameType], offers: list[Registered[Any]]) -> Registered[Any] | None:
    """The component whose method the innermost of these frames is."""
    for frame in reversed(frames):
        found = _offer_of(frame.f_locals.get("self"), offers)
        if found is not None:
            return found
    return None


def _only_one(registry: Registry, offers: list[Registered[Any]]) -> Registered[Any] | None:
    """The component in use among these, such as the network whose layers have failed; None if several are."""
    used = [offer for offer in registry.third_parties if offer in offers]
    return used[0] if len(used) == 1 else None


def _owner_of(
    suspects: Iterable[object], registry: Registry
) -> tuple[Registered[Any], Registered[Any] | None] | None:
    """The plugin of the first suspect that is a third party's, and which of its components it is."""
    packages = _packages(registry)
    for suspect in suspects:
        # A built-in operator may have a network of a third party inside.
        modules = getattr(suspect, "modules", None)
        parts = [suspect, *(modules() if callable(modules) else ())]
        for part in parts:
            offers = packages.get(type(part).__module__.partition(".")[0])
            if offers is not None:
                return offers[0], _offer_of(part, offers) or _offer_of(suspect, offers)
    return None


def _offer_of(part: object, offers: list[Registered[Any]]) -> Registered[Any] | None:
    names = {f"{cls.__module__}:{cls.__qualname__}" for cls in type(part).__mro__}
    return next((offer for offer in offers if getattr(offer.spec, "target", None) in names), None)


def _named(owner: Registered[Any], part: Registered[Any] | None = None) -> str:
    distribution = f"{owner.distribution} {owner.version}"
    if part is None:
        return f"The plugin {distribution}"
    return f"The {spoken(part.kind)} '{part.spec.name}' of {distribution}"


def _packages(registry: Registry) -> Mapping[str, list[Registered[Any]]]:
    """What third parties offer, by the top-level package that it is in."""
    found: dict[str, list[Registered[Any]]] = {}
    own: set[str] = {"walkback", "torch"}
    for kind in RECORDS:
        for offer in registry.offers(kind):
            place = getattr(offer.spec, "target", None) or offer.spec.resource
            package = place.partition(":")[0].partition(".")[0]
            if canonical(offer.distribution) == CORE_DISTRIBUTION:
                own.add(package)
            else:
                found.setdefault(package, []).append(offer)
    return {package: offers for package, offers in found.items() if package not in own}
