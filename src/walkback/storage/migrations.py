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
    """One kind of file, whose documents state their format.

    Attributes:
        name: Value of "kind" in a document.
        migrations: By format, the function that converts a document of it to the next format. It may modify its
            argument.
        unstamped: Whether documents of format 1 state neither kind nor format.
        digest_since: First format whose files contain their digest; None if none do.
        prefixes: By format, prefixes of the names of tensors, and those that replace them in the next format.
    """

    name: str
    migrations: Mapping[int, Callable[[_Document], _Document]] = field(default_factory=dict)
    unstamped: bool = False
    digest_since: int | None = None
    prefixes: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    @property
    def format(self) -> int:
        """The current format, which is written; also the newest that can be read."""
        return 1 + len(self.migrations)

    def stamp(self) -> _Document:
        """Return the entries that identify a document of this kind: kind and format."""
        return {"kind": self.name, "format": self.format}

    def requires_digest(self, document: Mapping[str, Any]) -> bool:
        """Return whether a file with this document must contain its digest."""
        written = document.get("format")
        return self.digest_since is not None and type(written) is int and written >= self.digest_since

    def renamed(self, document: Mapping[str, Any], tensors: Mapping[str, _Value]) -> dict[str, _Value]:
        """Return the tensors of a file with this document, of any format, under their current names."""
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
        """Convert a document of any format to the current one, without changing the argument.

        Args:
            document: The document of a file.
            origin: The file, for messages.
            error: Type of the error to raise.

        Raises:
            WalkbackError: `error`, if the document is of another kind, of an unknown format, or does not match its
                format.
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
"""Settings of persistent chains: their names in format 1 (`training.…`), and now (`training.chains.…`)."""


def _grouped(config: _Document) -> _Document:
    """Convert `run.loggers = ["NAME"]` to sections `[loggers.NAME]`, and `training.own_…` to `[training.chains]`."""
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
    """Merge the noise of smoothed data, which format 1 stated twice: for the data and for the operator."""
    smoothing, noise = config.get("operator", {}).get("smoothing"), config.get("data", {}).get("noise")
    if smoothing and noise is not None and smoothing != noise:
        raise ConfigurationError(
            f"Got operator.smoothing = {smoothing} with data.noise = {noise}, which this version cannot tell apart: "
            "an operator makes use of the noise of its data (operator.smoothed = true), or of none."
        )
    return _grouped(config)


def _described(document: _Document) -> _Document:
    """Convert a checkpoint of format 1, in which the noise of the data was an option of the operator."""
    config = document["config"]
    noise = config.get("operator", {}).get("smoothing") or config.get("data", {}).get("noise") or 0.0
    return {**document, "config": _grouped(config), "data": {**document["data"], "noise": noise}}


CONFIGURATION = FileKind("configuration", {1: _one_noise, 2: dict}, unstamped=True)
"""`config.toml` of a run directory, and recipes. `configuration.renaming` handles options renamed by plugins."""
CHECKPOINT = FileKind("checkpoint", {1: _described, 2: dict}, digest_since=3)
TRAINING_STATE = FileKind("training state", {1: dict}, digest_since=2, prefixes={1: {"own.": "chains."}})
STEP = FileKind("step", unstamped=True)
"""`step-N.json` of a run directory: the digests of a checkpoint and its training state."""
WORK_CACHE = FileKind("work cache", {1: lambda document: {"protocol": document}}, unstamped=True)
"""`protocol.json` of a directory of finished parts of a measurement; in format 1, the protocol itself."""
RESULT = FileKind("result")
"""`result.json` of a run directory: how the run ended, and its bound."""
SAMPLES = FileKind("samples")
INPAINTED = FileKind("inpainted")

KINDS = (CONFIGURATION, CHECKPOINT, TRAINING_STATE, STEP, WORK_CACHE, RESULT, SAMPLES, INPAINTED)


def _quoted(value: Any) -> str:
    """Format a value from a file for a message: quoted and truncated."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
