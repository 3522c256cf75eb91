"""What sharing one forward between heating and cooling buys, and a normal density: ratios, variants interleaved.

    python benchmarks/walk.py [--threads 1] [--rounds 7]

What can be configured (updates, precision) is measured by `walkback bench`; the reference walk cannot be. Read the
ratios, not the seconds: machines are shared, and their speed drifts. Each variant does the same K = 11 walk of 128
digits with the default recipe's network; a round times every variant once, in turn, and medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch.distributions import Independent, Normal

from walkback.kernels import NormalKernel
from walkback.operators import TransitionOperator
from walkback.processes import TiedProcess
from walkback.schedules import levels_from
from walkback.state import Space
from walkback.support.seeding import generator
from walkback.testing.reference import reference_walk
from walkback.walk import Start, Transition, walk
from walkback_networks.mlp import MLP
from walkback_paper.gaussian import Gaussian

LEVELS = levels_from([1.0] * 5 + [2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
ROWS = 128


def learn(steps: Iterable[Transition], operator: TransitionOperator) -> None:
    """One batch update's worth of backward passes."""
    operator.zero_grad()
    for step in steps:
        (-step.log_p.mean() / len(LEVELS)).backward()


def medians(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each variant, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(title: str, found: dict[str, float]) -> None:
    """Print each variant's speed relative to the first."""
    print(f"\n{title}")
    reference = next(iter(found.values()))
    for name, seconds in found.items():
        print(f"  {name:44s} {1e3 * seconds:8.2f} ms   ×{reference / seconds:.2f}")


def walks(rounds: int) -> None:
    """Gradients of one walk."""
    torch.manual_seed(0)
    operator = Gaussian(Space((1, 8, 8)), MLP(hidden=256))
    data = torch.rand(ROWS, 1, 8, 8)
    process = TiedProcess()

    def heat(kind: Callable[..., Iterable[Transition]]) -> None:
        learn(kind(operator, process.heating, Start(data), LEVELS, generator("cpu", 0, "bench")), operator)

    found = medians(
        {
            "two forwards a step (reference walk)": partial(heat, reference_walk),
            "one forward a state (walk)": partial(heat, walk),
        },
        rounds,
    )
    report("Gradients of one walk, K = 11, B = 128", found)


def densities(rounds: int) -> None:
    """log N(x; μ, v) against torch.distributions."""
    mean, x = torch.randn(100, 784), torch.randn(100, 784)
    variance = torch.rand(1, 784) + 0.1
    found = medians(
        {
            "torch.distributions, validated": lambda: [
                Independent(Normal(mean, variance.sqrt()), 1).log_prob(x) for _ in range(50)
            ],
            "NormalKernel": lambda: [NormalKernel(mean, variance).log_prob(x) for _ in range(50)],
        },
        rounds,
    )
    report("log-density of 100 × 784, 50 times", found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    walks(options.rounds)
    densities(options.rounds)
