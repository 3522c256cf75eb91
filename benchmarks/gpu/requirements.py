"""Packages that a machine must provide, and packages to pack for it. Checks before installation need no package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution

PRESENT: Mapping[str, str] = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "pillow": "PIL",
    "pip": "pip",
}
"""Scientific packages that are too large to pack: name of the distribution and of the module."""

UNUSED = ("hf-xet",)
"""Packages needed only for downloads."""

TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hatchling")
"""Packages that test and build walkback."""

PROJECT, EXTRAS = "walkback", ("", "eval")
"""The measured package, and the extras that the measurements need."""


def missing() -> tuple[str, ...]:
    """Returns the packages of `PRESENT` that this Python does not have."""
    return tuple(name for name, module in PRESENT.items() if importlib.util.find_spec(module) is None)


def needed(python: str) -> Mapping[str, str]:
    """Returns the installed versions, by name, of all packages that walkback and the tools need besides `PRESENT`.

    Args:
        python: Target version of Python, such as "3.12".
    """
    found: dict[str, str] = {}
    pending = list(TOOLS) + list(_requirements(PROJECT, python))
    while pending:
        name = pending.pop()
        if name in found or name in PRESENT or name in UNUSED:
            continue
        found[name] = distribution(name).version
        pending += _requirements(name, python)
    return dict(sorted(found.items()))


def unmet() -> Sequence[str]:
    """What is missing or too old for walkback and the tools in this environment, a line each."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    problems, seen, pending = [], set(), [PROJECT, *TOOLS]
    while pending:
        owner = pending.pop()
        if owner in seen or owner in PRESENT:
            continue
        seen.add(owner)
        for line in distribution(owner).requires or ():
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name in UNUSED or not _applies(requirement, owner, {}):
                continue
            try:
                version = distribution(name).version
            except PackageNotFoundError:
                problems.append(f"{owner} needs {name}, which is missing")
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                problems.append(f"{owner} needs {name}{requirement.specifier}, found {version}")
            pending.append(name)
    return problems


def _requirements(name: str, python: str) -> Iterator[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        if _applies(requirement, name, environment):
            yield canonicalize_name(requirement.name)


def _applies(requirement: object, owner: str, environment: Mapping[str, str]) -> bool:
    """Whether a requirement of `owner` counts in an environment; extras of walkback alone do."""
    marker = getattr(requirement, "marker", None)
    extras = EXTRAS if owner == PROJECT else ("",)
    return marker is None or any(marker.evaluate({"extra": extra, **environment}) for extra in extras)
