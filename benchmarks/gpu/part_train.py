"""Training by time: `walkback run` with recipes of images, what it leaves, and how good that is."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from session import Done, Session

RECIPES: Mapping[str, Sequence[str]] = {
    "mnist": ("--batch-size", "128"),
    "cifar10": ("--batch-size", "256"),
}
"""Batch sizes for a large card: walks are short of work for it, not of memory."""

FULL = (
    *("--steps", "1000000", "--set", "training.validate_every=500", "--set", "training.checkpoint_every=1000000"),
    *("--set", "training.sample_every=0", "--set", "evaluation.limit=1000"),
    *("--set", "samples.chain_steps=2000", "--set", "samples.chain_every=200"),
)
TINY = (
    *("--steps", "4", "--batch-size", "2", "--set", "operator.channels=[8,8]", "--set", "operator.blocks=1"),
    *("--set", "training.validation_examples=2", "--set", "training.log_every=1", "--set", "evaluation.limit=4"),
    *("--set", "samples.num=4", "--set", "samples.chains=2", "--set", "samples.chain_steps=4"),
    *("--set", "samples.chain_every=2", "--set", "schedule.{}"),
)
SCHEDULES: Mapping[str, str] = {"mnist": "temperatures=[1,4]", "cifar10": "max_temperature=4"}
"""Short walks of the tiny runs."""

EVALUATION = ("--limit", "200", "--paths", "16", "--simulated", "0", "--samples", "500", "--no-baselines")
TINY_EVALUATION = ("--limit", "4", "--paths", "2", "--simulated", "0", "--samples", "4", "--no-baselines")
OVERHEAD = 40.0
"""Seconds of a recipe beside its training: start, data, evaluation, samples, chain."""

LARGEST = 15_000_000
"""Bytes of a checkpoint that is still taken along."""


def seconds_for(minutes: float) -> float:
    """Time for all recipes that train for so many minutes each."""
    return len(RECIPES) * (60 * minutes + OVERHEAD)


def run(session: Session, end: float, minutes: float | None = None) -> None:
    """Train one recipe after the other; without `minutes`, as long as there is time."""
    found: dict[str, Any] = {}
    session.results["train"] = found
    for number, recipe in enumerate(RECIPES):
        share = (end - time.time()) / (len(RECIPES) - number)
        own = minutes if minutes is not None else max(0.05, (share - OVERHEAD) / 60)
        until = end if minutes is not None else time.time() + share
        found[recipe] = {"minutes": own}
        _train(session, recipe, own, until, found[recipe])
        session.keep()


def _train(session: Session, recipe: str, minutes: float, end: float, found: dict[str, Any]) -> None:
    """Train, keep what is there, then measure it as far as time allows, and keep that too."""
    place = session.work / recipe
    options = [word.format(SCHEDULES[recipe]) for word in TINY] if session.tiny else [*RECIPES[recipe], *FULL]
    done = session.walkback(
        *("run", "--recipe", recipe, "--set", f"training.minutes={minutes:.4g}", *options),
        *("--device", session.device, "--out", str(place), "--json"),
        seconds=end - time.time(),
    )
    found.update(_document(done, place / "run.json"))
    _pack(session, recipe, place, found)
    session.keep()
    checkpoint = place / "final.safetensors"
    if checkpoint.is_file():
        found["evaluation"] = _evaluate(session, checkpoint, end)
        _pack(session, recipe, place, found)


def _evaluate(session: Session, checkpoint: Path, end: float) -> dict[str, Any]:
    """The figures of `walkback evaluate`."""
    done = session.walkback(
        *("evaluate", str(checkpoint), *(TINY_EVALUATION if session.tiny else EVALUATION)),
        *("--device", session.device, "--json"),
        seconds=end - time.time(),
    )
    document = _document(done, checkpoint.with_name("evaluation.json"))
    return {
        "problem": document["problem"],
        "figures": [
            {key: figure[key] for key in ("name", "value", "unit", "error")} for figure in document.get("figures", ())
        ],
    }


def _document(done: Done, file: Path) -> dict[str, Any]:
    """What a command printed, which goes to a file beside the run; and its problem."""
    if done.problem:
        return {"problem": done.problem}
    file.write_text(done.out)
    return {**json.loads(done.out), "problem": ""}


def _pack(session: Session, recipe: str, place: Path, found: dict[str, Any]) -> None:
    """One archive of what the run leaves: configuration, metrics, pictures, documents, the final checkpoint."""
    wanted = [*place.glob("*.toml"), *place.glob("*.json*"), *place.glob("samples/*"), place / "final.safetensors"]
    files = [file for file in wanted if file.is_file()]
    too_large = [file.name for file in files if file.stat().st_size > LARGEST]
    found["left out"] = too_large
    temporary = session.out / f".{recipe}.tar"
    with tarfile.open(temporary, "w") as archive:
        for file in files:
            if file.name not in too_large:
                archive.add(file, f"{recipe}/{file.relative_to(place)}")
    temporary.replace(session.out / f"{recipe}.tar")
