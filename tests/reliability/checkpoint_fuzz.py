"""Mutated checkpoints through `info`, `load`, `sample` and `evaluate`, and the judgement of what comes of them.

    python -m tests.reliability.checkpoint_fuzz --count 500 --seed 0

A mutant is refused in a sentence, or it is used: then what is drawn and measured is finite. In either case it decides
nothing about files, hosts, programs or modules, and takes bounded time and memory. The last line is a JSON record.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from tests.program import walkback
from tests.reliability.checkpoint_mutations import Mutant, mutants
from tests.reliability.watched import OverTime, Tally, a_sentence, limit_memory, nothing_chosen, within

import walkback as wb
from walkback.errors import WalkbackError
from walkback.storage.tensorfile import read_tensors

FORMATS = Path(__file__).parents[1] / "formats"
SECONDS = 20.0
"""Most that one mutant may take, on a machine that is busy with other things."""
MEMORY_MIB = 2048
"""Most that may be mapped beyond what imports and whole checkpoints take."""

_MLP = ("--set", "operator.network.hidden=8", "--set", "operator.network.depth=1")
_CONV = ("--set", "operator.network.hidden=4", "--set", "operator.network.channels=[2]")
_SETTINGS = (
    *("schedule.n1=3", "schedule.max_temperature=16", "evaluation.limit=8", "training.validation_examples=8"),
    *("samples.num=4", "samples.chains=2", "samples.chain_steps=2", "samples.chain_every=1"),
)
BASES: Mapping[str, tuple[str, ...]] = {
    "gaussian": ("--operator", "gaussian-mlp", "--data", "digits", *_MLP),
    "bernoulli": (
        *("--operator", "bernoulli-mlp", "--data", "digits", "--set", "data.binarize=threshold"),
        *_MLP,
    ),
    "points": ("--operator", "gaussian-mlp", "--data", "swiss-roll", *_MLP),
    "conv": ("--operator", "gaussian-conv", "--data", "digits", *_CONV),
    "classes": ("--operator", "gaussian-mlp", "--data", "digits", "--set", "data.condition=label", *_MLP),
}
"""Models of which there are mutants, by the options of the run; `tests/formats` has more, of older formats."""


def whole_checkpoints(place: Path) -> dict[str, bytes]:
    """The files that are mutated."""
    settings = [word for setting in _SETTINGS for word in ("--set", setting)]
    found = {}
    for name, options in BASES.items():
        out = place / name
        done = walkback("run", *options, *settings, "--steps", "2", "--batch-size", "4", "--out", out)
        assert done.code == 0, done.err
        found[name] = (out / "final.safetensors").read_bytes()
    old = sorted(FORMATS.glob("*/*ian.safetensors"))
    return found | {f"{path.parent.name}-{path.stem}": path.read_bytes() for path in old}


def judge(mutant: Mutant, place: Path) -> str:
    """What comes of a mutant: "refused", "stopped" (it loads, and then there is an error of walkback), or "used".

    Raises:
        AssertionError: A message is no sentence, something is not finite, or the file has chosen what is touched.
        OverTime: It takes too long.
        Exception: Another error than walkback's own.
    """
    file = place / "mutant.safetensors"
    file.write_bytes(mutant.content)
    with within(SECONDS), nothing_chosen():
        _judge_info(file)
        try:
            model = wb.load(file, device="cpu")
        except WalkbackError as error:
            a_sentence(str(error))
            return "refused"
        try:
            drawn = wb.sample(model, 2, extra=1, progress=False)
            _require_finite("samples", drawn.states)
            if mutant.number % 4 == 0:
                _judge_command(file, place / "drawn.safetensors")
            if mutant.number % 2 == 0:
                _judge_evaluation(model)
        except WalkbackError as error:
            a_sentence(str(error))
            return "stopped"
    return "used"


def _judge_info(file: Path) -> None:
    """`walkback info` shows or refuses, on lines that forge nothing."""
    done = walkback("info", file)
    _require_plain(done.out, done.err, done.code, (0, 2, 4))


def _require_plain(out: str, err: str, code: int, codes: tuple[int, ...]) -> None:
    assert code in codes, (code, err[-500:])
    assert "--debug for the traceback" not in err, err[-500:]
    for line in (*out.split("\n"), *err.split("\n")):
        assert line.isprintable(), line[:200]
    assert len(out) + len(err) < 2**20
    assert sum(line.startswith("error") for line in err.split("\n")) == (code != 0), err[:500]


def _judge_command(file: Path, out: Path) -> None:
    """`walkback sample` leaves a file of finite states, or none."""
    out.unlink(missing_ok=True)
    done = walkback("sample", file, "--num", "2", "--device", "cpu", "--out", out)
    _require_plain(done.out, done.err, done.code, (0, 1, 2, 4))
    assert out.exists() == (done.code == 0)
    if done.code == 0:
        _require_finite("file", read_tensors(out)[0]["states"])
    assert not list(out.parent.glob(".walkback-*"))


def _judge_evaluation(model: wb.Trained) -> None:
    """`evaluate` on the data that the file names gives figures that are numbers."""
    report = wb.evaluate(
        model, limit=4, paths=2, simulated=0, baselines=False, levels=5, device="cpu", progress=False
    )
    for figure in report.figures:
        for value in (figure.value, figure.error, *(figure.interval or ())):
            assert value is None or math.isfinite(value), figure


def _require_finite(what: str, values: torch.Tensor) -> None:
    assert bool(values.isfinite().all()), f"{what} are not finite"


def fuzz(tally: Tally, count: int, start: int, place: Path) -> None:
    """Judge mutants; failures go to the tally, with what is needed to make the mutant again."""
    bases = whole_checkpoints(place)
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
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tally = Tally("checkpoints", chosen.seed)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["WALKBACK_CACHE"] = f"{scratch}/cache"
        fuzz(tally, chosen.count, chosen.start, Path(scratch))
    tally.write()


if __name__ == "__main__":
    main()
