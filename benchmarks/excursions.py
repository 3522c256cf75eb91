"""Mixing of steps at T = 1 and of chains there and back, at equal cost in runs of the network.

    python benchmarks/excursions.py runs/gaussian-mlp-digits/final.safetensors
    python benchmarks/excursions.py runs/mog/final.safetensors

For each kind of chain, of data with classes:

    runs         network runs per step
    classes      number of classes that a chain visits in 1,000 runs (class of the nearest training state)
    τ            autocorrelation time of the slowest statistic of `walkback diagnose mixing`, in runs; > x: at least x
    mixed        p-value of chains with the same law, in `walkback diagnose mixing`
    sure         share of the last states that a classifier (a support vector machine on training states) is at least
                 90 % sure of
    entropy      entropy of its predicted classes, nats
    nearest      mean distance to the nearest training state
    reversible   p-value of the rank test of detailed balance, `walkback diagnose reversibility`
    seconds      of all chains

± are standard errors over chains. Chains start at annealed samples, take half of the runs as burn-in, and are recorded
for the other half. Data are held-out examples after one step at T = 1.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sklearn.svm import SVC
from torch import Tensor

from walkback.building.assembly import build_dataset, load_model
from walkback.configuration.config import component
from walkback.diagnostics import Subject
from walkback.extensions.registry import Registry
from walkback.measuring.traces import settle, trace
from walkback.model import Model
from walkback.operators import visible
from walkback.report import Figure
from walkback.sampling import COLD, chain, last
from walkback.sampling.excursions import there_and_back
from walkback.sampling.wrapped import Compound
from walkback.walk import Transition
from walkback_diagnostics.mixing import principal_axes
from walkback_diagnostics.mixing_report import figures_of_statistics
from walkback_diagnostics.neighbours import Neighbours, entropy, neighbours
from walkback_diagnostics.rank_test import rank_test

WINDOW = 1000
"""Runs in which visited classes are counted."""

COLUMNS = ("runs", "classes", "τ in runs", "mixed", "sure", "entropy", "nearest", "reversible", "seconds")


@dataclass(frozen=True)
class Judge:
    """A classifier and the training states that distances are measured to."""

    classifier: SVC
    known: Neighbours

    def row(self, states: Tensor) -> tuple[str, str, str]:
        """Share of sure states, class entropy and distance, of states `(N, *E)`."""
        found = torch.from_numpy(self.classifier.predict_proba(states.flatten(1).numpy()))
        shares = torch.bincount(found.argmax(1), minlength=found.shape[1]) / len(found)
        sure = (found.amax(1) >= 0.9).double()
        distance = self.known.nearest(states)[0].double()
        return with_error(sure), f"{entropy(shares):.2f}", with_error(distance)


@dataclass(frozen=True)
class Sizes:
    """Number of chains, and network runs of each."""

    chains: int
    runs: int


def with_error(values: Tensor, digits: int = 2) -> str:
    """Mean of independent values ± its standard error."""
    error = float(values.std()) / math.sqrt(len(values))
    return f"{float(values.mean()):.{digits}f} ± {error:.{digits}f}"


def judge_of(subject: Subject) -> Judge:
    """A classifier of training states after a step at T = 1, whose noise chains have too."""
    known = neighbours(subject)
    if known.labels is None:
        raise SystemExit("The data of this checkpoint have no classes.")
    states = known.states + known.mean
    rows = states.reshape(-1, *subject.info.space.shape)
    stepped = step_from(subject, rows, "classifier")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the way scikit-learn will calibrate in future
        classifier = SVC(probability=True, C=10, random_state=0)
        classifier.fit(stepped.flatten(1).numpy(), known.labels.numpy())
    return Judge(classifier, known)


def step_from(subject: Subject, states: Tensor, stream: str) -> Tensor:
    """States after one step at T = 1."""
    operator = subject.model.operator
    return visible(operator, last(chain(operator, states, 1, subject.generator(stream))))


def classes_visited(visited: Tensor, runs: int) -> Tensor:
    """Mean number of classes that each chain visits in `WINDOW` runs, `(C,)`, of classes `(N, C)` after each step."""
    length = max(1, WINDOW // runs)
    windows = visited[: len(visited) // length * length].long().reshape(-1, length, visited.shape[1])
    here = torch.nn.functional.one_hot(windows).amax(1)  # (W, C, K)
    return here.sum(-1).double().mean(0)


def shown_time(figure: Figure, runs: int) -> str:
    """An autocorrelation time in runs."""
    value = figure.value * runs
    if figure.side is not None:
        return f"{'>' if figure.side == 'below' else '<'} {value:,.0f}"
    return f"{value:,.0f} ± {(figure.error or 0.0) * runs:,.0f}"


def measured(subject: Subject, judge: Judge, runs: int, sizes: Sizes) -> tuple[str, ...]:
    """The columns of one kind of chain."""
    steps = max(40, sizes.runs // 2 // runs)
    operator = subject.model.operator
    mean, axes = principal_axes(subject, 4)

    def statistics(step: Transition) -> Tensor:
        states = visible(operator, step.target)
        rows = states.double().flatten(1) - mean
        squares, kind = rows.square().sum(1, keepdim=True), judge.known.nearest(states)[1].double()
        return torch.cat([rows @ axes, squares, kind[:, None]], 1)

    began = time.perf_counter()
    start = settle(subject, subject.start("annealed", sizes.chains), COLD, steps)
    ran = trace(subject, start, COLD, steps, statistics, name="chains", blocks=steps, reduce="last")
    seconds = time.perf_counter() - began
    kept = ran.values[:: -(-steps // 5000), :, :-1]
    names = (*(f"axis_{number}" for number in range(axes.shape[1])), "squared_norm")
    found, _, _ = figures_of_statistics(kept, names, -(-steps // 5000))
    figures = {figure.name: figure for figure in found}
    ranked = rank_test(subject, replace(start, state=ran.state), COLD, 15, 3)
    sure, spread, nearest = judge.row(visible(operator, ran.state).float())
    return (
        str(runs),
        with_error(classes_visited(ran.values[..., -1], runs)),
        shown_time(figures["autocorrelation_time"], runs),
        f"{figures['mixed_p'].value:.1g}",
        sure,
        spread,
        nearest,
        f"{ranked.corrected:.1g}",
        f"{seconds:.0f}",
    )


def line(name: str, cells: tuple[str, ...]) -> None:
    """Print one row."""
    widths = (5, 13, 17, 7, 12, 8, 12, 11, 8)
    print(f"{name:16s}" + "".join(f"{c:>{w}s}" for c, w in zip(cells, widths, strict=True)), flush=True)


def main(path: Path, depths: list[int], sizes: Sizes) -> None:
    """Compare the kinds of chain of one checkpoint."""
    registry = Registry.discover()
    loaded = load_model(path, registry, torch.device("cpu"))
    table: dict[str, Any] = {**loaded.checkpoint.description.config["data"]}
    dataset = build_dataset(component(registry, "data", table), registry)
    dataset.prepare()
    subject = Subject(loaded.model, loaded.info, lambda: dataset)
    levels = len(loaded.model.levels())
    with loaded.computing():
        judge = judge_of(subject)
        held_out = subject.held_out("test", min(500, len(dataset.examples("test")))).states
        line("", COLUMNS)
        cells = judge.row(step_from(subject, held_out, "held-out"))
        line("data", ("", "", "", "", *cells, "", ""))
        line("steps at T = 1", measured(subject, judge, 1, sizes))
        for depth in sorted({*(d for d in depths if d <= levels), levels // 2, levels}):
            model: Model = there_and_back(loaded.model, depth)
            runs = model.operator.runs if isinstance(model.operator, Compound) else 1
            line(f"excursions, {depth}", measured(replace(subject, model=model), judge, runs, sizes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--excursions", type=int, nargs="*", default=[2, 5], help="levels, beside K/2 and K")
    parser.add_argument("--chains", type=int, default=100, help="number of chains")
    parser.add_argument(
        "--runs", type=int, default=20_000, help="network runs per chain, half of them burn-in"
    )
    torch.set_num_threads(1)
    options = parser.parse_args()
    main(options.checkpoint, options.excursions, Sizes(options.chains, options.runs))
