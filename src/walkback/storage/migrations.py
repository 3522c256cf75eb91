"""The kinds of file that walkback writes, and migrations from older formats.

An incompatible change of a document requires a new format: add `{previous format: function}` to the migrations of its
kind. The format number increases automatically, and files of every older format are read through the chain of
functions. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, final

from walkback.errors import CheckpointError, ConfigurationError, WalkbackError

_Document: TypeAlias = dict[str, Any]
"""Plain JSON types."""
_Value = TypeVar("_Value")


@final
@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of file, of which every document says the format.

    Attributes:
        name: What a document says it is, under "kind".
        migrations: By format, the function that turns a document of it into one of the next format. It may change the
            dictionary that it is given.
        unstamped: Whether documents of format 1 say neither kind nor format.
        digest_since: The first format whose files contain their digest; None if none do.
        prefixes: By format, how the names of tensors begin in it and in the next format.
    """

    name: str
    migrations: Mapping[int, Callable[[_Document], _Document]] = field(default_factory=dict)
    unstamped: bool = False
    digest_since: int | None = None
    prefixes: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    @property
    def format(self) -> int:
        """The format that is written, and the newest that is read."""
        return 1 + len(self.migrations)

    def stamp(self) -> _Document:
        """What a document of this kind begins with: kind and format."""
        return {"kind": self.name, "format": self.format}

    def requires_digest(self, document: Mapping[str, Any]) -> bool:
        """Return whether a file with this document must contain its digest."""
        written = document.get("format")
        return self.digest_since is not None and type(written) is int and written >= self.digest_since

    def renamed(self, document: Mapping[str, Any], tensors: Mapping[str, _Value]) -> dict[str, _Value]:
        """Tensors of a file with this document, of any format, under the names that they have today."""
        found = dict(tensors)
        for number in range(document.get("format", 1), self.format):
            for old, new in self.prefixes.get(number, {}).items():
                found = {
                    new + name.removeprefix(old) if name.startswith(old) else name: value
                    for name, value in found.items()
                }
        return found

    def migrated(
        self, document: Mapping[str, Any], origin: object, error: type[WalkbackError] = CheckpointError
    ) -> _Document:
        """A document of any format as one of today's, stamped; the argument is left as it is.

        Args:
            document: What a file says.
            origin: The file, for messages.
            error: What is raised.

        Raises:
            WalkbackError: `error`: the document is of another kind, of a format that this version does not know, or
                not what its format says.
        """
        before = self._format_of(document, origin, error)
        migrated = dict(document)
        try:
            for number in range(before, self.format):
                migrated = self.migrations[number](migrated)
        except (AttributeError, LookupError, TypeError, ValueError) as fault:
            raise error(
                f"Got {origin}, which does not hold what format {before} of a {self.name} has; it is damaged."
            ) from fault
        return migrated | self.stamp()

    def _format_of(self, document: Mapping[str, Any], origin: object, error: type[WalkbackError]) -> int:
        if self.unstamped and not {"kind", "format"} & document.keys():
            return 1
        found, written = document.get("kind"), document.get("format")
        if found != self.name:
            raise error(f"Got {origin}, which holds {_quoted(found)}, expected {_quoted(self.name)}.")
        if type(written) is not int or written < 1:
            raise error(f"Got {origin}, whose format {_quoted(written)} is unknown, expected {self.format}.")
        if written > self.format:
            writer = (
                f", written by walkback {_quoted(document['walkback'])}" if "walkback" in document else ""
            )
            raise error(
                f"Got {origin} in format {written}{writer}, but this version reads formats up to {self.format}; "
                "upgrade walkback."
            )
        return written


_CHAINS = {
    "own_starts": "share",
    **{f"own_{name}": name for name in ("after", "pool", "steps", "direction", "restart")},
}
"""Settings of persistent chains in format 1, by `training.…`, and now, by `training.chains.…`."""


def _grouped(config: _Document) -> _Document:
    """`run.loggers = ["NAME"]` as sections `[loggers.NAME]`, `training.own_…` as `[training.chains]`."""
    run, training = dict(config.get("run", {})), dict(config.get("training", {}))
    names = run.pop("loggers", None)
    chains = {new: training.pop(old) for old, new in _CHAINS.items() if old in training}
    found = dict(config)
    if isinstance(names, list):
        found |= {"run": run, "loggers": {name: {} for name in names} | config.get("loggers", {})}
    if chains:
        found["training"] = training | {"chains": chains | training.get("chains", {})}
    return found


def _one_noise(config: _Document) -> _Document:
    """The noise of smoothed data was said twice, by the data and for the operator, which makes use of it or not."""
    smoothing, noise = config.get("operator", {}).get("smoothing"), config.get("data", {}).get("noise")
    if smoothing and noise is not None and smoothing != noise:
        raise ConfigurationError(
            f"Got operator.smoothing = {smoothing} with data.noise = {noise}, which this version cannot tell apart: "
            "an operator makes use of the noise of its data (operator.smoothed = true), or of none."
        )
    return _grouped(config)


def _described(document: _Document) -> _Document:
    """A checkpoint of format 1; the noise that its operator knew of is that of its data."""
    config = document["config"]
    noise = config.get("operator", {}).get("smoothing") or config.get("data", {}).get("noise") or 0.0
    return {**document, "config": _grouped(config), "data": {**document["data"], "noise": noise}}


CONFIGURATION = FileKind("configuration", {1: _one_noise, 2: dict}, unstamped=True)
"""`config.toml` of a run directory, and recipes. What plugins have renamed is moved by `configuration.renaming`."""
CHECKPOINT = FileKind("checkpoint", {1: _described, 2: dict}, digest_since=3)
TRAINING_STATE = FileKind("training state", {1: dict}, digest_since=2, prefixes={1: {"own.": "chains."}})
STEP = FileKind("step", unstamped=True)
"""`step-N.json` of a run directory: the digests of a checkpoint and its training state."""
WORK_CACHE = FileKind("work cache", {1: lambda document: {"protocol": document}}, unstamped=True)
"""`protocol.json` of a directory of finished pieces; in format 1 it is the protocol itself."""
RESULT = FileKind("result")
"""`result.json` of a run directory: how the run ended, and its bound."""
SAMPLES = FileKind("samples")
INPAINTED = FileKind("inpainted")

KINDS = (CONFIGURATION, CHECKPOINT, TRAINING_STATE, STEP, WORK_CACHE, RESULT, SAMPLES, INPAINTED)


def _quoted(value: Any) -> str:
    """A value from a file, fit for a sentence: quoted, and not longer than it should be."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
