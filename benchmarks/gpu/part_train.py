"""Training for a fixed time: `walkback run` with image recipes, its outputs and their evaluation."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from session import Done, Session

RECIPES: Mapping[str, str] = {"mnist": "--batch-size 128", "cifar10": "--batch-size 256"}
"""Batch sizes for a large GPU, which small walks leave idle."""

FULL = (
    "--steps 1000000 --set training.validate_every=500 --set training.checkpoint_every=1000000 "
    "--set training.sample_every=0 --set samples.chain_steps=2000 --set samples.chain_every=200"
)
"""Training ends by time, not by the number of walks; one checkpoint at the end is enough."""

TINY: Mapping[str, str] = {
    "mnist": "--set schedule.temperatures=[1,4]",
    "cifar10": "--set schedule.max_temperature=4 --set schedule.n1=1",
}
SMALL = (
    "--steps 4 --batch-size 2 --set operator.network.channels=[8,8] --set operator.network.blocks=1 "
    "--set training.validation_examples=8 --set training.log_every=1 --set evaluation.limit=8 "
    "--set samples.num=4 --set samples.chains=2 --set samples.chain_steps=4 --set samples.chain_every=2"
)

EVALUATION = "--limit 200 --paths 16 --simulated 0 --samples 500 --no-baselines"
SMALL_EVALUATION = "--limit 8 --paths 2 --simulated 0 --samples 40 --no-baselines"
READOUT: Mapping[str, str] = {"mnist": "mean@256", "cifar10": "state"}
"""How the recipe shows a state."""

OVERHEAD = 40.0
"""Seconds of a recipe outside training: start, data, evaluation, samples, chain."""

LARGEST = 15_000_000
"""Bytes of a file that is still taken along."""


def seconds_for(minutes: float) -> float:
    """Time for all recipes that train for so many minutes each."""
    return len(RECIPES) * (60 * minutes + OVERHEAD)


def run(session: Session, end: float, minutes: float | None = None) -> None:
    """Train one recipe after the other; without `minutes`, as long as there is time."""
    found: dict[str, Any] = {}
    session.results["train"] = found
    for number, recipe in enumerate(RECIPES):
        share = (end - time.time()) / (len(RECIPES) - number)
        own = max(0.05, (share - OVERHEAD) / 60) if minutes is None else minutes
        found[recipe] = {"minutes": own}
        _train(session, recipe, time.time() + share, found[recipe])
        session.keep()


def _train(session: Session, recipe: str, end: float, found: dict[str, Any]) -> None:
    """Train, keep what is there, then measure it as far as time allows, and keep that too."""
    place = session.work / recipe
    options = f"{SMALL} {TINY[recipe]}" if session.tiny else f"{RECIPES[recipe]} {FULL}"
    line = (
        f"--recipe {recipe} --set training.minutes={found['minutes']:.4g} --device {session.device} {options}"
    )
    done = session.walkback("run", *line.split(), "--out", str(place), "--json", seconds=end - time.time())
    found.update(_document(done, place / "run.json"))
    _pack(session, recipe, place, found)
    session.keep()
    checkpoint = place / "final.safetensors"
    if checkpoint.is_file():
        found["evaluation"] = _evaluate(session, checkpoint, READOUT[recipe], end - time.time())
        _pack(session, recipe, place, found)


def _evaluate(session: Session, checkpoint: Path, readout: str, seconds: float) -> dict[str, Any]:
    """The figures of `walkback evaluate`."""
    options = SMALL_EVALUATION if session.tiny else EVALUATION
    line = f"{options} --readout {readout} --device {session.device} --json"
    done = session.walkback("evaluate", str(checkpoint), *line.split(), seconds=seconds)
    document = _document(done, checkpoint.with_name("evaluation.json"))
    wanted = ("name", "value", "unit", "error")
    figures = [{key: figure[key] for key in wanted} for figure in document.get("figures", ())]
    return {"problem": document["problem"], "figures": figures}


def _document(done: Done, file: Path) -> dict[str, Any]:
    """What a command printed, which goes to a file beside the run; and its problem."""
    if done.problem:
        return {"problem": done.problem}
    file.write_text(done.out)
    return {**json.loads(done.out), "problem": ""}


def _pack(session: Session, recipe: str, place: Path, found: dict[str, Any]) -> None:
    """One archive of what the run leaves: configuration, metrics, pictures, documents, the last checkpoint."""
    patterns = ("*.toml", "*.json*", "samples/*", "final.safetensors")
    files = [file for pattern in patterns for file in sorted(place.glob(pattern))]
    if not (
        place / "final.safetensors"
    ).is_file():  # stopped before its end: the newest weights that there are
        weights = [path for path in place.glob("checkpoints/*.safetensors") if ".state." not in path.name]
        files += sorted(weights, key=lambda path: path.stat().st_mtime)[-1:]
    found["left out"] = [file.name for file in files if file.stat().st_size > LARGEST]
    name = f"{recipe}.tar"
    with tarfile.open(session.work / name, "w") as archive:
        for file in files:
            if file.name not in found["left out"]:
                archive.add(file, f"{recipe}/{file.relative_to(place)}")
    session.take(session.work / name, name)
