"""Description of a checkpoint: the JSON document in the header of its file. Does not import torch.

It contains no timestamp, so that equal runs produce equal files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictFloat,
    StrictInt,
    ValidationError,
)

from walkback.component import API_VERSION
from walkback.errors import CheckpointError, shortened
from walkback.storage.migrations import CHECKPOINT
from walkback.storage.tensorheader import read_metadata

_Name: TypeAlias = Annotated[str, Field(pattern=r"^\w[\w.+-]*$", max_length=100)]
# Names and versions of distributions (PEP 508 and 440), restricted because they appear in commands that users copy.
_Distribution: TypeAlias = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=100)
]
_Version: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]*$", max_length=100)]
_Path: TypeAlias = Annotated[str, Field(pattern=r"^\w[\w.\[\]-]*$", max_length=200)]


class ComponentOrigin(BaseModel):
    """The component used in a section of the configuration, and the distribution that provides it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: _Name
    distribution: _Distribution
    version: _Version


class Description(BaseModel):
    """Everything about a trained model except its tensors.

    Attributes:
        kind: Kind of the file.
        format: Version of the format, see `walkback.storage.migrations`.
        walkback: Version of walkback that wrote it.
        api: Version of the plugin interface (`walkback.component.API_VERSION`).
        torch: Version of torch that trained it.
        config: The fully resolved configuration, in plain JSON types.
        components: Origin of each configured component, by section.
        data: `DataInfo.to_dict()` of the training data.
        progress: Progress of training: walks, updates, ….
        weights: "ema" if the operator's tensors are the running average of the weights, "raw" for the last weights.
    """

    # A later release may add keys without a new format. They are kept for `walkback info`.
    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Literal["checkpoint"]
    format: StrictInt
    walkback: _Version
    api: StrictInt
    torch: _Version
    config: dict[str, JsonValue]
    components: dict[_Path, ComponentOrigin]
    data: dict[str, JsonValue]
    progress: dict[str, StrictInt | Annotated[StrictFloat, AllowInfNan(False)]]
    weights: Literal["ema", "raw"]


def describe(
    *,
    config: Mapping[str, Any],
    components: Mapping[str, ComponentOrigin],
    data: Mapping[str, Any],
    progress: Mapping[str, int | float],
    weights: Literal["ema", "raw"],
) -> Description:
    """Return the description of a model trained by the installed versions.

    `config` and `data` hold JSON types; tuples become lists.
    """
    return Description(
        **CHECKPOINT.stamp(),
        walkback=version("walkback"),
        api=API_VERSION,
        torch=version("torch"),
        config=_plain(config),
        components=dict(components),
        data=_plain(data),
        progress=dict(progress),
        weights=weights,
    )


def read_description(path: Path) -> Description:
    """Read the description of a checkpoint file from its header.

    Raises:
        CheckpointError: The file cannot be read, or is not a checkpoint that this version understands.
    """
    return parse_description(path, read_metadata(path))


def parse_description(path: Path, document: Mapping[str, Any]) -> Description:
    """Validate the document of the file `path`, of any format; raises the errors of `read_description`."""
    current = CHECKPOINT.migrated(document, path)
    try:
        return Description.model_validate(current)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        raise CheckpointError(
            f"Got the checkpoint {path} with an unusable entry {shortened(where, 80)!r}, "
            f"{shortened(repr(first['input']), 60)} ({first['msg']}); "
            "expected a file written by walkback."
        ) from error


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record in the types that JSON would return."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(record), allow_nan=False))
    return plain
