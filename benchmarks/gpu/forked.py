"""`walkback` in processes that start in milliseconds: forked from this one, after the slow imports.

Nothing here may use CUDA before a fork, because the child of a process that has used CUDA cannot use it. Device
properties are therefore queried in other processes, see `machine.py`.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import TimeoutExpired

HEAVY = ("torch", "torch._dynamo", "scipy.stats", "sklearn.datasets", "datasets")
"""Modules that every computing command of walkback imports."""

TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
"""PyTorch reads this variable on import, which happens before the fork."""

_STEP = 0.02


class Forked:
    """`walkback` with some arguments, in a child of this process and a process group of its own.

    Args:
        arguments: Arguments of `walkback`.
        environment: The complete environment of the child.
        directory: Working directory.
        out: File for stdout.
        err: File for stderr.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], directory: Path, out: Path, err: Path
    ) -> None:
        for name in HEAVY:
            importlib.import_module(name)
        (script,) = entry_points(group="console_scripts", name="walkback")
        program = script.load()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            _become(environment, directory, out, err)
            sys.argv = ["walkback", *arguments]
            program()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds: float) -> int:
        """Exit code of the child, a negative signal where one ended it.

        Raises:
            TimeoutExpired: It is still there after so many seconds.
        """
        end = time.monotonic() + seconds
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                raise TimeoutExpired("walkback", seconds)
            time.sleep(_STEP)


def _become(environment: Mapping[str, str], directory: Path, out: Path, err: Path) -> None:
    """Let this process be one of its own, as a new one would be."""
    import torch

    os.setsid()
    for target, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644), target)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    if environment.get(TF32) == "1":
        torch.set_float32_matmul_precision("high")
