"""Labels of samples: which class each is to be of, for models that are told classes, and guidance towards it.

label       a class by name or number; "none" for no class; None: of the data where chains start there, else as the
            training data have them
guidance    w of `walkback.sampling.guidance`; None: none
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
"""The label of samples that are to be of no class."""


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """What samples are to be of.

    Attributes:
        label: See the module.
        guidance: See the module.
    """

    label: int | str | None = None
    guidance: float | None = None

    def check(self, loaded: LoadedModel, say: Say) -> CheckedLabels:
        """Refuse what the model has not learned.

        Raises:
            ConfigurationError: It is told no classes, or has no such class; or guidance is towards no class, or its
                operator has none.
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
    """Labels that a model has learned.

    Attributes:
        info: The data that it was trained on.
        number: The class of all samples; -1: none; None: not asked for.
        guidance: w, or None.
    """

    info: DataInfo
    number: int | None
    guidance: float | None

    def of(self, num: int, seed: int, own: Context) -> Tensor | None:
        """Labels `(num,)` on the CPU: the one asked for, else `own`, those of the data that chains start from.

        Where nothing is known of the starts, as from the prior, they are drawn; None for a model without classes.
        """
        if not self.info.classes:
            return None
        if self.number is not None:
            return torch.full((num,), self.number)
        drawn = draw_labels(self.info, num, generator("cpu", seed, "labels")) if own is None else own
        return None if drawn is None else leaves(drawn)[0].cpu()

    def guide(self, loaded: LoadedModel) -> LoadedModel:
        """The model with its operator guided, where that was asked for."""
        if self.guidance is None:
            return loaded
        operator = guided(loaded.model.operator, self.guidance)
        return replace(loaded, model=replace(loaded.model, operator=operator))

    def facts(self, default: str) -> dict[str, Any]:
        """What a protocol says: the class, or `default`, and the guidance; nothing for a model without classes."""
        if not self.info.classes:
            return {}
        names = (*self.info.classes, NONE)  # -1 is the last
        label = default if self.number is None else names[self.number]
        return {"label": label, **({} if self.guidance is None else {"guidance": self.guidance})}


def unlabelled(states: Tensor) -> Batch:
    """States `(N, *E)` of which no class is known."""
    return Batch(states, torch.full((len(states),), -1))


def _number(label: int | str, names: tuple[str, ...], say: Say) -> int:
    """The number of a class by its name, else as it is; -1 for none."""
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
