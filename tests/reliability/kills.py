"""Runs that are killed, terminated and resumed until they are done, beside the same runs left in peace.

    python -m tests.reliability.kills --kills 100 --terms 50 --seed 0

Both must end with the same bits: weights, moments of the optimizer, what the random numbers follow from, metrics (but
for the seconds), configuration and pictures. The last line is a JSON record.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.program import digest, figures
from tests.reliability.forks import Call, Forks, Trap, forks
from tests.reliability.watched import Tally

from walkback.storage.tensorfile import read_tensors

STEPS = 18
_SETTINGS = (
    *("operator.network.hidden=8", "training.batch_size=8", "schedule.n1=2", "schedule.max_temperature=32"),
    *("training.checkpoint_every=2", "training.log_every=1", "training.validate_every=5"),
    *("training.sample_every=7", "training.validation_examples=12", "evaluation.limit=12", "samples.num=4"),
    *("samples.chains=2", "samples.extra=1", "samples.chain_steps=4", "samples.chain_every=2"),
)
_CHAINS = ("training.chains.share=0.25", "training.chains.pool=8", "training.chains.steps=2")
_SMALL = "operator.network.depth=1"
MODES: Mapping[str, tuple[str, ...]] = {
    "batch": (_SMALL,),
    "online": (_SMALL, "training.updates=online"),
    "stacked": (_SMALL, "training.updates=stacked"),
    "chains": (_SMALL, *_CHAINS, "training.chains.restart=0.2"),
    "heating chains": (_SMALL, *_CHAINS, "training.chains.direction=heating", "training.updates=online"),
    "average": (_SMALL, "training.ema=0.9", "operator.network.dropout=0.2"),
    "no average": (_SMALL, "training.ema=0", "training.lr_schedule=cosine", "training.warmup=4"),
    "patience": (_SMALL, "training.patience=3", "training.validate_every=2", "training.lr=0.02"),
    "batch norm": ("operator.name=gaussian-conv", "operator.network.channels=[2]"),
    "elbo": (_SMALL, "objective.name=elbo"),
    "classes": (_SMALL, "data.condition=label"),
    "rollback": (_SMALL, "training.on_nonfinite=rollback", "training.lr=1000", "training.clip=0"),
    "two processes": (_SMALL, "training.chains.share=0.25", "training.chains.pool=8"),
}
"""Ways to train, by the settings of a run."""

_SOON = 60.0
"""Seconds within which what was asked to end has ended, on any machine."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A way to train, and where: the directory of the run that is left in peace, its bits and its duration."""

    mode: str
    place: Path
    seconds: float = 0.0
    bits: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return 2 if self.mode == "two processes" else 1


