"""Tables of which the law is known: what a run reaches, beside the truth and fitted models.

    python benchmarks/tables.py write DIR                                    # gaussian.csv, …, modes.csv, …
    for seed in 0 1 2; do walkback run --data DIR/modes.csv --seed $seed --out runs/modes-$seed; done
    python benchmarks/tables.py score modes runs/modes-0 runs/modes-1 runs/modes-2

`write` makes 10,000 rows of each law as .csv, .npy and .parquet; the values in all three are the same.

    gaussian    6 columns of mean 5 and 10^-2 to 10^3 in size, N(μ, Σ), all correlations 0.4
    modes       temperature   0.6 N(35, 1.5²) + 0.4 N(20, 1.5²)
                density       N(0.02 (temperature - 20) - 0.35 [of the first mode], 0.05²)
                load          100 + 2 temperature + 12 t_4

`score` prints, of each run, in the units of the columns: the bound on the rows held out for testing, -log p of the same
rows under the law, a Gaussian, and a mixture of four Gaussians fitted to the training rows; and of samples the largest
error of any column's mean, of its deviation (relative to the law's deviation), and of any correlation (relative to the
law's), beside the error of the same figure of the training rows. A load of four degrees of freedom has no fourth
moment: half the width of its middle 68 % stands for its deviation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.mixture import GaussianMixture

import walkback as wb
from walkback.data.tensors import TableData

ROWS = 10_000
SAMPLES = 200_000
SCALE = np.array([3.0, 14, 176, 0.23, 0.013, 728])
CORRELATION = 0.6 * np.eye(6) + 0.4


@dataclass(frozen=True)
class Law:
    """A law: its sampler `(n, rng) -> (n, D)`, its log-density `(n, D) -> (n,)`, and the names of its columns."""

    draw: Callable[[int, np.random.Generator], np.ndarray]
    log_density: Callable[[np.ndarray], np.ndarray]
    columns: tuple[str, ...]


def _gaussian(num: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((num, 6)) @ np.linalg.cholesky(CORRELATION).T * SCALE + 5 * SCALE


def _gaussian_log_density(rows: np.ndarray) -> np.ndarray:
    # In units of the scales: SciPy takes covariances of numbers this different for singular.
    return stats.multivariate_normal(cov=CORRELATION).logpdf(rows / SCALE - 5) - np.log(SCALE).sum()


def _modes(num: int, rng: np.random.Generator) -> np.ndarray:
    hot = rng.random(num) < 0.6
    temperature = np.where(hot, 35.0, 20.0) + 1.5 * rng.standard_normal(num)
    density = 0.02 * (temperature - 20) + 0.05 * rng.standard_normal(num) - 0.35 * hot
    load = 100 + 12 * rng.standard_t(4, num) + 2 * temperature
    return np.stack([temperature, density, load], axis=1)


def _modes_log_density(rows: np.ndarray) -> np.ndarray:
    temperature, density, load = rows.T
    normal = stats.norm.logpdf
    hot = np.log(0.6) + normal(temperature, 35, 1.5) + normal(density, 0.02 * (temperature - 20) - 0.35, 0.05)
    cold = np.log(0.4) + normal(temperature, 20, 1.5) + normal(density, 0.02 * (temperature - 20), 0.05)
    return np.logaddexp(hot, cold) + stats.t.logpdf(load, 4, 100 + 2 * temperature, 12)


LAWS = {
    "gaussian": Law(_gaussian, _gaussian_log_density, tuple("abcdef")),
    "modes": Law(_modes, _modes_log_density, ("temperature", "density", "load")),
}


def table_of(law: Law, num: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Draw rows."""
    return pd.DataFrame(law.draw(num, np.random.default_rng(seed)), columns=law.columns)


def write(directory: Path) -> None:
    """Write both tables in three formats."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, law in LAWS.items():
        frame = table_of(law)
        frame.to_csv(directory / f"{name}.csv", index=False)
        frame.to_parquet(directory / f"{name}.parquet", index=False)
        np.save(directory / f"{name}.npy", frame.to_numpy())


def score(law: Law, runs: list[Path]) -> None:
    """Print a row for each run."""
    data = TableData(table_of(law))
    train, test = (data.info.values(data.examples(split)).numpy() for split in ("train", "test"))
    truth = -law.log_density(test)
    print(
        f"{len(test)} rows held out, nats:  law {truth.mean():.3f} ± {truth.std() / len(test) ** 0.5:.3f}",
        end="",
    )
    for name, parts in (("Gaussian", 1), ("mixture of 4", 4)):
        fitted = GaussianMixture(parts, random_state=0, reg_covar=0.0, tol=1e-6, max_iter=1000)
        centre, spread = train.mean(0), train.std(0)
        nats = np.log(spread).sum() - fitted.fit((train - centre) / spread).score((test - centre) / spread)
        print(f"   {name} {nats:.3f}", end="")
    exact = law.draw(4_000_000, np.random.default_rng(1))
    print(f"\n{'':24} bound  ± paths   less law   IS-NLL    mean  deviation  correlation (largest error, %)")
    print(f"{'training rows':24} {'':37}", _moments(train, exact))
    for path in runs:
        report = wb.evaluate(path, paths=16, limit=ROWS, progress=False)
        bound, spread_of_paths = report["bound"].value, report["bound_error_of_paths"].value
        states = wb.sample(path, num=SAMPLES, progress=False).states.numpy()
        print(
            f"{path.name:24} {bound:6.3f} ± {spread_of_paths:.3f}    {bound - truth.mean():+.3f}   "
            f"{report['is_nll'].value:6.3f}  ",
            _moments(states, exact),
            flush=True,
        )


def _moments(rows: np.ndarray, exact: np.ndarray) -> str:
    """Return the largest errors of mean, deviation and correlation in %, of which column."""
    spread = _spread(exact)
    mean = (rows.mean(0) - exact.mean(0)) / spread
    deviation = _spread(rows) / spread - 1
    upper = np.triu_indices(exact.shape[1], 1)
    correlation = np.corrcoef(rows.T)[upper] / np.corrcoef(exact.T)[upper] - 1
    return "  ".join(
        f"{100 * errors[np.abs(errors).argmax()]:+8.2f}" for errors in (mean, deviation, correlation)
    )


def _spread(rows: np.ndarray) -> np.ndarray:
    """Return half the width of the middle 68.27 %, one deviation of a normal column."""
    low, high = np.quantile(rows, [0.158655, 0.841345], axis=0)
    half: Any = (high - low) / 2
    return np.asarray(half)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write").add_argument("directory", type=Path)
    scoring = commands.add_parser("score")
    scoring.add_argument("law", choices=LAWS)
    scoring.add_argument("runs", type=Path, nargs="+")
    chosen = parser.parse_args()
    if chosen.command == "write":
        write(chosen.directory)
    else:
        score(LAWS[chosen.law], chosen.runs)


if __name__ == "__main__":
    main()
