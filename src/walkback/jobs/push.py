"""The request to publish a model on the hub: its checkpoint, a card, a page and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from walkback.errors import ConfigurationError, WalkbackError
from walkback.extensions.registry import Registry
from walkback.reporting.card import card
from walkback.reporting.content import content_of
from walkback.reporting.page import page
from walkback.storage.description import read_description
from walkback.storage.hub import CHECKPOINT_FILE, HubModel, endpoint, explained, hub_model, quiet
from walkback.storage.store import checkpoint_in
from walkback.support.reach import answers
from walkback.support.watch import Watch

_MOST_PICTURES, _PATIENCE = 8, 3.0


@dataclass(frozen=True, slots=True)
class PushJob:
    """Publish a model.

    Attributes:
        source: A run directory, or a checkpoint.
        name: `USER/MODEL`.
        private: Whether a new repository is visible to its owner only.
        license: An identifier of the hub, such as "apache-2.0"; None omits it.
        dry_run: Whether to list the files without sending them; this needs no token.
    """

    source: Path
    name: str
    private: bool = False
    license: str | None = None
    dry_run: bool = False

    def check(self, registry: Registry, watch: Watch) -> CheckedPush:
        """Read the model and make the files that accompany it; see `Job`.

        Raises:
            ConfigurationError: The name is invalid, or there is no model or no token.
            CheckpointError: The checkpoint cannot be read.
        """
        model = hub_model(self.name)
        if model.revision is not None:
            raise ConfigurationError(f"Got {self.name!r}, expected USER/MODEL without a revision.")
        checkpoint = checkpoint_in(self.source)
        description = read_description(checkpoint)
        content = content_of(self.source)
        pictures = [each for each in content.pictures if not each.name.startswith("step-")][:_MOST_PICTURES]
        names = [picture.name for picture in pictures]
        made = {
            "README.md": card(content, model, names, self.license).encode(),
            "report.html": page(content).encode(),
            **{f"samples/{picture.name}.png": picture.png for picture in pictures},
        }
        for path in _paths(description.config):
            watch.note(f"The checkpoint names the path {path}, which will be public with it.")
        if not self.dry_run:
            _require_token(model)
        return CheckedPush(self, model, checkpoint, made)


@dataclass(frozen=True, slots=True)
class CheckedPush:
    """A model that can be published.

    Attributes:
        job: The request.
        model: The repository on the hub.
        checkpoint: The file of the checkpoint.
        made: Contents of the other files, by path in the repository.
    """

    job: PushJob
    model: HubModel
    checkpoint: Path
    made: Mapping[str, bytes]

    @property
    def files(self) -> dict[str, int]:
        """Sizes in bytes of all files, by path in the repository."""
        sizes = {name: len(content) for name, content in self.made.items()}
        return {CHECKPOINT_FILE: self.checkpoint.stat().st_size, **sizes}

    def run(self, watch: Watch) -> str:
        """Create the repository if needed, send all files as one commit, and return the address of its page.

        Nothing is sent in a dry run.

        Raises:
            WalkbackError: The hub refuses, or cannot be reached.
        """
        address = f"{endpoint()}/{self.model.repository}"
        for name, size in self.files.items():
            watch.note(f"{'Would send' if self.job.dry_run else 'Sending'} {name} ({size:,} bytes).")
        if self.job.dry_run:
            return address
        from huggingface_hub import CommitOperationAdd, HfApi

        watch.stage(f"Sending to {address}", 0)
        api = HfApi(endpoint=endpoint(), library_name="walkback")
        operations = [CommitOperationAdd(CHECKPOINT_FILE, str(self.checkpoint))]
        operations += [CommitOperationAdd(name, content) for name, content in self.made.items()]
        with explained(f"{self.model} cannot be written", WalkbackError), quiet():
            api.create_repo(self.model.repository, private=self.job.private or None, exist_ok=True)
            api.create_commit(self.model.repository, operations, commit_message="Model of walkback")
        return address


def _require_token(model: HubModel) -> None:
    """Raise ConfigurationError unless the hub accepts the token."""
    from huggingface_hub import HfApi

    if not answers(endpoint(), _PATIENCE):
        raise ConfigurationError(f"{model} cannot be written: the hub ({endpoint()}) is out of reach.")
    with explained(f"{model} cannot be written", ConfigurationError):
        HfApi(endpoint=endpoint(), library_name="walkback").whoami()


def _paths(config: Mapping[str, object]) -> list[str]:
    """Return the local paths among the options, since they reveal something about the machine."""
    found: list[str] = []
    for value in config.values():
        if isinstance(value, Mapping):
            found += _paths(value)
        elif isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] == ":\\"):
            found.append(value)
    return found
