"""`pytest -m cuda`: what must hold on the device."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter

from session import Session

WORKERS = 4
"""Processes that share the device, where there are cores for them."""

_OUTCOME = re.compile(r"(?:^|\s)(PASSED|FAILED|ERROR|SKIPPED)\b")


def run(session: Session, end: float) -> None:
    """Run the tests until the time is up; what has been decided by then counts."""
    line = [sys.executable, "-m", "pytest", "-m", "cuda", "tests/cuda", "-v", "-p", "pytest_timeout"]
    # Warnings of other versions than those walkback is developed with are listed, and are no failures here.
    line += ["-W", "default", "-p", "no:cacheprovider", f"--basetemp={session.work / 'pytest'}", "--tb=short"]
    workers = min(WORKERS, (os.cpu_count() or 1) // 2)
    if workers > 1:
        line += ["-p", "xdist.plugin", "-n", str(workers)]
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "WALKBACK_TEST_DEVICE": session.device}
    if session.tiny:
        variables["WALKBACK_TEST_QUICK"] = "1"
    done = session.call(line, end - time.time(), variables)
    session.write("tests.txt", done.out + done.err)
    counts = Counter(match[1].lower() for text in done.out.splitlines() if (match := _OUTCOME.search(text)))
    session.results["tests"] = {
        "problem": done.problem if done.code is None else "",
        "failed": sorted(set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.out, re.MULTILINE))),
        "seconds": done.seconds,
        "counts": dict(counts),
        "code": done.code,
    }
