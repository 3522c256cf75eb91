"""The request to fill in the missing part of states, see `walkback.sampling.inpainting`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.building.data_of_model import first_examples
from walkback.data import SPLITS, Batch, DataInfo, Split
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.inputs import DataRequest, ModelRequest, require_states
from walkback.jobs.job import Say, at_least, keywords, one_of
from walkback.jobs.labels import NONE, LabelRequest, unlabelled
from walkback.measuring.provenance import Provenance
from walkback.pictures.inpainted import check_target, read_mask, save_inpainted
from walkback.sampling.excursions import own_chain
from walkback.sampling.inpainting import fill_in, fill_steps
from walkback.sampling.readout import require_readout
from walkback.sampling.returning import Returns, returns_of
from walkback.schedules import Levels
from walkback.storage.files import require_apart
from walkback.support.readouts import Readout
from walkback.support.watch import Watch


@dataclass(frozen=True, slots=True)
class InpaintResult:
    """The result of inpainting.

    Attributes:
        mask: True where states were kept; broadcasts to `(N, *E)`.
        filled: Inpainted states `(N, *E)`.
        original: Original states `(N, *E)`.
        protocol: How the states were made, as plain JSON types.
        info: Description of the states.
    """

    mask: Tensor
    filled: Tensor
    original: Tensor
    protocol: Mapping[str, Any]
    info: DataInfo


@dataclass(frozen=True, slots=True)
class InpaintJob:
    """Keep a part of each state fixed at every step of a chain that draws the rest.

    Attributes:
        model: The model.
        keep: "top", "bottom", "left", "right" or an image file, white where kept; or a bool tensor that broadcasts to
            `(N, *E)`, true where kept.
        known: States `(N, *E)`; None takes examples.
        data: Data to take examples from.
        split: Split to take examples from.
        num: Number of examples, from the start of the split.
        extra: Steps at T = 1, or excursions, after annealing.
        excursion: Levels of an excursion, see `walkback.sampling.returning`.
        returns: How often annealing returns at every so many levels.
        anneal: Whether to cool from the prior first.
        readout: How the drawn part is shown, see `walkback.sampling.readout`.
        labels: Class labels and guidance. Without a requested label, examples have their own, other states none.
        out: File to write; None writes none.
        overwrite: Whether an existing file may be replaced.
        seed: Seed of all randomness.
        say: Spells options in error messages.
    """

    model: ModelRequest
    keep: str | Tensor
    known: Tensor | None = None
    data: DataRequest = field(default_factory=DataRequest)
    split: Split = "test"
    num: int = 8
    extra: int = 100
    excursion: int | None = None
    returns: int = 0
    anneal: bool = True
    readout: Readout = "state"
    labels: LabelRequest = field(default_factory=LabelRequest)
    out: Path | None = None
    overwrite: bool = False
    seed: int = 0
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedInpainting:
        """Check the request, load the model and read the states; see `Job.check`."""
        self._require_consistent()
        if self.out is not None:
            mask_file = () if isinstance(self.keep, Tensor) else (Path(self.keep),)
            require_apart(self.out, (*self.model.files, *mask_file, *self.data.files))
            check_target(self.out, self.overwrite)
        loaded = self.model.open(registry, watch)
        require_readout(loaded.model, self.readout)
        mask = self.keep if isinstance(self.keep, Tensor) else read_mask(self.keep, loaded.info)
        labels = self.labels.check(loaded, self.say)
        known, data = self._known(loaded, registry, watch)
        _require_mask(mask, known.states)
        levels = loaded.model.levels() if self.anneal else ()
        protocol = self._protocol(loaded, levels, data, labels.facts("of the data" if data else NONE))
        told = Batch(known.states, labels.of(len(known), self.seed, known.context))
        returns = returns_of(loaded.model, self.excursion, self.returns)
        guided = labels.guide(loaded)
        chain = replace(guided, model=own_chain(guided.model))
        return CheckedInpainting(self, chain, told, mask, levels, returns, protocol)

    def _require_consistent(self) -> None:
        say = self.say
        at_least(1, say, num=self.num)
        at_least(0, say, extra=self.extra, returns=self.returns, seed=self.seed)
        one_of(SPLITS, say, split=self.split)
        self.data.check(say)
        if not (self.anneal or self.extra):
            raise ConfigurationError(
                f"There are no steps to take with {say('anneal', False)} and {say('extra', 0)}: raise {say('extra')}."
            )

    def _known(self, loaded: LoadedModel, registry: Registry, watch: Watch) -> tuple[Batch, DataInfo | None]:
        """Return states `(N, *E)` on the CPU, and the dataset that they are taken from, if any."""
        if self.known is not None:
            return unlabelled(require_states(self.known, loaded.info, "known")), None
        dataset = self.data.open(loaded, registry, watch, comparable=False)
        return first_examples(dataset, self.split, self.num, self.seed), dataset.info

    def _protocol(
        self, loaded: LoadedModel, levels: Levels, data: DataInfo | None, labels: Mapping[str, Any]
    ) -> dict[str, Any]:
        details: dict[str, Any] = {"from": "states"} if data is None else {"split": self.split}
        details |= {
            "keep": "mask" if isinstance(self.keep, Tensor) else Path(self.keep).name,
            "annealing_steps": len(levels),
            "extra": self.extra,
            "excursion": self.excursion,
            "returns": self.returns,
            "readout": self.readout,
            **labels,
        }
        return Provenance.of(loaded, self.seed, **details).on(data).to_dict()


@dataclass(frozen=True, slots=True)
class CheckedInpainting:
    """A checked request to inpaint.

    Attributes:
        request: The request.
        loaded: The model.
        known: States `(N, *E)` on the CPU, with labels if the model is class-conditional.
        mask: True where states are kept.
        levels: Levels to cool through first.
        returns: How annealing returns to hotter levels.
        protocol: How the states are made.
    """

    request: InpaintJob
    loaded: LoadedModel
    known: Batch
    mask: Tensor
    levels: Levels
    returns: Returns | None
    protocol: Mapping[str, Any]

    def run(self, watch: Watch) -> InpaintResult:
        """Fill in the states and write the file; raises WalkbackError if it cannot be written."""
        request = self.request
        with self.loaded.drawing():
            watch.stage("Inpainting", fill_steps(len(self.known), self.levels, request.extra, self.returns))
            filled = fill_in(
                self.loaded.model,
                self.known.states,
                self.mask,
                self.levels,
                self.known.context,
                extra=request.extra,
                returns=self.returns,
                readout=request.readout,
                seed=request.seed,
                on_step=lambda done: watch.advance(done, {}),
            )
        info = self.loaded.info
        filled, known = info.values(filled), info.values(self.known.states)
        if request.out is not None:
            save_inpainted(request.out, self.mask, filled, known, self.protocol)
        return InpaintResult(self.mask, filled, known, self.protocol, info)


def _require_mask(mask: Tensor, known: Tensor) -> None:
    sizes = zip(reversed(mask.shape), reversed(known.shape), strict=False)
    fits = mask.dim() <= known.dim() and all(own in (1, wanted) for own, wanted in sizes)
    if mask.dtype is not torch.bool or not fits:
        raise ConfigurationError(
            f"Got a mask of {mask.dtype} and shape {tuple(mask.shape)}, expected bool that broadcasts to "
            f"{tuple(known.shape)}: true where kept."
        )
