"""Plugins whose hooks are classes of a test module, and whose components are modules in `tests/plugin_fixtures`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from walkback.extensions.loader import Plugin, PluginStatus, load_plugin
from walkback.extensions.registry import Registry


def plugin(distribution: str, hooks: object) -> Plugin:
    """The plugin `main` of a distribution; `hooks` is a class of static methods marked `@hookimpl`."""
    return load_plugin(hooks, PluginStatus(f"{distribution}:main", distribution, "1.0"))


@contextmanager
def toy_registry(hooks: object) -> Iterator[Registry]:
    """The registry of one distribution "toys", with the modules of its components on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "plugin_fixtures"))
        yield Registry([plugin("toys", hooks)])