def _sha(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _timeless(document: Any) -> Any:
    """A document without what differs between equal runs: the time they took."""
    if isinstance(document, dict):
        return {name: _timeless(value) for name, value in document.items() if name != "seconds"}
    return document


def bits(directory: Path, steps: int = STEPS) -> dict[str, str]:
    """SHA-256 of everything that two equal runs have in common."""
    state = max((directory / "checkpoints").glob("step-*.state.safetensors"), key=lambda path: _number(path))
    tensors, document = read_tensors(state)
    moments = {name: value for name, value in tensors.items() if name.startswith("optimizer.")}
    others = {name: value for name, value in tensors.items() if name not in moments}
    model = state.with_name(state.name.replace(".state", ""))
    pictures = sorted((directory / "samples").glob("*.png"))
    return {
        "model": digest(directory / "final.safetensors"),
        "last checkpoint": f"{_number(state)} {digest(model)}",
        "optimizer": _sha(*(name.encode() + moments[name].numpy().tobytes() for name in sorted(moments))),
        "weights and chains": _sha(
            *(name.encode() + others[name].numpy().tobytes() for name in sorted(others))
        ),
        "cursor and seed": json.dumps(_timeless(document["document"]), sort_keys=True),
        "metrics": json.dumps(figures(directory)),
        "configuration": digest(directory / "config.toml"),
        "pictures": " ".join(f"{path.name} {digest(path)}" for path in pictures),
    }


def _number(path: Path) -> int:
    return int(path.name.removeprefix("step-").partition(".")[0])


def words_of(mode: str, steps: int = STEPS) -> list[str]:
    """`walkback run` with the settings of a mode."""
    words = [word for setting in (*_SETTINGS, *MODES[mode]) for word in ("--set", setting)]
    return ["run", *words, "--steps", str(steps)]


@contextlib.contextmanager
def warm_forks(place: Path, modes: Iterable[str]) -> Iterator[Forks]:
    """Processes that have done, before they begin, what every run of these modes does once."""
    warming = [[*words_of(mode, 2), "--out", str(place / f"warming-{mode}")] for mode in modes]
    with forks({"WALKBACK_CACHE": str(place / "cache")}, warming) as server:
        yield server


def calls(subject: Subject, directory: Path, trap: Trap | None = None) -> list[Call]:
    """The processes of a run into `directory`, begun or gone on with."""
    arguments = [*words_of(subject.mode), "--out", str(directory), "--resume", "auto"]
    if subject.ranks == 1:
        return [Call(arguments, f"{directory}.log", trap=trap)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(subject.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        Call(arguments, f"{directory}.{rank}.log", {**world, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(subject.ranks)
    ]


def undisturbed(server: Forks, mode: str, place: Path) -> Subject:
    """A run left in peace; twice, and both are the same, or nothing would follow from a difference."""
    subject, found = Subject(mode, place), []
    for name in ("whole", "again"):
        directory = place / f"{mode.replace(' ', '-')}-{name}"
        began = time.monotonic()
        codes = server.ended(server.start(*calls(subject, directory)))
        seconds = time.monotonic() - began
        assert set(codes) == {0}, Path(calls(subject, directory)[0].log).read_text()
        found.append(bits(directory))
    assert found[0] == found[1], difference(*found)
    return Subject(mode, place, seconds, found[0])


def difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Which bits differ."""
    return ", ".join(name for name in wanted if found.get(name) != wanted[name])


Attempt: TypeAlias = Callable[[Forks, Subject, Path, int], list[int]]
"""Starts the run in a directory, for the n-th time, and strikes; returns the exit codes."""


def at_random_moments(number: signal.Signals, rng: random.Random) -> Attempt:
    """Sends a signal after a random time, to all processes or to one of them."""

    def attempt(server: Forks, subject: Subject, directory: Path, tried: int) -> list[int]:
        # The chances to come further grow, so that a machine that has become slow comes to an end as well.
        delay = rng.uniform(0, subject.seconds * (0.7 + 0.3 * tried))
        processes = server.start(*calls(subject, directory))
        victims = processes if rng.random() < 0.4 else [rng.choice(processes)]
        time.sleep(delay)
        for victim in victims:
            os.kill(victim, number)
        for other in set(processes) - set(victims):
            os.kill(other, signal.SIGTERM)  # as a launcher does
        return server.ended_soon(processes, _SOON)

    return attempt


def at_operations(number: signal.Signals, rng: random.Random) -> Attempt:
    """Strikes just before a random operation that changes a file; some attempts do not come to a checkpoint."""

    def attempt(server: Forks, subject: Subject, directory: Path, tried: int) -> list[int]:
        trap = Trap(rng.randint(1, 30 + 10 * tried), number, str(directory) + os.sep)
        return server.ended_soon(server.start(*calls(subject, directory, trap)), _SOON)

    return attempt


def disturbed(
    server: Forks, subject: Subject, number: signal.Signals, attempt: Attempt, name: str
) -> Iterator[str]:
    """Strike a run until it is done; yields how each attempt ended.

    Raises:
        AssertionError: An attempt ended in another way than by the signal, or the whole is not what it should be.
    """
    directory = subject.place / name
    for tried in range(100):
        codes = attempt(server, subject, directory, tried)
        messages = "".join(Path(call.log).read_text() for call in calls(subject, directory))
        # Another process than the one that was struck says that it has lost it, or that it was asked to end.
        others = {1, 128, 128 + signal.SIGTERM, -signal.SIGTERM} if subject.ranks > 1 else set()
        assert set(codes) <= {0, -number, 128 + number} | others, (codes, messages[-800:])
        assert subject.ranks > 1 or "Traceback" not in messages, messages[-800:]
        if set(codes) == {0}:
            found = bits(directory)
            assert found == subject.bits, f"different: {difference(found, subject.bits)}"
            assert not list(directory.rglob(".walkback-*")), "temporary files are left"
            yield "done"
            return
        yield "at work" if list(directory.glob("checkpoints/*.json")) else "before a checkpoint"
    raise AssertionError("It never came to an end.")


def campaign(
    server: Forks, tally: Tally, place: Path, modes: list[str], wanted: Mapping[signal.Signals, int]
) -> None:
    """Strike runs of every mode, at random moments and at random operations, until so many signals have struck."""
    subjects = {mode: undisturbed(server, mode, place) for mode in modes}
    for number, count in wanted.items():
        struck: Counter[str] = Counter()
        rounds = 0
        while struck.total() < count:
            mode = modes[rounds % len(modes)]
            rng = random.Random(f"{tally.seed} {number.name} {rounds}")
            single = subjects[mode].ranks == 1
            kind = at_operations if single and rounds // len(modes) % 2 else at_random_moments
            try:
                attempt = kind(number, rng)
                for end in disturbed(server, subjects[mode], number, attempt, f"{number.name}-{rounds}"):
                    tally.outcomes[f"{number.name} {mode}: {end}"] += 1
                    struck[mode] += end != "done"
            except AssertionError as error:
                tally.failures.append(f"{number.name} {mode}, round {rounds}: {error!s:.900}")
                struck[mode] += 1
            rounds += 1
            sys.stdout.write(f"{number.name} {struck.total()} of {count}, {mode}\n")
            sys.stdout.flush()


def main() -> None:
    """Kill and terminate, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--terms", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", action="append", choices=[*MODES])
    chosen = parser.parse_args()
    tally = Tally("kills", chosen.seed)
    modes = chosen.mode or [*MODES]
    with tempfile.TemporaryDirectory() as scratch, warm_forks(Path(scratch), modes) as server:
        wanted = {signal.SIGKILL: chosen.kills, signal.SIGTERM: chosen.terms}
        campaign(server, tally, Path(scratch), modes, wanted)
    tally.write()


if __name__ == "__main__":
    main()
