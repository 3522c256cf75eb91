"""Discovery of plugins, each in isolation: a broken plugin is recorded and affects nothing else.

    installed distributions → entry points of the group `walkback` → one `Plugin` record each

With pluggy's own loader, one broken plugin would stop every command, and the second of two entry points with the same
name would be dropped. Here each plugin has its own manager, so plugins share neither hooks nor failures.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Literal, TypeAlias

import pluggy

from walkback import hookspecs
from walkback.component import API_VERSION, KINDS, Command, Component, Recipe
from walkback.errors import PluginError
from walkback.support.faults import is_not_of_code
from walkback.support.interrupts import Stopped
from walkback.support.text import nearest, one_line

CORE_DISTRIBUTION = "walkback"
"""The distribution whose plugins are always loaded."""

OF_A_FILE = "file"
"""The version of a plugin that is a file, whose distribution is called like it."""

Record: TypeAlias = Component | Recipe | Command
RECORDS: Mapping[str, type[Record]] = {
    **dict.fromkeys(KINDS, Component),
    "recipe": Recipe,
    "command": Command,
}
"""The type of record that each kind of hook yields: the component kinds, "recipe" and "command"."""

_VERSION_NAME = "WALKBACK_API"
"""Optional attribute of a plugin's module: the `API_VERSION` that it was written for."""

_NAME = re.compile(r"\w[\w.+-]*")
_TARGET = re.compile(r"[\w.]+:.+")


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """The result of loading one plugin.

    Attributes:
        name: `distribution:entry-point`.
        distribution: Name of its distribution.
        version: Version of that distribution.
        status: "ok"; "broken" (see `error` and `traceback`); or "blocked" if it was excluded on request.
        error: The error, in one line.
        traceback: The error with its traceback.
        seconds: Time it took to load, which delays every command.
    """

    name: str
    distribution: str
    version: str
    status: Literal["ok", "broken", "blocked"] = "ok"
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0

    def broken(self, error: BaseException) -> PluginStatus:
        """Return the status of the same plugin after it failed with `error`."""
        details = "".join(traceback.format_exception(error))
        return replace(self, status="broken", error=one_line(error), traceback=details)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin and its records by kind (the keys of `RECORDS`); without records unless its status is "ok"."""

    status: PluginStatus
    offers: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    hooks: pluggy.HookRelay | None = None


def hook_name(kind: str) -> str:
    """Return the name of the hook through which plugins offer a kind.

    >>> hook_name("operator"), hook_name("process")
    ('walkback_operators', 'walkback_processes')
    """
    return f"walkback_{kind}es" if kind.endswith("s") else f"walkback_{kind}s"


def canonical(distribution: str) -> str:
    """Normalize the name of a distribution: `My_Plugin` and `my-plugin` are equivalent."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def chosen() -> list[str] | None:
    """Return the plugins listed, separated by commas, in the variable `WALKBACK_PLUGINS`; None if it is not set.

    A name that ends with .py is a plugin in a file.
    """
    names = os.environ.get("WALKBACK_PLUGINS")
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def discover(only: Collection[str] | None = None, enabled: bool = True) -> tuple[Plugin, ...]:
    """Load every installed plugin: those of walkback first, then the others in alphabetical order.

    Args:
        only: Names (`entry-point` or `distribution:entry-point`) of the third-party plugins to load, and files of
            plugins (`.py`), which are loaded only if they are named; None for all that are installed.
        enabled: Whether third-party plugins are loaded at all.
    """
    found = sorted(_entry_points(), key=lambda item: (not _is_core(item[0]), item[0].name))
    plugins = []
    for status, entry_point in found:
        wanted = _is_core(status) or (enabled and (only is None or is_named(status, only)))
        plugins.append(
            _load(status, entry_point.load) if wanted else Plugin(replace(status, status="blocked"))
        )
    files = filter(is_file, only or () if enabled else ())
    plugins += [_load(_status_of_file(file), partial(import_file, file)) for file in files]
    return tuple(plugins)


