"""Class labels of samples, for class-conditional models, and guidance towards the class.

label       name or number of a class; "none" for unconditional; None for the labels of the data that chains start
            from, or for labels drawn as in the training data
guidance    w of `walkback.sampling.guidance`; None for no guidance
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.data import Batch, DataInfo, draw_labels
from walkback.errors import ConfigurationError
from walkback.jobs.job import Say
from walkback.sampling.guidance import guided, require_guidable
from walkback.state import Context, leaves
from walkback.support.seeding import generator
from walkback.support.text import nearest

NONE = "none"
"""The label of unconditional samples."""


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """The requested class of samples.

    Attributes:
        label: Name or number of a class, "none", or None, see the module.
        guidance: Strength w of guidance; None for no guidance.
    """

    label: int | str | None = None
    guidance: float | None = None

    def check(self, loaded: LoadedModel, say: Say) -> CheckedLabels:
        """Check the request against the classes of a model.

        Raises:
            ConfigurationError: The model is unconditional or has no such class, guidance is requested without a class,
                or the model's operator does not support it.
        """
        names = tuple(loaded.info.classes)
        for name, value in (("label", self.label), ("guidance", self.guidance)):
            if value is not None and not names:
                raise ConfigurationError(
                    f"{say(name, value)} needs a class-conditional model, and this one is unconditional: train with "
                    "data.condition = 'label'."
                )
        number = None if self.label is None else _number(self.label, names, say)
        if self.guidance is not None:
            if number == -1:
                raise ConfigurationError(
                    f"{say('guidance', self.guidance)} needs a class to guide to, and {say('label', self.label)} is "
                    f"none: choose a class with {say('label')}."
                )
            guided(loaded.model.operator, self.guidance)
            require_guidable(loaded.model)
        return CheckedLabels(loaded.info, number, self.guidance)


@dataclass(frozen=True, slots=True)
class CheckedLabels:
    """Labels that have been checked against a model.

    Attributes:
        info: Description of the data that the model was trained on.
        number: Class of all samples; -1 for unconditional; None if not requested.
        guidance: w, or None.
    """

    info: DataInfo
    number: int | None
    guidance: float | None

    def of(self, num: int, seed: int, own: Context) -> Tensor | None:
        """Return labels `(num,)` on the CPU: the requested one, or else `own`, the labels of the initial states.

        If `own` is None, as for samples from the prior, labels are drawn. Returns None for an unconditional model.
        """
        if not self.info.classes:
            return None
        if self.number is not None:
            return torch.full((num,), self.number)
        drawn = draw_labels(self.info, num, generator("cpu", seed, "labels")) if own is None else own
        return None if drawn is None else leaves(drawn)[0].cpu()

    def guide(self, loaded: LoadedModel) -> LoadedModel:
        """Return the model, with a guided operator if guidance was requested."""
        if self.guidance is None:
            return loaded
        operator = guided(loaded.model.operator, self.guidance)
        return replace(loaded, model=replace(loaded.model, operator=operator))

    def facts(self, default: str) -> dict[str, Any]:
        """Return entries of the protocol: class (or `default`) and guidance; empty for an unconditional model."""
        if not self.info.classes:
            return {}
        names = (*self.info.classes, NONE)  # index -1 is the last one
        label = default if self.number is None else names[self.number]
        return {"label": label, **({} if self.guidance is None else {"guidance": self.guidance})}


def unlabelled(states: Tensor) -> Batch:
    """Return states `(N, *E)` as a batch without labels (-1)."""
    return Batch(states, torch.full((len(states),), -1))


def _number(label: int | str, names: tuple[str, ...], say: Say) -> int:
    """Return the number of a class given by name or number; -1 for "none"."""
    if label == NONE:
        return -1
    if isinstance(label, str) and label in names:
        return names.index(label)
    number = int(label) if isinstance(label, int) or label.isdecimal() else -1
    if not 0 <= number < len(names):
        near = nearest(label, names) if isinstance(label, str) and not label.isdecimal() else ""
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise ConfigurationError(
            f"Got {say('label', label)}{near}, expected one of the {len(names)} classes "
            f"{listed}, or '{NONE}'."
        )
    return number
