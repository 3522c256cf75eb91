"""The request to make a model of a known chain: an operator with its options, nothing trained.

choices → RunConfig → Prepared → Checkpoint
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from walkback.building.preparation import Prepared, prepare
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.jobs.job import Say, keywords
from walkback.storage.checkpoint import Checkpoint, save_checkpoint
from walkback.storage.description import describe
from walkback.storage.files import require_target
from walkback.support.formats import SAFETENSORS
from walkback.support.watch import Watch


@dataclass(frozen=True, slots=True)
class ChainJob:
    """Make a model of an operator without training it.

    Attributes:
        choices: The operator, and the space or the data that it is compared with.
        out: Checkpoint to write; None does not write one.
        overwrite: Whether to overwrite an existing file.
        say: Names options in error messages.
    """

    choices: Choices = field(default_factory=Choices)
    out: Path | None = None
    overwrite: bool = False
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedChain:
        """See `Job`."""
        if self.out is not None:
            require_target(self.out, (SAFETENSORS,), overwrite=self.overwrite, of_checkpoint=True)
            self._refuse_instances()
        config = self._with_states(registry).resolve(registry)
        watch.stage(f"Preparing {config.data.name}", 0)
        prepared = prepare(config, registry, instances=self.choices.instances.copied())
        prepared.model.levels()
        prepared.model.operator.eval().requires_grad_(False)
        prepared.model.process.eval().requires_grad_(False)
        return CheckedChain(prepared, self.out)

    def _refuse_instances(self) -> None:
        for section in sorted(self.choices.instances.sections):
            raise ConfigurationError(
                f"A checkpoint needs components by name, and {section} is an instance: register its class in a plugin "
                "(docs/chains.md), and give its name."
            )

    def _with_states(self, registry: Registry) -> Choices:
        """Return the choices, by default with the states that the operator proposes instead of the recipe's."""
        choices = self.choices
        named = any(text.startswith("data.name") for text in choices.settings)
        if named or choices.components.get("data") is not None or choices.instances.data is not None:
            return choices
        operator = choices.components.get("operator")
        defaults = {} if operator is None else registry.find("operator", operator).spec.defaults
        proposed = defaults.get("data", {}).get("name")
        if proposed is None:
            raise ConfigurationError(
                f"Got an operator without its states, expected {self.say('data')}: a space, such as real:2 or "
                "one-hot:12,3, or data to compare the chain with."
            )
        return replace(choices, components={**choices.components, "data": proposed})


@dataclass(frozen=True, slots=True)
class CheckedChain:
    """A model that can be written.

    Attributes:
        prepared: The model and its data.
        out: See `ChainJob`.
    """

    prepared: Prepared
    out: Path | None

    def run(self, watch: Watch) -> KnownChain:
        """Write the checkpoint, and return it with the model."""
        description = describe(
            **self.prepared.names(), data=self.prepared.dataset.info.to_dict(), progress={}, weights="raw"
        )
        tensors = {name: tensor.detach().cpu() for name, tensor in self.prepared.model.tensors().items()}
        checkpoint = Checkpoint(description, tensors)
        if self.out is not None:
            save_checkpoint(self.out, checkpoint)
        return KnownChain(self.prepared, checkpoint)


@dataclass(frozen=True, slots=True)
class KnownChain:
    """A model of a known chain.

    Attributes:
        prepared: The model, in evaluation mode, and its data.
        checkpoint: The checkpoint that was, or would be, written.
    """

    prepared: Prepared
    checkpoint: Checkpoint