def is_named(status: PluginStatus, names: Collection[str]) -> bool:
    """Return whether a plugin is among `names`, each an `entry-point` or a `distribution:entry-point`."""
    own, entry_point = canonical(status.distribution), status.name.partition(":")[2]
    pairs = (name.rpartition(":") for name in names)
    return any(name == entry_point and (not colon or canonical(dist) == own) for dist, colon, name in pairs)


def is_file(name: str) -> bool:
    """Whether the name of a plugin is that of a file."""
    return name.endswith(".py")


def _status_of_file(file: str) -> PluginStatus:
    stem = canonical(Path(file).stem)
    return PluginStatus(f"{stem}:{stem}", stem, OF_A_FILE)


def load_plugin(plugin: object, status: PluginStatus) -> Plugin:
    """Return the record of an imported plugin (a module, or any object with hooks).

    Raises:
        PluginError: It breaks the contract: it requires another version of the interface, has no hook or an unknown
            one, or a hook returns something other than the expected records.
    """
    _refuse_other_version(plugin, status)
    manager = pluggy.PluginManager("walkback")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=status.name)
    _refuse_unknown_hooks(manager, plugin)
    offers = {kind: tuple(_records(manager, kind)) for kind in RECORDS}
    return Plugin(status, offers, manager.hook)


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Run third-party code in the block with its output redirected to stderr, because stdout is for results.

    Raises:
        RuntimeError: The code raised KeyboardInterrupt although the user did not press Ctrl-C.
    """
    with contextlib.redirect_stdout(sys.stderr), _interruptions() as arrived:
        try:
            yield
        except KeyboardInterrupt as error:
            if isinstance(error, Stopped) or arrived:
                raise
            raise RuntimeError("KeyboardInterrupt without a signal") from error


@contextlib.contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Record the Ctrl-C signals that arrive in the block, if Python's default handler is installed."""
    arrived: list[int] = []
    default = signal.default_int_handler
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not default:
        yield arrived
        return

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        default(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGINT, default)


