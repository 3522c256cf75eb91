"""The pictures of a run: samples during training; at its end samples, chains, walks and the field of steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

from walkback.building.devices import inference
from walkback.building.preparation import Prepared
from walkback.data import batch_of, states_of
from walkback.model import Model
from walkback.pictures.figures import draw_chains, draw_samples, draw_walks
from walkback.sampling.excursions import own_chain
from walkback.sampling.finite import NotFiniteStatesError
from walkback.state import State
from walkback.storage.rundir import RunDirectory
from walkback.support.memory import within_memory
from walkback.support.seeding import generator
from walkback.support.watch import Watch


@final
class RunPictures:
    """Draws pictures into the run's directory.

    Args:
        prepared: The run.
        directory: Its directory.
        watch: Receives progress.
        protocol: Written to the metadata of the files.
    """

    def __init__(
        self, prepared: Prepared, directory: RunDirectory, watch: Watch, protocol: Mapping[str, Any]
    ) -> None:
        self._prepared = prepared
        self._directory = directory
        self._watch = watch
        self._protocol = protocol

    def draw(self, model: Model) -> tuple[Path, ...]:
        """Draw the final pictures: samples, chains started from them, walks; returns the written files."""
        info, settings = self._prepared.dataset.info, self._prepared.config.samples
        samples, chains = self._directory.sample("annealed"), self._directory.sample("chain")
        drawn: list[Path] = []
        with self._skipping_the_lost():
            chain = own_chain(model)
            start = self._draw_samples(chain, samples)
            drawn.append(samples)
            self._watch.stage("Chain at T = 1", settings.chain_steps)
            noise = generator(self._prepared.device, self._prepared.config.run.seed, "chain")
            with self._computing(chain):
                draw_chains(chains, chain, info, settings, start, noise, self._protocol, self._chain_step)
            drawn.append(chains)
        with self._skipping_the_lost():
            drawn += self._draw_walks(model)
        return tuple(drawn)

    @contextmanager
    def _skipping_the_lost(self) -> Iterator[None]:
        """Skip the rest of the block, with a warning, if states are not finite: their picture would be meaningless."""
        try:
            yield
        except NotFiniteStatesError as error:
            self._watch.warn(str(error))

    def draw_midway(self, model: Model, step: int) -> Path | None:
        """Draw samples after `step` walks; returns their file, or None if they are not finite."""
        path = self._directory.sample(f"step-{step}")
        with self._skipping_the_lost():
            self._draw_samples(own_chain(model), path)
            return path
        return None

    def _chain_step(self, step: int) -> None:
        self._watch.advance(step, {})

    def _draw_walks(self, model: Model) -> tuple[Path, ...]:
        """Draw walks between data and prior and, for points in the plane, the mean step at T = 1."""
        prepared = self._prepared
        noise = generator(prepared.device, prepared.config.run.seed, "walks")
        data = batch_of(prepared.dataset, "train", slice(prepared.config.samples.num), noise)
        with self._computing(model):
            return draw_walks(
                self._directory.sample, model, prepared.dataset.info, data, noise, self._protocol
            )

    def _draw_samples(self, model: Model, path: Path) -> State:
        prepared = self._prepared
        noise = generator(prepared.device, prepared.config.run.seed, "samples")
        reference = None
        if not prepared.dataset.info.is_image:
            num = prepared.config.samples.num
            reference = states_of(prepared.dataset, "train", slice(num), noise).cpu()
        with self._computing(model):
            return draw_samples(
                path, model, prepared.dataset.info, prepared.config.samples, noise, self._protocol, reference
            )

    def _computing(self, model: Model) -> AbstractContextManager[object]:
        """Use evaluation mode and the run's precision in the block, and turn out-of-memory errors into advice."""
        num = self._prepared.config.samples.num
        stack = ExitStack()
        stack.enter_context(
            within_memory(f"drawing {num} samples at a time (samples.num)", "lower samples.num")
        )
        stack.enter_context(model.evaluating())
        stack.enter_context(inference(model.operator, self._prepared.device, self._prepared.precision))
        return stack
