"""The bound of a run on held-out data, in validations and at its end, whose examples processes divide."""

from __future__ import annotations

from walkback.building.devices import autocast
from walkback.building.preparation import Prepared
from walkback.data import Split, batch_of
from walkback.measuring.bound import BoundEstimate, estimate_bound
from walkback.processes import without_bound
from walkback.support.memory import within_memory
from walkback.support.seeding import generator
from walkback.support.world import World
from walkback.training.trainer import Trainer


def bound_of_run(
    prepared: Prepared, trainer: Trainer, world: World, split: Split, limit: int, stream: str
) -> BoundEstimate | None:
    """Return the bound (if any) on the first `limit` examples of a split, with the averaged weights.

    All processes call this together and divide the examples, unless they divide the weights: then only the main one has
    all of them, and others return None.

    Args:
        prepared: The run.
        trainer: Its trainer.
        world: The place of this process among others.
        split: The split.
        limit: Number of examples.
        stream: Name of the streams of noise: "validation" takes one path for each example, "evaluation" those of
            `evaluation.paths`.
    """
    if without_bound(prepared.model.process) or (world.shards and not world.is_main):
        return None
    if world.shards:
        world = World()
    else:  # buffers of batch norm may differ
        world.copy_from_main(*trainer.averaged_model.modules.values())
    settings, device = prepared.config.evaluation, prepared.device
    num = min(limit, len(prepared.dataset.examples(split)))
    firsts = range(0, num, settings.batch_size)
    noises = [generator(device, prepared.config.run.seed, stream, first) for first in firsts]
    batches = [
        batch_of(prepared.dataset, split, slice(first, min(first + settings.batch_size, num)), noise)
        for first, noise in zip(firsts, noises, strict=True)
    ]
    work = f"evaluating {settings.batch_size} examples at a time (evaluation.batch_size)"
    paths = settings.paths if stream == "evaluation" else 1
    with within_memory(work, "lower evaluation.batch_size"), autocast(device, prepared.precision):
        model, info = trainer.averaged_model, prepared.dataset.info
        return estimate_bound(model, batches, info, noises, paths=paths, world=world)
