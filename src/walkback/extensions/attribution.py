"""Attribution of errors to third-party plugins: the plugin whose code raised the error, or whose object caused it.

    exception       → the innermost frame of its traceback in a module of a plugin; else the components in use
    WalkbackError   → the first of its suspects whose class belongs to a plugin (`WalkbackError.suspecting`)

Components of walkback's own distribution are never blamed: their errors come from the user's options and data, or from
a bug in walkback.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from walkback.errors import PluginError, WalkbackError
from walkback.extensions.loader import CORE_DISTRIBUTION, RECORDS, canonical
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.support.faults import is_not_of_code
from walkback.support.text import one_line, spoken


@contextmanager
def naming_plugins(registry: Registry) -> Iterator[None]:
    """Turn exceptions that third-party plugins raise in the block into an error that names the plugin.

    Signals, out-of-memory errors, and errors of walkback that suspect no part of a plugin pass unchanged.

    Raises:
        PluginError: A plugin is at fault.
    """
    try:
        yield
    except WalkbackError as error:
        found = _owner_of(error.suspects, registry)
        if found is None:
            raise
        # If a plugin is at fault, the message's advice on settings (after the colon) does not help.
        said = str(error).rpartition(": ")[0] or str(error).rstrip(".")
        raise PluginError(f"{said}: {_named(*found)} is at fault, or the options given to it.") from error
    except BaseException as error:  # third-party code may raise SystemExit, or a class of its own
        closed = isinstance(error, GeneratorExit)  # this generator itself is being closed
        blamed = None if closed or is_not_of_code(error) else _blamed(error, registry)
        if blamed is None:
            raise
        raise PluginError(blamed) from error


def _blamed(error: BaseException, registry: Registry) -> str | None:
    """Return a message that says what failed, where, and in whose code; None if no third party is involved."""
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
    """Return the component that owns the innermost method among the frames."""
    for frame in reversed(frames):
        found = _offer_of(frame.f_locals.get("self"), offers)
        if found is not None:
            return found
    return None


def _only_one(registry: Registry, offers: list[Registered[Any]]) -> Registered[Any] | None:
    """Return the only component of these that is in use, e.g. the network whose layers failed; None if several are."""
    used = [offer for offer in registry.third_parties if offer in offers]
    return used[0] if len(used) == 1 else None


def _owner_of(
    suspects: Iterable[object], registry: Registry
) -> tuple[Registered[Any], Registered[Any] | None] | None:
    """Return the plugin of the first third-party suspect, and which of the plugin's components it is."""
    packages = _packages(registry)
    for suspect in suspects:
        # A built-in operator may contain a third-party network.
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
    """Return the components of third parties by their top-level package."""
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
