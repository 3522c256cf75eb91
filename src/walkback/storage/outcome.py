"""`result.json` of a run directory: how the run ended. Does not import torch.

A run that is killed does not write it, and a resumed run removes it first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from walkback.errors import CheckpointError, ConfigurationError
from walkback.storage.files import write_json
from walkback.storage.migrations import RESULT
from walkback.support.textfile import read_text

RESULT_FILE = "result.json"
"""Name of the file."""

_Number = Annotated[StrictFloat, AllowInfNan(False)] | StrictInt


class Bound(BaseModel):
    """A bound on held-out data.

    Attributes:
        nats: Upper bound on -log p, nats per example.
        nats_error: Its standard error.
        bits_per_dimension: The bound in bits/dim; None if the data are not quantized.
        bits_error: Its standard error.
        split: Split of the data.
        examples: Number of examples; None if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    nats: _Number
    nats_error: _Number | None = None
    bits_per_dimension: _Number | None = None
    bits_error: _Number | None = None
    split: str = "validation"
    examples: StrictInt | None = None


class Outcome(BaseModel):
    """How a run ended.

    Attributes:
        state: "finished"; "interrupted" by a signal; "diverged": a loss or a bound was not finite; "failed" for
            any other error.
        walks: Number of walks taken.
        seconds: Seconds of training.
        bound: The final bound.
        best_step: Number of walks of the best model on validation data, if that one was kept.
        reason: The error, in a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Literal["finished", "interrupted", "diverged", "failed"]
    walks: Annotated[StrictInt, Field(ge=0)]
    seconds: _Number | None = None
    bound: Bound | None = None
    best_step: StrictInt | None = None
    reason: str = ""

    def write(self, directory: Path) -> None:
        """Write the file atomically; raises WalkbackError if it cannot be written."""
        write_json(directory / RESULT_FILE, RESULT.stamp() | self.model_dump(mode="json"))


def read_outcome(directory: Path) -> Outcome | None:
    """Read how a run ended; None if it did not write an outcome.

    Raises:
        CheckpointError: The file is damaged, or of a newer format.
    """
    path = directory / RESULT_FILE
    if not path.exists():
        return None
    try:
        document = json.loads(read_text(path))
        return Outcome.model_validate(RESULT.migrated(document, path))
    except ConfigurationError as error:  # from `read_text`
        raise CheckpointError(str(error)) from error
    except (AttributeError, ValidationError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged, expected a file written by walkback.") from error
