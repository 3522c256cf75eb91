"""Figures with errors from heated examples: bound, importance sampling, bracket, gap by level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from walkback.data import DataInfo
from walkback.measuring.bound import BoundEstimate, likelihood_in_words
from walkback.measuring.estimates import mean_figure, nll_figures, share_figure
from walkback.measuring.likelihood import (
    DOMINANT,
    FEWEST_FOR_TAIL,
    HEAVY_TAIL,
    by_paths,
    capped_nll,
    is_variance,
    pareto_k,
    path_variance,
    shares,
)
from walkback.measuring.path_works import HeatedExamples
from walkback.measuring.work import effective_sample_size, exponential_average
from walkback.report import Figure, Series
from walkback.schedules import Levels

NLL = "negative log-likelihood (nats)"


def likelihood_figures(heated: HeatedExamples, info: DataInfo) -> list[Figure]:
    """Return bound and importance-sampled NLL with the parts of their errors due to paths, and weight statistics."""
    work = heated.work
    num, paths = work.shape
    nll = likelihood_in_words(info)
    figures = list(BoundEstimate.of(heated.bound, info, heated.production.shape[1]).figures)
    if paths == 1:
        return figures
    of_paths = math.sqrt(path_variance(heated.bound).sum().item()) / num
    figures.append(
        Figure("bound_error_of_paths", of_paths, "nats", meaning="part of the bound's error from paths")
    )
    if not heated.whole:
        return figures
    meaning = f"importance sampling with {paths} paths (eq. 10), above the {nll}"
    figures += nll_figures("is_nll", exponential_average(work), info, meaning, side="above")
    of_paths = math.sqrt(is_variance(work).sum().item()) / num
    figures.append(
        Figure(
            "is_nll_error_of_paths",
            of_paths,
            "nats",
            meaning="part of its error from paths (jackknife); excludes its bias, which is upward",
        )
    )
    figures.append(
        mean_figure(
            "gap",
            heated.bound.mean(1) - exponential_average(work),
            "nats",
            "bound less importance sampling: the bound is at least as far from the NLL",
            side="below",
        )
    )
    figures.append(
        mean_figure(
            "effective_sample_size", effective_sample_size(work), "paths", f"of {paths}, mean over examples"
        )
    )
    dominated = shares(work).amax(1) > DOMINANT
    figures.append(
        share_figure("dominated", dominated, f"examples with one path above {DOMINANT:.0%} of the weight")
    )
    return figures


def tail_figures(work: Tensor) -> tuple[list[Figure], Tensor | None]:
    """Return the median of Pareto's k over examples, the share above 0.7, and k of each example.

    Examples with equal weights have no tail and no k; if all examples do, there is no figure.
    """
    if work.shape[1] < FEWEST_FOR_TAIL:
        return [], None
    k = pareto_k(work)
    known = k[k.isfinite()]
    if not len(known):
        return [], None
    heavy = share_figure("heavy_tails", k > HEAVY_TAIL, f"examples whose k is above {HEAVY_TAIL}")
    of = "" if len(known) == len(k) else f" the {len(known)} of {len(k)}"
    unequal = "" if len(known) == len(k) else " whose weights differ"
    meaning = f"median over{of} examples{unequal}; below {HEAVY_TAIL} is sound"
    return [Figure("pareto_k", known.median().item(), "1", meaning=meaning), heavy], k


def bracket_figures(simulated: HeatedExamples, info: DataInfo) -> list[Figure]:
    """Return bounds from both sides on the entropy of the model's distribution."""
    if simulated.cooling is None:
        return []
    work, paths = simulated.work, simulated.work.shape[1]
    figures = nll_figures(
        "simulated_bound",
        work.mean(1),
        info,
        f"heating work of the model's own samples, above the mean {likelihood_in_words(info)}",
        side="above",
    )
    figures += nll_figures(
        "simulated_above",
        exponential_average(work),
        info,
        f"importance sampling, {paths} paths, above",
        side="above",
    )
    figures += nll_figures(
        "simulated_below",
        capped_nll(work, simulated.cooling),
        info,
        "the same with the cooling path, below",
        side="below",
    )
    figures.append(
        mean_figure(
            "simulated_work_of_cooling",
            simulated.cooling + info.log_volume,
            "nats",
            "below E[-log p]",
            side="below",
        )
    )
    width = exponential_average(work) - capped_nll(work, simulated.cooling)
    figures.append(
        mean_figure("bracket", width, "nats", "upper end minus lower end: how well the NLL is known")
    )
    return figures


