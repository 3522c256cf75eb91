"""The table of results in Markdown, from the results recorded so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

UNITS: Mapping[str, tuple[str, float, str]] = {
    "walk": ("walk, ms", 1e3, ".2f"),
    "states": ("states/s", 1.0, ",.0f"),
    "heating": ("walking, %", 1.0, ".0f"),
    "chain_step": ("chain step, ms", 1e3, ".2f"),
    "memory": ("memory, MiB", 1.0, ",.0f"),
}
"""Heading, factor and format of the figures of `walkback bench`."""

SHOWN = ("is_nll_bits", "sliced_wasserstein", "sliced_wasserstein_reference", "coverage")
"""Figures of `walkback evaluate` in the table; a reference is that of data against data."""


def markdown(results: Mapping[str, Any]) -> str:
    """Returns the whole page."""
    lines = ["# Results", ""]
    lines += [f"- {name}: {value}" for name, value in results.get("machine", {}).items()]
    if "tests" in results:
        lines += ["", "## Tests", "", *_tests(results["tests"])]
    if "bench" in results:
        lines += ["", "## Speed", "", *_bench(results["bench"])]
    if "train" in results:
        lines += ["", "## Training", "", *_train(results["train"])]
    found = problems(results)
    if found:
        lines += ["", "## What went wrong", "", *(f"- {problem}" for problem in found)]
    return "\n".join(lines) + "\n"


def problems(results: Mapping[str, Any]) -> list[str]:
    """Returns the problems, one line each; measurements skipped for lack of time are not problems."""
    found = list(results.get("problems", ()))
    tests = results.get("tests", {})
    found += [f"test {name}" for name in tests.get("failed", ())]
    if tests.get("code", 0) not in (0, 1, None):
        found.append(f"tests: {tests['problem']}")
    bench = results.get("bench", {})
    measured = [(part, bench.get(part, {})) for part in ("ceilings", "profile")]
    measured += [(run["choice"], run) for run in bench.get("runs", ())]
    for recipe, run in results.get("train", {}).items():
        measured += [(recipe, run), (f"{recipe}, evaluation", run.get("evaluation", {}))]
    found += [
        f"{name}: {part['problem']}"
        for name, part in measured
        if part.get("problem") and "time was up" not in part["problem"]
    ]
    return found


def _tests(tests: Mapping[str, Any]) -> Iterator[str]:
    if tests["code"] is None:
        decided = ", ".join(f"{number} {outcome}" for outcome, number in sorted(tests["decided"].items()))
        yield f"{tests['problem']}. Until then: {decided or 'nothing decided'}."
    else:
        yield f"{tests['summary']}."


def _bench(bench: Mapping[str, Any]) -> Iterator[str]:
    for part in ("ceilings", "profile"):
        figures = bench.get(part, {})
        title = {"ceilings": "the most the card does", "profile": "a walk of the U-Net, recorded"}[part]
        yield from (f"| {title} | |", "|---|---|")
        yield from (f"| {name} | {_number(value)} |" for name, value in figures.items())
        yield ""
    yield f"| `walkback bench` | {' | '.join(heading for heading, _, _ in UNITS.values())} |"
    yield "|---" * (len(UNITS) + 1) + "|"
    for run in bench.get("runs", ()):
        if run.get("problem"):
            cells = [run["problem"].replace("|", "/"), *[""] * (len(UNITS) - 1)]
        else:
            cells = [_cell(run.get(name), factor, form) for name, (_, factor, form) in UNITS.items()]
        yield f"| {run['choice']} | {' | '.join(cells)} |"


def _train(recipes: Mapping[str, Any]) -> Iterator[str]:
    yield "| recipe | minutes | walks | walks/s | bound | evaluation |"
    yield "|---|---|---|---|---|---|"
    for recipe, run in recipes.items():
        if run.get("problem"):
            yield f"| {recipe} | {run['minutes']:.2g} | {run['problem'].replace('|', '/')} | | | |"
            continue
        rate = run["walks"] / max(run["seconds"], 1e-9)
        evaluation = run.get("evaluation", {})
        figures = "; ".join(
            _figure(figure) for figure in evaluation.get("figures", ()) if figure["name"] in SHOWN
        )
        cells = (f"{run['minutes']:.2g}", f"{run['walks']:,}", f"{rate:.2g}", _bound(run["bound"]))
        yield f"| {recipe} | {' | '.join(cells)} | {evaluation.get('problem') or figures} |"
    for recipe, run in recipes.items():
        for name in run.get("left out", ()):
            yield from ("", f"`{name}` of {recipe} was too large to be taken along.")


def _bound(bound: Mapping[str, Any] | None) -> str:
    if not bound:
        return ""
    if bound.get("bits_per_dimension") is not None:
        return f"{bound['bits_per_dimension']:.3f} ± {bound['bits_error']:.3f} bits/dim"
    return f"{bound['nats']:.1f} ± {bound['nats_error']:.1f} nats"


def _figure(figure: Mapping[str, Any]) -> str:
    error = "" if figure["error"] is None else f" ± {figure['error']:.3g}"
    unit = "" if figure["unit"] == "1" else figure["unit"] or ""
    return f"{figure['name'].replace('_', ' ')} {_number(figure['value'])}{error} {unit}".rstrip()


def _cell(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else format(factor * value, form)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
