"""Mutated recipes and configurations of runs, and the judgement of what comes of them.

    python -m tests.reliability.configuration_fuzz --count 500 --seed 0

A mutant is resolved, its data prepared and its model built (`walkback run --dry-run`), or it is refused in a sentence,
in bounded time and memory. The last line is a JSON record.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch
from tests.program import walkback
from tests.reliability.checkpoint_mutations import damage, edit
from tests.reliability.watched import CANARY, OverTime, Tally, a_sentence, limit_memory, within

from walkback.extensions.registry import Registry

SECONDS = 90.0
"""Most that one mutant may take, on a machine that is busy: a recipe may ask for thousands of layers, and gets them."""
MEMORY_MIB = 4096

_MLP = {"hidden": 8, "depth": 1}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_FAR = re.compile(r"(/usr|/|~.*|\.\.?|\.\./.*)\Z")
"""Places that a test does not search for images, and that the author of a recipe may name."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed file: its number, which file it was, what was done, and the bytes."""

    number: int
    base: str
    kind: str
    content: bytes


def whole_configurations(place: Path) -> dict[str, bytes]:
    """Recipes of small data, and the configuration of a run: the files that are mutated."""
    registry = Registry.discover([])
    names = ("digits", "swiss-roll", "circle", "mog")
    found = {
        recipe.spec.name: registry.recipe_text(recipe).encode()
        for recipe in registry.recipes()
        if recipe.spec.name in names
    }
    done = walkback(
        "run", "--set", "operator.network.hidden=8", "--steps", "1", "--out", place / "whole", "--dry-run"
    )
    assert done.code == 0, done.err
    shown = walkback("run", "--set", "operator.network.hidden=8", "--dry-run", "--json").document()
    return found | {"config.toml": tomli_w.dumps(_without_none(shown["config"])).encode()}


def _without_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_none(inner) for inner in value if inner is not None]
    return value


def _near(value: Any) -> Any:
    """Without paths to all the files of the machine."""
    if isinstance(value, dict):
        return {str(name): _near(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_near(inner) for inner in value]
    return CANARY if isinstance(value, str) and _FAR.match(value) else value


def mutants(bases: Mapping[str, bytes], seed: int, count: int, start: int = 0) -> Iterator[Mutant]:
    """`count` mutants from number `start` on; each follows from the whole files, the seed and its number alone."""
    names = list(bases)
    for number in range(start, start + count):
        rng = random.Random(f"{seed} {number}")
        base = names[number % len(names)]
        if rng.random() < 0.25:
            content, what = damage(bases[base], rng)
            yield Mutant(number, base, f"bytes: {what}", content)
            continue
        document = tomllib.loads(bases[base].decode())
        done = [edit(document, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        text = tomli_w.dumps(_near(_without_none(document)))
        yield Mutant(number, base, f"document: {', '.join(done)}", text.encode("utf-8", "surrogatepass"))


def judge(mutant: Mutant, place: Path) -> str:
    """What comes of a mutant: "refused" or "resolved".

    Raises:
        AssertionError: It is refused by another error than walkback's own, or the message is no sentence.
        OverTime: It takes too long.
    """
    if mutant.number % 3 == 0:
        directory = place / "run"
        (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
        (directory / "config.toml").write_bytes(mutant.content)
        words = ("run", "--resume", str(directory), "--dry-run")
    else:
        (place / "recipe.toml").write_bytes(mutant.content)
        words = ("run", "--recipe", str(place / "recipe.toml"), "--dry-run")
    with within(SECONDS):
        done = walkback(*words)
    assert "--debug for the traceback" not in done.err, done.err[-500:]
    assert done.code in (0, 1, 2), (done.code, done.err[-500:])
    errors = [line for line in done.err.split("\n") if line.startswith("error: ")]
    assert len(errors) == (done.code != 0), done.err[-500:]
    for line in errors:
        a_sentence(line)
    return "refused" if done.code else "resolved"


def fuzz(tally: Tally, count: int, start: int, place: Path) -> None:
    """Judge mutants; failures go to the tally, with what is needed to make the mutant again."""
    bases = whole_configurations(place)
    limit_memory(MEMORY_MIB)
    for mutant in mutants(bases, tally.seed, count, start):
        sys.stdout.write(
            f"{mutant.number} {mutant.base} {mutant.kind[:200]!r}\n"
        )  # the last is that of a crash
        sys.stdout.flush()
        began = time.monotonic()
        try:
            tally.outcomes[f"{mutant.kind.partition(':')[0]} {judge(mutant, place)}"] += 1
        except (Exception, OverTime) as error:
            tally.failures.append(f"{mutant.number} {mutant.base} {mutant.kind[:200]}: {error!r:.300}")
        tally.slowest = max(tally.slowest, time.monotonic() - began)


def main() -> None:
    """Judge mutants, and print what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tally = Tally("configurations", chosen.seed)
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        os.environ.update(_OFFLINE, WALKBACK_CACHE=f"{scratch}/cache")
        fuzz(tally, chosen.count, chosen.start, Path(scratch))
    tally.write()


if __name__ == "__main__":
    main()