def warnings_of(work: Tensor, k: Tensor | None) -> list[str]:
    """Return the caveats of the importance-sampled figures."""
    num, paths = work.shape
    if paths == 1:
        return ["one path per example: no importance sampling; raise --paths."]
    found = []
    dominated = int((shares(work).amax(1) > DOMINANT).sum())
    if dominated:
        found.append(
            f"one path has more than {DOMINANT:.0%} of the weight in {dominated} of {num} examples: their "
            "importance-sampled figures are bounds that have not converged; raise --paths."
        )
    if k is None and paths < FEWEST_FOR_TAIL:
        found.append(
            f"{paths} paths are too few to fit the tail of the weights: Pareto's k needs {FEWEST_FOR_TAIL}."
        )
    if k is not None and bool((k > HEAVY_TAIL).any()):
        count = int((k > HEAVY_TAIL).sum())
        found.append(
            f"Pareto's k is above {HEAVY_TAIL} in {count} of {num} examples: the error of their weights is not "
            "reliable."
        )
    return found


def likelihood_series(
    heated: HeatedExamples, levels: Levels, simulated: HeatedExamples | None, info: DataInfo
) -> list[Series]:
    """Return the NLL over the number of paths, the gap by level, and figures of each example."""
    work, volume = heated.work + info.log_volume, info.log_volume
    found = [_curve("is_nll_by_paths", work, NLL)] if heated.whole else []
    if simulated is not None and simulated.cooling is not None:
        found.append(
            _curve("simulated_above_by_paths", simulated.work + volume, "of simulated examples (nats)")
        )
        found.append(
            _below(simulated.work + volume, simulated.cooling + volume, "of simulated examples (nats)")
        )
    temperatures = tuple(float(level.temperature) for level in levels)
    steps = tuple(float(number) for number in range(1, len(temperatures) + 1))
    found.append(
        _means(
            "production_by_level", steps, heated.production, "level", "term of the level in the bound (nats)"
        )
    )
    found.append(Series("temperature", steps, temperatures, "level", "temperature"))
    examples = tuple(float(i) for i in range(len(work)))
    of_examples = [("bound_of_examples", heated.bound.mean(1) + volume, NLL)]
    if heated.whole:
        of_examples += [
            ("is_nll_of_examples", exponential_average(work), NLL),
            ("effective_sample_size_of_examples", effective_sample_size(work), "effective paths"),
        ]
    for name, values, label in of_examples:
        found.append(Series(name, examples, tuple(values.tolist()), "example", label, marks=True))
    return found


def _curve(name: str, work: Tensor, label: str) -> Series:
    means = by_paths(work)
    columns = torch.stack(list(means.values()), 1)
    return _means(name, tuple(float(size) for size in means), columns, "paths", label)


def _below(work: Tensor, cooling: Tensor, label: str) -> Series:
    sizes = list(by_paths(work))
    columns = torch.stack([capped_nll(work[:, :size], cooling) for size in sizes], 1)
    return _means("simulated_below_by_paths", tuple(float(s) for s in sizes), columns, "paths", label)


def _means(name: str, x: tuple[float, ...], columns: Tensor, x_label: str, y_label: str) -> Series:
    """Return the means over rows of `(N, len(x))` with their errors."""
    error = columns.std(0) / math.sqrt(len(columns))
    return Series(name, x, tuple(columns.mean(0).tolist()), x_label, y_label, tuple(error.tolist()))
