"""`walkback bench` beside the ceilings of the card, and what the kernels of a walk do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forked import TF32
from session import Session

RECIPES: Mapping[str, str] = {
    "unet": "--recipe cifar10 --batch-size 256",
    "mlp": "--recipe digits",
    "conv": "--recipe paper-celeba --data cifar10 --set data.size=64 --set data.limit=5000",
}
"""A U-Net, an MLP, and the paper's network for CelebA on images of its size: options of `walkback bench`."""

TINY: Mapping[str, str] = {
    "unet": (
        "--batch-size 2 --set operator.network.channels=[8,8] --set operator.network.blocks=1 "
        "--set schedule.n1=1 --set schedule.max_temperature=4"
    ),
    "mlp": "--batch-size 4 --set operator.network.hidden=16 --set schedule.max_temperature=4",
    "conv": (
        "--batch-size 2 --set operator.network.channels=[8] --set operator.network.hidden=16 "
        "--set operator.network.level_norms=0 --set data.size=16 --set schedule.num_steps=3"
    ),
}

# The command line knows fp32 and bf16. What fp32 means for matrix products and convolutions on the device is
# PyTorch's and its libraries' own switch, which these variables set for a whole process.
PRECISIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "bf16": ("bf16", {}),
    "TF32": ("fp32", {TF32: "1"}),
    "fp32": ("fp32", {"NVIDIA_TF32_OVERRIDE": "0"}),
}
FIGURES = ("walk", "states", "heating", "chain_step", "memory")


@dataclass(frozen=True, slots=True)
class Choice:
    """One measurement."""

    recipe: str
    way: str
    precision: str

    def __str__(self) -> str:
        return f"{self.recipe} {self.way} {self.precision}"


def choices(tiny: bool) -> Iterator[Choice]:
    """What to measure, what tells most first."""
    if tiny:
        pairs = zip(RECIPES, PRECISIONS, strict=True)
        yield from (Choice(recipe, "eager", precision) for recipe, precision in pairs)
        return
    for precisions in (("bf16",), ("TF32", "fp32")):
        for way in ("eager", "compiled"):
            for precision in precisions:
                yield from (Choice(recipe, way, precision) for recipe in RECIPES)


def arguments(recipe: str, tiny: bool) -> list[str]:
    """Options of `walkback run` and `walkback bench` for a recipe of this list."""
    return f"{RECIPES[recipe]} {TINY[recipe] if tiny else ''}".split()


def run(session: Session, end: float, _: float | None = None) -> None:
    """Ceilings, profile, then one measurement after another until the time is up."""
    found: dict[str, Any] = {"runs": []}
    session.results["bench"] = found
    small = ["--tiny"] if session.tiny else []
    found["ceilings"] = _document(session, end, "ceilings.py", *small)
    session.keep()
    found["profile"] = _document(session, end, "profiling.py", "--recipe", "unet", *small)
    session.write("profile.txt", found["profile"].pop("table", found["profile"].get("problem", "")) + "\n")
    session.keep()
    for choice in choices(session.tiny):
        found["runs"].append({"choice": str(choice), **_measure(session, choice, end - time.time())})
        session.keep()


def _document(session: Session, end: float, script: str, *options: str) -> dict[str, Any]:
    """What a script printed last (profilers say something, too), or why it did not."""
    done = session.script(script, *options, seconds=end - time.time())
    return {"problem": done.problem} if done.problem else json.loads(done.out.splitlines()[-1])


def _measure(session: Session, choice: Choice, seconds: float) -> dict[str, Any]:
    """The figures of one `walkback bench`."""
    if seconds < 1:
        return {"problem": "not reached: the time was up"}
    precision, variables = PRECISIONS[choice.precision]
    compiled = ["--compile"] if choice.way == "compiled" else []
    repeats = 1 if session.tiny else 5
    line = (
        f"--device {session.device} --precision {precision} --repeats {repeats} --no-compare --json".split()
    )
    options = arguments(choice.recipe, session.tiny)
    done = session.walkback("bench", *options, *line, *compiled, seconds=seconds, variables=variables)
    if done.problem:
        return {"problem": done.problem}
    figures = {figure["name"]: figure["value"] for figure in json.loads(done.out)["figures"]}
    return {name: figures[name] for name in FIGURES if name in figures}
