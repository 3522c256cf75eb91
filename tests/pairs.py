"""Two processes of one test, which exchange tensors with gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.program import ENVIRONMENT, PATIENCE

PAIR = """
import hashlib, json, os, sys
import torch
from torch import nn
import torch.distributed as dist
import walkback as wb
from walkback.errors import ConfigurationError
from walkback.storage.tensorfile import read_tensors
from walkback.support.world import World

def pair(work):
    \"\"\"Run `work(world)` in two processes; writes what each returns to a file of its rank.\"\"\"
    children = []
    for rank in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                torch.set_num_threads(1)
                dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
                answer = work(World(rank, 2))
                dist.destroy_process_group()
                with open(f"{sys.argv[1]}-{rank}", "w") as file:
                    json.dump(answer, file)
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
"""


def together(code: str, tmp_path: Path) -> tuple[list[Any], str]:
    """What two processes that ran the code returned, and what it printed."""
    meeting = tmp_path / "meeting"
    line = [sys.executable, "-c", PAIR + code, str(meeting)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        line, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / f"meeting-{rank}").read_text()) for rank in range(2)], done.stdout
