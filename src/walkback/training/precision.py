"""`run.precision = "auto"`: bf16 where it is faster and learns the same, else fp32.

    units      the device computes products in bf16 itself
    agrees     |L_bf16 - L_fp32| / D ≤ 0.01 max(1, |L_fp32| / D)   nats/dim,   L = Σ_t mean over rows of loss_t

L is the loss of one walk, whose states are the same for both, on a copy of the model that has trained on two walks of
16 rows in fp32: outputs of new networks are often zero, and would hide errors. Speed is not measured: a choice that
depends on the load of the machine could not be repeated.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch

from walkback.building.devices import Precision, autocast, has_bf16_units
from walkback.building.preparation import Prepared
from walkback.configuration.settings import ChainSettings
from walkback.errors import WalkbackError
from walkback.objectives import PathObjective
from walkback.support.seeding import generator
from walkback.support.watch import Watch
from walkback.training.batches import BatchOrder
from walkback.training.starts import DataStarts
from walkback.training.trainer import Trainer, levels_of_walk

TOLERANCE = 0.01
"""Largest difference of the loss of a walk, nats/dim or relative if the loss is larger than 1 nat/dim."""

_ROWS, _WALKS = 16, 2


def settled(prepared: Prepared, watch: Watch, *, resumes: bool = False) -> Prepared:
    """Return `prepared` with the precision that "auto" means here, also in its configuration.

    Args:
        prepared: A run.
        watch: Is told why.
        resumes: Whether the run has begun: "auto" in its configuration then means bf16 on CUDA devices with bf16 units
            and fp32 elsewhere, as it did when such configurations were written.
    """
    if prepared.config.run.precision != "auto":
        return prepared
    precision, reason = _began(prepared) if resumes else _choice(prepared)
    watch.note(f"run.precision = auto: {precision}, since {reason}.")
    run = prepared.config.run.model_copy(update={"precision": precision})
    return replace(prepared, config=replace(prepared.config, run=run), precision=precision)


def _began(prepared: Prepared) -> tuple[Precision, str]:
    on_units = prepared.device.type == "cuda" and has_bf16_units(prepared.device)
    return "bf16" if on_units else "fp32", "the run began in it"


def _choice(prepared: Prepared) -> tuple[Precision, str]:
    if not has_bf16_units(prepared.device):
        return "fp32", f"this {prepared.device.type} has no bf16 units"
    try:
        fp32, bf16 = losses(prepared)
    except WalkbackError:  # the run itself will say what is wrong, with advice
        return "fp32", "the check of bf16 failed"
    allowed = TOLERANCE * max(1.0, abs(fp32))
    agrees = abs(bf16 - fp32) <= allowed  # False if either is not finite
    return (
        "bf16" if agrees else "fp32",
        f"the loss of a walk is {bf16:.4f} nats/dim in bf16 and {fp32:.4f} in fp32, "
        f"{'no more' if agrees else 'more'} than {allowed:.2g} apart",
    )


def losses(prepared: Prepared) -> tuple[float, float]:
    """Return the loss of one walk in fp32 and in bf16, nats/dim; changes nothing.

    Raises:
        WalkbackError: Training on two walks fails.
    """
    config, device, objective = prepared.config, prepared.device, prepared.objective
    model = replace(
        prepared.model,
        operator=deepcopy(prepared.model.operator),
        process=deepcopy(prepared.model.process),
        prior=deepcopy(prepared.model.prior),
    )
    rows, seed = min(_ROWS, config.training.batch_size), config.run.seed
    plain = {"batch_size": rows, "chains": ChainSettings(), "minutes": None, "warmup": 0}
    settings = config.training.model_copy(update=plain)
    trainer = Trainer(model, objective, prepared.dataset, settings, seed=seed, device=device)
    for _ in range(_WALKS):
        trainer.walk()
    trainer.settle()
    starts = DataStarts(model, prepared.dataset, settings.unlabelled, device)
    noise, levels = generator(device, seed, "noise", _WALKS), levels_of_walk(model, seed, _WALKS)
    loss = objective.step if isinstance(objective, PathObjective) else objective
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    with torch.no_grad(), model.evaluating():
        start = starts.at(BatchOrder(starts.count, rows, seed).batch(_WALKS), noise)
        for step in model.path(start, levels, noise):
            with autocast(device, "bf16"):
                reverse = model.operator(step.target, step.level, step.context).cooling(step.level)
                totals[1] += loss(step._replace(reverse=reverse)).mean()
            totals[0] += loss(step).mean()
    fp32, bf16 = (totals / prepared.dataset.info.space.size).tolist()
    return fp32, bf16
