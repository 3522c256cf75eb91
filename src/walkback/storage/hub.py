"""Checkpoints on a hub of models: `hf://USER/MODEL` or `hf://USER/MODEL@REVISION`, one file of a repository.

Only what the user names is fetched, never what a checkpoint names, and only this file: no code, no pickle. The file
goes through the same checks as any other checkpoint. `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` count as
everywhere. `huggingface_hub` is imported when a name of the hub is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from walkback.errors import CheckpointError, ConfigurationError, WalkbackError
from walkback.support.reach import answers
from walkback.support.text import one_line

CHECKPOINT_FILE = "final.safetensors"
"""The file of a repository that is loaded."""

MOST_BYTES = 8 * 2**30
"""Largest checkpoint that is fetched."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9])?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9_./-]{{0,99}}))?")
# Accept one slash: Path("hf://a/b") removes the other.
_PREFIX = re.compile(r"hf:/{1,2}")
_PATIENCE = 3.0
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_HTTP = ("httpx", "httpx2", "httpcore", "requests", "urllib3")


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of a model.

    Attributes:
        repository: `USER/MODEL`.
        revision: Branch, tag or commit; None for the newest.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + ("" if self.revision is None else f"@{self.revision}")


def is_hub_name(source: str | os.PathLike[str]) -> bool:
    """Return whether a source begins with `hf://`."""
    return _PREFIX.match(os.fspath(source)) is not None


def hub_model(text: str) -> HubModel:
    """Read `USER/MODEL`, `USER/MODEL@REVISION`, or either after `hf://`.

    >>> hub_model("hf://ada/digits@v1")
    HubModel(repository='ada/digits', revision='v1')

    Raises:
        ConfigurationError: It is neither.
    """
    found = _NAME.fullmatch(_PREFIX.sub("", text, count=1))
    if found is None or ".." in text or "--" in text:
        raise ConfigurationError(f"Got {text!r}, expected USER/MODEL, of letters, digits, '-', '_' and '.'.")
    return HubModel(found[1], found[2])


def fetch(source: str | os.PathLike[str]) -> Path:
    """Return the checkpoint of a model on the hub: a file in the cache of `huggingface_hub`, fetched if needed.

    Raises:
        ConfigurationError: The name is none.
        CheckpointError: There is no such checkpoint, it is too large, or the hub is out of reach.
    """
    model = hub_model(os.fspath(source))
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reached = not constants.HF_HUB_OFFLINE and answers(endpoint(), _PATIENCE)

    def download(*, dry_run: bool) -> object:
        return hf_hub_download(
            model.repository,
            CHECKPOINT_FILE,
            revision=model.revision,
            endpoint=endpoint(),
            local_files_only=not reached,
            library_name="walkback",
            dry_run=dry_run,
        )

    try:
        with explained(f"{model} cannot be fetched", CheckpointError):
            size = getattr(download(dry_run=True), "file_size", None) or 0 if reached else 0
            if size > MOST_BYTES:
                raise CheckpointError(
                    f"{model} has a checkpoint of {size / 2**30:.1f} GiB, expected {MOST_BYTES / 2**30:g} GiB at most."
                )
            return Path(str(download(dry_run=False)))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{model} is not in the cache, and the hub ({endpoint()}) is out of reach or switched off (HF_HUB_OFFLINE)."
        ) from error
    except EntryNotFoundError as error:
        raise CheckpointError(
            f"{model} has no {CHECKPOINT_FILE}, expected a model that `walkback push` has written."
        ) from error


def endpoint() -> str:
    """Return the address of the hub, reading `HF_ENDPOINT` at each call."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


@contextmanager
def explained(what: str, kind: type[WalkbackError]) -> Iterator[None]:
    """Convert errors of the hub to `kind` with a one-sentence message; errors of missing files pass.

    Raises:
        WalkbackError: Of `kind`.
    """
    from huggingface_hub.errors import EntryNotFoundError

    try:
        yield
    except (WalkbackError, EntryNotFoundError):
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise kind(f"{what}: {reason}.") from error


def _reason(error: BaseException) -> str | None:
    """Return the meaning of an error of the hub or the network; None for other errors."""
    from huggingface_hub import errors

    for known, meaning in (
        (errors.LocalTokenNotFoundError, f"there is no token of the hub; {_LOGIN}"),
        (errors.GatedRepoError, f"access must be asked for on the page of the model; {_LOGIN}"),
        (errors.RevisionNotFoundError, "it has no such revision"),
        (errors.RepositoryNotFoundError, f"there is no such model, or it is private; then {_LOGIN}"),
    ):
        if isinstance(error, known):
            return meaning
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        refused = f"the token is invalid, or may not do this ({status}); {_LOGIN}"
        return refused if status in (401, 403) else f"the hub answered {status}, {one_line(error)[:200]}"
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # downloads of large files wrap it
        return _reason(error.__cause__)
    # The HTTP library differs between versions of huggingface_hub.
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _HTTP:
        return f"the hub ({endpoint()}) cannot be reached, {one_line(error)[:200]}"
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars of `huggingface_hub`, since walkback has its own."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
