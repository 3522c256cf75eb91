"""What makes a comparison fair: one data set, the same network, the same number of network calls in training.

Networks are compared as configured: the component and all of its options. Their outputs may differ, as one method
learns a variance and another does not, so the table also states the number of parameters.

The number of calls is measured: a few walks of each method are trained for real, on a copy, and their calls counted
(`measuring.calls`). Calls of a walk depend on its K levels alone, so

    calls = Σ_w (a K_w + b)        a, b fitted to the measured walks, K_w of all walks drawn by the schedule

where persistent chains that start late are measured before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from walkback.building.preparation import Prepared
from walkback.configuration.components import ComponentConfig, component_table
from walkback.configuration.schema import component_options, nested_in
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.reporting.record import flattened
from walkback.training.trainer import Trainer, levels_of_walk

_MEASURED = 4
"""Walks of a run that are measured, evenly spaced, besides a shortest and a longest one."""


@dataclass(frozen=True, slots=True)
class Contender:
    """What is known of a method before anything is trained or measured.

    Attributes:
        name: Name of the method.
        network: Its networks as plain options by dotted path.
        parameters: Number of trainable parameters of its operator.
        calls: Network calls of one training; None if unknown.
        gradient_calls: Those with a gradient; None if unknown.
        steps: Number of walks of a training; None for a checkpoint.
    """

    name: str
    network: Mapping[str, Any]
    parameters: int
    calls: int | None = None
    gradient_calls: int | None = None
    steps: int | None = None


def network_of(registry: Registry, operator: ComponentConfig) -> dict[str, Any]:
    """Return the networks of an operator as options by dotted path; the operator itself if it has no network."""
    found = dict(_networks(registry, operator, "operator"))
    return found or dict(flattened(component_table(operator), "operator."))


def _networks(registry: Registry, part: ComponentConfig, kind: str, path: str = "") -> list[tuple[str, Any]]:
    fields = component_options(registry.load(registry.find(kind, part.name))).model_fields  # type: ignore[arg-type]
    found: list[tuple[str, Any]] = []
    for option, field in fields.items():
        nested, value = nested_in(field), part.options.get(option)
        if nested is None or not isinstance(value, ComponentConfig):
            continue
        where = f"{path}{option}."
        if nested.kind == "network":
            found += flattened(component_table(value), where)
        else:
            found += _networks(registry, value, nested.kind, where)
    return found


def expected_calls(prepared: Prepared) -> tuple[int, int]:
    """Return the network calls of the training of a prepared run, and those with a gradient; the model is spent.

    Raises:
        ConfigurationError: The operator is compiled, so that its calls cannot be counted.
    """
    config = prepared.config
    if config.run.compile:
        raise ConfigurationError(
            "Network calls of compiled operators are not counted: set run.compile = false."
        )
    steps, seed = config.training.steps, config.run.seed
    if not steps:
        return 0, 0
    trainer = Trainer(
        prepared.model,
        prepared.objective,
        prepared.dataset,
        # With the initial weights throughout, so that a training that diverges does not fail here.
        config.training.model_copy(update={"lr": 0.0}),
        seed=seed,
        device=prepared.device,
        precision=prepared.precision,
    )
    lengths = [len(levels_of_walk(prepared.model, seed, number)) for number in range(steps)]
    spaced = {round(share * (steps - 1) / (_MEASURED - 1)) for share in range(_MEASURED)}
    numbers = sorted({*spaced, lengths.index(min(lengths)), lengths.index(max(lengths))})
    counts = []
    for number in numbers:
        trainer.progress = replace(trainer.progress, walks=number, calls=0, gradient_calls=0)
        trainer.walk()
        counts.append((trainer.progress.calls or 0, trainer.progress.gradient_calls or 0))
    measured = [lengths[number] for number in numbers]
    every, graph = (_summed(measured, column, lengths) for column in zip(*counts, strict=True))
    return every, graph


def _summed(measured: Sequence[int], counts: Sequence[int], lengths: Sequence[int]) -> int:
    """Return the sum over all walks of the line through the measured calls by number of levels."""
    degree = int(len(set(measured)) > 1)
    line = np.polyfit(np.asarray(measured, float), np.asarray(counts, float), degree)
    return round(float(np.polyval(line, np.asarray(lengths, float)).sum()))


def require_same_network(contenders: Sequence[Contender]) -> None:
    """Raise ConfigurationError if two methods have different networks, naming an option in which they differ."""
    first = contenders[0]
    for other in contenders[1:]:
        for option in {**first.network, **other.network}:
            ours, theirs = first.network.get(option), other.network.get(option)
            if ours != theirs:
                raise ConfigurationError(
                    f"Methods '{first.name}' and '{other.name}' have different networks ({option} = {ours} and "
                    f"{theirs}): give both the same, or set same_network = false."
                )


def require_same_calls(contenders: Sequence[Contender], tolerance: float) -> None:
    """Raise ConfigurationError if the known numbers of network calls differ by more than a share of the largest."""
    known = [(each.calls, each) for each in contenders if each.calls is not None]
    if not known:
        return
    (most, large), (least, small) = max(known, key=_first), min(known, key=_first)
    if most - least <= tolerance * most:
        return
    advice = ""
    if small.steps and least:
        advice = f"training.steps = {round(small.steps * most / least)} of '{small.name}' would match; "
    raise ConfigurationError(
        f"Training takes {most:,} network calls of '{large.name}' and {least:,} of '{small.name}', expected at most "
        f"{tolerance:.0%} of difference: {advice}change them, or set same_calls = false."
    )


def _first(pair: tuple[int, Contender]) -> int:
    return pair[0]