def _entry_points() -> Iterator[tuple[PluginStatus, importlib.metadata.EntryPoint]]:
    """Yield the walkback entry points of every distribution; the first one on the path wins, as for imports."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        try:
            entry_points = [e for e in distribution.entry_points if e.group == hookspecs.ENTRY_POINT_GROUP]
            name, version = (distribution.name, distribution.version) if entry_points else ("", "")
        except Exception:
            continue  # without readable metadata there is no name to report
        if not entry_points or canonical(name or "unknown") in seen:
            continue
        seen.add(canonical(name or "unknown"))
        for entry_point in entry_points:
            status = PluginStatus(
                f"{name or 'unknown'}:{entry_point.name}", name or "unknown", version or "unknown"
            )
            yield status, entry_point


def import_file(file: str) -> ModuleType:
    """Import a file under its own name, so that its components are found as `name:Class`.

    Raises:
        PluginError: There is no such file, or its name is that of a module.
    """
    name, path = Path(file).stem, Path(file).resolve()
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if not name.isidentifier() or (known or importlib.util.find_spec(name)) is not None:
        raise PluginError(f"its file {name!r} is called like a module, or not as one can be: rename it")
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise PluginError(f"there is no file {file!r}: check the path")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_core(status: PluginStatus) -> bool:
    return canonical(status.distribution) == CORE_DISTRIBUTION


def _load(status: PluginStatus, load: Callable[[], object]) -> Plugin:
    start = time.perf_counter()
    try:
        with quiet_stdout():
            plugin = load_plugin(load(), status)
    except BaseException as error:  # a plugin may raise SystemExit, or a class of its own
        if is_not_of_code(error):
            raise
        plugin = Plugin(status.broken(error))
    return replace(plugin, status=replace(plugin.status, seconds=time.perf_counter() - start))


def _refuse_other_version(plugin: object, status: PluginStatus) -> None:
    """Raise PluginError if the plugin declares another `WALKBACK_API`, whose hooks may have another meaning."""
    declared = getattr(plugin, _VERSION_NAME, API_VERSION)
    if not isinstance(declared, int) or isinstance(declared, bool):
        raise PluginError(
            f"it has {_VERSION_NAME} = {declared!r:.80}, expected an integer such as {API_VERSION}"
        )
    if declared != API_VERSION:
        newer = CORE_DISTRIBUTION if declared > API_VERSION else status.distribution
        raise PluginError(
            f"it was written for version {declared} of walkback's plugin interface, and this walkback has version "
            f"{API_VERSION}: install a newer {newer} with pip install --upgrade {newer}"
        )


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    known = [caller for caller in vars(hookspecs) if caller.startswith("walkback_")]
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        raise PluginError("it has no hooks: mark its functions with walkback.hookspecs.hookimpl")
    for caller in callers:
        if not caller.has_spec() and not all(hook.optionalhook for hook in caller.get_hookimpls()):
            raise PluginError(
                f"it has a hook {caller.name!r}, which does not exist{nearest(caller.name, known)}"
            )


def _records(manager: pluggy.PluginManager, kind: str) -> Iterator[Record]:
    """Yield the records of one kind of hook; hooks may be generators, which run (and may fail) only here."""
    hook, expected = hook_name(kind), RECORDS[kind]
    names: set[str] = set()
    for answer in getattr(manager.hook, hook)():
        if not isinstance(answer, Iterable):
            raise PluginError(f"{hook} gave {answer!r:.80}, expected an iterable of {expected.__name__}")
        for record in answer:
            _check(hook, record, expected)
            if record.name in names:
                raise PluginError(f"{hook} gave the name {record.name!r} twice")
            names.add(record.name)
            yield record


def _check(hook: str, record: Any, expected: type[Record]) -> None:
    """Check the types of a record: dataclasses do not enforce them, and the rest of the program relies on them."""
    if not isinstance(record, expected):
        raise PluginError(f"{hook} gave {record!r:.80}, expected {expected.__name__}")
    if not (isinstance(record.name, str) and _NAME.fullmatch(record.name)):
        raise PluginError(f"{hook} gave the name {record.name!r:.80}, expected letters, digits and . _ + -")
    place = record.resource if isinstance(record, Recipe) else record.target
    if not (isinstance(place, str) and _TARGET.fullmatch(place)):
        raise PluginError(f"{hook} gave {record.name!r} at {place!r:.80}, expected 'module:name'")
    defaults = record.defaults if isinstance(record, Component) else {}
    if not (isinstance(defaults, Mapping) and all(isinstance(table, Mapping) for table in defaults.values())):
        raise PluginError(
            f"{hook} gave {record.name!r} with defaults {defaults!r:.80}, expected them by section"
        )
    if isinstance(record, Component):
        for word, table in (("preset", record.preset), ("renamed", record.renamed)):
            if not (isinstance(table, Mapping) and all(isinstance(option, str) for option in table)):
                raise PluginError(
                    f"{hook} gave {record.name!r} with {word} {table!r:.80}, expected a mapping by option"
                )
        _check_instances(hook, record)
        if not isinstance(record.self_contained, bool):
            raise PluginError(
                f"{hook} gave {record.name!r} with self_contained {record.self_contained!r:.80}"
            )
    if not isinstance(record.summary, str):
        raise PluginError(f"{hook} gave {record.name!r} with summary {record.summary!r:.80}, expected text")


def _check_instances(hook: str, record: Component) -> None:
    places = record.instances
    if not (isinstance(places, tuple) and all(isinstance(place, str) for place in places)):
        raise PluginError(
            f"{hook} gave {record.name!r} with instances {places!r:.80}, expected 'module:class'"
        )
