"""Agents of torchrun on one machine, as on two: what a lost process ends, and how training goes on.

They take minutes: `pytest -m slow tests/test_agents.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.program import ENVIRONMENT, PATIENCE, TINY, children_of, finish, is_running, records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc"),
]

MINUTE = 60.0
"""Within which all agents must have ended after the loss of a process."""

TRAINING = ("run", *TINY, "--no-pictures", "--set", "training.checkpoint_every=20", "--resume", "auto")


@contextlib.contextmanager
def agents(
    directory: Path, number: int, restarts: int, steps: int = 1_000_000
) -> Iterator[list[subprocess.Popen[str]]]:
    """Agents that start two processes together; they end with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    launcher = ["-m", "torch.distributed.run", "--nnodes", str(number), "--nproc-per-node", str(2 // number)]
    launcher += ["--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    words = [*launcher, "-m", "walkback", *TRAINING, "--steps", str(steps), "--out", str(directory)]
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "WORLD_SIZE"}
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *words],
                    env=environment,
                    text=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            )
            for _ in range(number)
        ]
        try:
            yield started
        finally:
            for agent in started:
                agent.terminate()
            for agent in started:
                agent.wait(PATIENCE)


def main_of(directory: Path) -> int:
    """The process that writes the run directory."""
    return int((directory / ".lock").read_text())


def await_checkpoint(directory: Path, beyond: int, running: list[subprocess.Popen[str]]) -> int:
    """Wait for a checkpoint of more than `beyond` walks, and return its number of walks."""
    deadline = time.monotonic() + PATIENCE
    while True:
        steps = [int(file.stem[5:]) for file in (directory / "checkpoints").glob("step-*.json")]
        if max(steps, default=0) > beyond:
            return max(steps)
        assert [agent.poll() for agent in running] == [None] * len(running)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_lost_process_ends_two_agents_and_the_same_command_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    with agents(directory, 2, 0) as pair:
        await_checkpoint(directory, 0, pair)
        workers = [worker for agent in pair for worker in children_of(agent)]
        assert len(workers) == 2
        (other,) = set(workers) - {main_of(directory)}
        kept = await_checkpoint(directory, 0, pair)
        os.kill(other, signal.SIGKILL)
        deadline = time.monotonic() + MINUTE
        said = [agent.communicate(timeout=deadline - time.monotonic())[1] for agent in pair]
        assert all(agent.returncode for agent in pair)
        assert [worker for worker in workers if is_running(worker)] == []
    assert len(re.findall(r"exitcode: -9\)|Signal 9 \(SIGKILL\)", "".join(said))) > 0
    assert "".join(said).count("error: Another process of this job has ended") == 1
    steps = max(int(file.stem[5:]) for file in (directory / "checkpoints").glob("step-*.json")) + 5
    with agents(directory, 2, 0, steps) as pair:
        done = [finish(agent) for agent in pair]
        assert [each.code for each in done] == [0, 0], [each.err for each in done]
    assert steps > kept
    assert (directory / "final.safetensors").exists()
    assert [line["step"] for line in records(directory) if "validation_nats" in line] == [steps]


@pytest.mark.parametrize(("number", "lost"), [(1, "main"), (2, "other")])
def test_agents_restart_lost_processes_from_the_last_checkpoint(
    tmp_path: Path, number: int, lost: str
) -> None:
    directory = tmp_path / "a"
    with agents(directory, number, 1) as running:
        kept = await_checkpoint(directory, 0, running)
        workers = {worker for agent in running for worker in children_of(agent)}
        main = main_of(directory)
        os.kill(main if lost == "main" else (workers - {main}).pop(), signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while main_of(directory) == main:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        last = max(int(file.stem[5:]) for file in (directory / "checkpoints").glob("step-*.json"))
        assert await_checkpoint(directory, last, running) > kept
        again = {worker for agent in running for worker in children_of(agent)}
        assert len(again) == 2
        assert not workers & again
    steps = [line["step"] for line in records(directory)]
    assert steps == sorted(set(steps))  # as of one uninterrupted run
