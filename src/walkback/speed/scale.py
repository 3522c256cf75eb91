"""Figures that set a configuration in proportion: to the loop by hand, and to what the device can do.

over_reference    seconds of the reference loop / seconds of the way, in the same repeat
overhead          seconds of a walk as configured / seconds of the bare loop - 1
share             GFLOP of a walk at the ceilings / seconds of the walk
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from walkback.building.preparation import Prepared
from walkback.measuring.estimates import median_figure
from walkback.report import Figure
from walkback.speed.by_hand import Variant
from walkback.speed.ceilings import CONVOLUTION_FLOPS, PRODUCT_FLOPS
from walkback.speed.records import Timing, Timings

_SWITCHES: Mapping[Variant, str] = {
    "shared": "one run of the network a state",
    "densities": "and walkback's kernels",
    "fused": "and fused AdamW",
    "bare": "and the precision of the run: the operations of a walk alone",
}
_FLOPS = {"product": PRODUCT_FLOPS, "convolution": CONVOLUTION_FLOPS}
_PARTS = {
    "products": "matrix products",
    "convolutions": "convolutions",
    "copies": "copies and casts",
    "norms": "norms",
    "optimizer": "the optimizer",
    "random": "random numbers",
    "elementwise": "elementwise operations, sums and the host",
}


def scale_figures(prepared: Prepared, timings: Timings) -> Iterator[Figure]:
    """Yield the figures of a benchmark with alternatives; none without."""
    yield from _over_reference(timings)
    reference = timings.by_hand.get("reference")
    if reference is not None:
        for variant, words in _SWITCHES.items():
            if variant in timings.by_hand:
                ratios = _ratios(reference, timings.by_hand[variant])
                yield median_figure(f"by_hand_{variant}", ratios, "×", f"the reference loop, {words}")
    bare = timings.by_hand.get("bare")
    if bare is not None and prepared.config.training.updates != "stacked" and not prepared.config.run.compile:
        # Only differences from 1 can be negative, so the median is taken of the ratio.
        ratio = median_figure("overhead", _ratios(timings.configured, bare), "%")
        meaning = "time of a walk beyond that of the same operations in a bare loop"
        yield Figure("overhead", 100 * (ratio.value - 1), "%", _percent(ratio.error), meaning=meaning)
    yield from _hardware(prepared, timings)


def _over_reference(timings: Timings) -> Iterator[Figure]:
    """Yield the speed of each way relative to the loop by hand."""
    for title, verb, reference, measured in (
        ("", "training", timings.by_hand.get("reference"), timings.walks),
        ("chain_", "sampling", timings.chain_by_hand, timings.chain),
    ):
        for way, timing in measured.items() if reference is not None else ():
            name = f"{title}over_reference" + (f"_{way.change}" if way.change else "")
            what = (
                f"{verb} with {way.updates} updates in {way.precision}"
                if not title
                else f"{verb} in {way.precision}"
            )
            meaning = f"speed relative to the loop by hand in fp32: {what}"
            if reference is not None:
                yield median_figure(name, _ratios(reference, timing), "×", meaning)


def _hardware(prepared: Prepared, timings: Timings) -> Iterator[Figure]:
    """Yield the ceilings, the share that a walk reaches, and the parts of its time."""
    for kind, timing in timings.ceilings.items():
        speeds = [_FLOPS[kind] / seconds for seconds in timing.seconds]
        meaning = f"one large {kind} in {prepared.precision} on this machine"
        yield median_figure(f"ceiling_{kind}", speeds, "GFLOP/s", meaning)
    work = timings.anatomy
    if work is None:
        return
    # The work of the walk that was counted, at the mean length of the measured ones.
    per_step = (work.products / work.levels, work.convolutions / work.levels)
    shares = [
        steps
        * (per_step[0] * product / PRODUCT_FLOPS + per_step[1] * convolution / CONVOLUTION_FLOPS)
        / seconds
        for steps, seconds, product, convolution in zip(
            timings.levels,
            timings.configured.seconds,
            timings.ceilings["product"].seconds,
            timings.ceilings["convolution"].seconds,
            strict=True,
        )
    ]
    meaning = "share of a walk's time that its products and convolutions need at these ceilings"
    yield median_figure("ceiling_share", shares, "%", meaning, scale=100)
    for part, share in work.parts.items():
        yield Figure(f"time_{part}", 100 * share, "%", meaning=f"share of a walk's time in {_PARTS[part]}")


def _ratios(slower: Timing, faster: Timing) -> list[float]:
    return [first / second for first, second in zip(slower.seconds, faster.seconds, strict=True)]


def _percent(error: float | None) -> float | None:
    return None if error is None else 100 * error
