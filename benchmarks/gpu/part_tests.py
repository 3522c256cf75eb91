"""`pytest -m cuda`: the tests for the device."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter

from session import Session

WORKERS = 4
"""Maximum number of processes that share the device, if there are enough cores."""

# Other library versions than those of development may warn: warnings are listed, and are not failures here.
PYTEST = "-m pytest -m cuda tests/cuda -v --tb=short -W default -p pytest_timeout -p no:cacheprovider"

_OUTCOME = re.compile(r"(?:^|\s)(PASSED|FAILED|ERROR|SKIPPED)\b")


def run(session: Session, end: float, _: float | None = None) -> None:
    """Runs the tests until the deadline; results until then count."""
    line = [sys.executable, *PYTEST.split(), f"--basetemp={session.work / 'pytest'}"]
    workers = min(WORKERS, (os.cpu_count() or 1) // 4)
    if workers > 1:
        line += ["-p", "xdist.plugin", "-n", str(workers)]
    variables = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "WALKBACK_TEST_DEVICE": session.device,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # read once; without it matrix products have no order of sums
    }
    if session.tiny:
        variables["WALKBACK_TEST_QUICK"] = "1"
    done = session.call(line, end - time.time(), variables)
    session.write("tests.txt", done.out + done.err)
    outcomes = (_OUTCOME.search(text) for text in done.out.splitlines() if " tests/" in f" {text}")
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.out, re.MULTILINE)
    session.results["tests"] = {
        "code": done.code,
        "seconds": done.seconds,
        "summary": (done.out.strip().splitlines() or [""])[-1].strip("= "),
        "decided": dict(Counter(found[1].lower() for found in outcomes if found)),
        "failed": sorted(set(failures)),
        "problem": done.problem,
    }
