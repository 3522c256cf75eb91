"""The device of these tests, or why they are skipped."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """CUDA, or the device that `WALKBACK_TEST_DEVICE` names, so that the same tests run where there is no GPU."""
    name = os.environ.get("WALKBACK_TEST_DEVICE", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device; WALKBACK_TEST_DEVICE=cpu runs these tests on the CPU")
    return torch.device(name)


@pytest.fixture
def patient() -> None:
    """Of tests that take long on a CPU: compiling a network takes a minute, training a classifier seconds."""
    if os.environ.get("WALKBACK_TEST_QUICK"):
        pytest.skip("too slow for one core in a hurry; unset WALKBACK_TEST_QUICK to run it")
