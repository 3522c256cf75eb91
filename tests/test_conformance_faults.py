"""The conformance kit finds what it is for: components with one fault each, and sound ones that pass everything."""

from __future__ import annotations

import unittest
from functools import partial

import pytest
from tests.toy import broken, broken_parts, capable, processes

from walkback.component import Component
from walkback.errors import ConfigurationError
from walkback.extensions.loader import PluginStatus, load_plugin
from walkback.extensions.registry import Registry
from walkback.hookspecs import hookimpl
from walkback.state import Space
from walkback.testing import SUITES, Case, Check, ConformanceError, check_component, checks, failed

POINTS, BITS = Space((2,)), Space((4,), "binary")

SOUND = {
    "normal": ("operator", broken.BrokenOperator, (POINTS, Space((1, 8, 8)))),
    "labels": ("operator", broken.BrokenLabels, (POINTS, Space((1, 8, 8)))),
    "bits": ("operator", broken.BrokenBits, (BITS,)),
    "latent": ("operator", broken.BrokenLatent, (POINTS,)),
    "schedule": ("schedule", broken.BrokenSchedule, ()),
    "prior": ("prior", broken.BrokenPrior, (POINTS,)),
    "process": ("process", broken.BrokenProcess, (POINTS,)),
    "jumps": ("process", processes.Jumps, (POINTS,)),
    "diffusing": ("process", capable.Diffusing, (POINTS,)),
    "descending": ("process", capable.Descending, (POINTS,)),
    "rebuilding": ("process", capable.Rebuilding, (POINTS,)),
    "objective": ("objective", broken.BrokenObjective, ()),
    "path": ("objective", broken.BrokenPath, ()),
    "data": ("dataset", broken.BrokenData, ()),
    "diagnostic": ("diagnostic", broken.BrokenDiagnostic, ()),
    "logger": ("logger", broken.BrokenLogger, ()),
    "network": ("network", broken_parts.BrokenNetwork, (POINTS, Space((1, 4, 4)))),
    "law": ("temperature_law", broken_parts.BrokenLaw, ()),
    "metric": ("metric", broken_parts.BrokenMetric, ()),
}

FAULTS = [
    # (what, fault, the check that is meant for it, a word of its message)
    ("normal", "no constant", "normalized", "normalizing constant"),
    ("normal", "half constant", "normalized", r"integral is 1\.1"),
    ("normal", "cold samples", "samples", "disagree"),
    ("normal", "variance for deviation", "samples", "spread|density"),
    ("normal", "shifted samples", "samples", "disagree"),
    ("normal", "mean elsewhere", "expectation", "standard errors from the mean"),
    ("normal", "mean with gradient", "expectation", "detached"),
    ("normal", "flat mean", "expectation", "that of a sample"),
    ("normal", "no temperature", "temperature", "at T = 1 and"),
    ("normal", "colder", "temperature", "more at the higher temperature"),
    ("normal", "first row's temperature", "row-levels", "temperature_like"),
    ("normal", "temperature along events", "row-levels", "temperature_like"),
    ("normal", "batch leakage", "rows-alone", "other rows"),
    ("normal", "global samples", "generator", "global randomness"),
    ("normal", "own generator", "generator", "different generators"),
    ("normal", "noise in evaluation", "repeats", "evaluation mode"),
    ("normal", "double samples", "shapes", "float64"),
    ("normal", "double density", "shapes", "float64"),
    ("normal", "flat samples", "shapes", r"expected \(1, 2\)"),
    ("normal", "samples with gradient", "shapes", "detached"),
    ("normal", "extra dimension", "shapes", r"\(1, 1\)"),
    ("normal", "mean of batch", "shapes", "not over the batch"),
    ("normal", "one dimension a number", "shapes", "summed over the event"),
    ("normal", "in place", "untouched", "in place"),
    ("normal", "state in place", "untouched", "in place"),
    ("normal", "unused parameter", "gradients", "unused"),
    ("normal", "detached", "gradients", "without gradient"),
    ("normal", "lost buffer", "state-dict", "buffers"),
    ("normal", "fitted attribute", "state-dict", "buffers"),
    ("normal", "overflow", "large-states", "infinity"),
    ("normal", "endless", "max-temperature", "inf"),
    ("normal", "cooler than one", "max-temperature", "0.5"),
    ("normal", "low precision", "bf16", "bfloat16"),
    ("normal", "compiled otherwise", "compiles", "torch.compile"),
    ("normal", "half divergence", "divergence", "the mean of log p - log p'"),
    ("labels", "deaf", "labels", "use the context"),
    ("labels", "no label is class 0", "labels", "kernels without context"),
    ("labels", "first row's label", "labels", "labels of other rows"),
    ("labels", "miscounted classes", "labels", "num_classes = 2"),
    ("bits", "probabilities", "shapes", "0 and 1"),
    ("bits", "cold bits", "samples", "disagree"),
    ("bits", "bits' constant", "normalized", r"integral is 1\.05"),
    ("latent", "lost latent", "shapes", "2 part"),
    ("latent", "unscored latent", "normalized", "integral"),
    ("latent", "other visible", "latent", "expected the data"),
    ("latent", "latent mean", "latent", "log q"),
    ("schedule", "falling", "coldest-first", "falling"),
    ("schedule", "zero", "finite", "positive"),
    ("schedule", "nan", "finite", "nan"),
    ("schedule", "from zero", "steps", "levels_from"),
    ("schedule", "list", "builds", "tuple"),
    ("schedule", "too cold", "reaches", "T_max"),
    ("schedule", "chance", "repeats", "global randomness"),
    ("schedule", "generator ignored", "generator", "global randomness"),
    ("schedule", "one too many", "lengths", "levels, expected"),
    ("prior", "unnormalized", "normalized", r"integral is 1\.2"),
    ("prior", "wide prior", "samples", "disagree"),
    ("prior", "unfitted", "fit", "held-out"),
    ("prior", "bare variance", "observe", "infinity"),
    ("prior", "lost variance", "state-dict", "does not fit|buffers"),
    ("prior", "count outside", "state-dict", "one more observe"),
    ("prior", "global prior", "generator", "global randomness"),
    ("prior", "data in place", "untouched", "in place"),
    ("prior", "undeclared prior", "ranges", "'variance' set to -1"),
    ("prior", "misspelt range", "ranges", "no such tensor"),
    ("normal", "undeclared buffer", "ranges", "'spread' set to -1"),
    ("jumps", "reverse elsewhere", "path", "cooling kernel at the target"),
    ("jumps", "twice", "path", "6 transitions through 3 levels"),
    ("process", "fitted attribute", "state-dict", "buffers"),
    ("process", "endless", "max-temperature", "inf"),
    ("process", "cooler than one", "max-temperature", "0.5"),
    ("process", "cold samples", "samples", "disagree"),
    ("process", "no constant", "normalized", "normalizing constant"),
    ("process", "origin's batch", "rows-alone", "other rows"),
    ("process", "global samples", "generator", "global randomness"),
    ("process", "in place", "untouched", "in place"),
    ("process", "extra dimension", "shapes", "one number per row"),
    ("diffusing", "step for marginal", "marginals", "walk to level 2"),
    ("diffusing", "step for posterior", "posteriors", "posterior"),
    ("diffusing", "jumps by a step", "jumps", "states of a path at level 2"),
    ("diffusing", "other posterior", "jumps", "process's own"),
    ("diffusing", "reversed divergence", "divergence", "the mean of log p - log p'"),
    ("descending", "bridge's constant", "bridge", "bridge kernel on .* whose integral"),
    ("descending", "end's constant", "bridge", "end on .* whose integral"),
    ("descending", "narrow path", "bridged-path", "last two states of a path"),
    ("descending", "bridge's constant", "bridged-work", r"expected p\(s_0\)"),
    ("rebuilding", "corruption's constant", "corruption", "integral"),
    ("rebuilding", "from the last state", "examples", "not the example"),
    ("rebuilding", "size outside", "fit-operator", "different path"),
    ("rebuilding", "changes the operator", "fit-operator", "was changed"),
    ("objective", "mean", "shapes", "not over the batch"),
    ("objective", "spread mean", "rows-alone", "mean over the batch"),
    ("objective", "gradient of log q", "gradient", "log_q.detach"),
    ("objective", "no gradient", "gradient", "without gradient"),
    ("objective", "wrong direction", "gradient", "through log_p"),
    ("objective", "random", "repeats", "global randomness"),
    ("path", "sum", "shapes", "the loss of the end"),
    ("path", "sometimes", "builds", "checkpointing"),
    ("data", "overlap", "splits", "train split too"),
    ("data", "out of range", "states", "0 to 1"),
    ("data", "double states", "states", "float64"),
    ("data", "other shape", "states", r"\(64, 1, 3\)"),
    ("data", "miscounted", "info", "numbers of examples"),
    ("data", "nameless", "info", "name"),
    ("data", "drawn anew", "examples", "deterministic"),
    ("data", "global noise", "generator", "global randomness"),
    ("data", "rows in place", "generator", "untouched|different results"),
    ("data", "shuffled", "rows", "order"),
    ("data", "centres of a grid", "centres", "away from the mean"),
    ("data", "centres shuffled", "centres", "away from the mean"),
    ("data", "augmented floats", "augmented", "of torch.float32"),
    ("data", "augmented in place", "augmented", "in place"),
    ("data", "augmented by chance", "augmented", "equal generators|global randomness"),
    ("data", "labels from one", "labels", "0 to 1"),
    ("diagnostic", "no unit", "figures", "without a unit"),
    ("diagnostic", "no error", "figures", "standard error"),
    ("diagnostic", "nan headline", "builds", "nan"),
    ("diagnostic", "nan as 0", "refuses-nan", "WalkbackError"),
    ("diagnostic", "global chains", "repeats", "global randomness"),
    ("diagnostic", "small error", "errors", "too small"),
    ("logger", "early", "builds", "before it|not been opened"),
    ("logger", "beside", "directory", "outside"),
    ("logger", "working directory", "directory", "outside"),
    ("logger", "finite only", "nonfinite", "nan"),
    ("logger", "closed once", "close", "idempotent"),
    ("logger", "only once", "again", "FileExistsError"),
    ("network", "no module", "builds", "torch.nn.Module"),
    ("network", "no tuple", "shapes", "expected a tuple of tensors"),
    ("network", "one head", "shapes", "Got 1 outputs, expected 2"),
    ("network", "flat", "shapes", r"\(B, \*E\)"),
    ("network", "double", "shapes", "float64"),
    ("network", "sees others", "rows-alone", "other rows"),
    ("network", "one temperature", "row-levels", "different temperatures"),
    ("network", "draws", "repeats", "global randomness"),
    ("network", "own seed", "seeds", "equal seeds"),
    ("network", "not kept", "file", "round trip"),
    ("network", "detached", "gradient", "without gradient"),
    ("network", "root", "gradient", "nan or infinity"),
    ("network", "deaf", "labels", "every label"),
    ("network", "last class", "labels", "no label"),
    ("network", "in place", "untouched", "changed in place"),
    ("law", "double", "shapes", "float64"),
    ("law", "doubled", "one", "T = 1"),
    ("law", "colder", "hotter", "does not grow"),
    ("law", "first row", "row-levels", "own temperature"),
    ("law", "root", "max-temperature", "must have grown by"),
    ("law", "a tensor", "max-temperature", "finite float"),
    ("law", "detached", "gradient", "without gradient"),
    ("law", "in place", "untouched", "changed in place"),
    ("metric", "a list", "figures", "by name"),
    ("metric", "a tensor", "figures", "a number"),
    ("metric", "taken name", "figures", "of its own"),
    ("metric", "finite only", "nonfinite", "nan"),
    ("metric", "evaluation", "model", "evaluation mode"),
    ("metric", "backward", "model", "gradients"),
    ("metric", "moves", "model", "state changed"),
    ("metric", "draws", "generator", "global randomness"),
]


def case(what: str, fault: str = "") -> Case:
    _, made, spaces = SOUND[what]
    return Case.of(made, {"fault": fault}, spaces=spaces[:1] if fault else spaces)


def named(what: str, name: str) -> Check:
    return next(check for check in checks(SOUND[what][0]) if check.name == name)


@pytest.mark.parametrize(
    ("what", "fault", "name", "word"), FAULTS, ids=[f"{what}: {fault}" for what, fault, *_ in FAULTS]
)
def test_a_fault_is_found_by_the_check_meant_for_it(what, fault, name, word):
    with pytest.raises(ConformanceError, match=word) as found:
        named(what, name)(case(what, fault))
    assert "expected" in str(found.value)


@pytest.mark.parametrize(
    ("what", "check"), [(what, check) for what in SOUND for check in checks(SOUND[what][0])], ids=str
)
def test_what_is_sound_passes(what, check):
    if not (what in ("bits", "latent") and check.name == "compiles"):
        check(case(what))


def test_every_check_has_a_fault_that_it_finds():
    found = {(SOUND[what][0], name) for what, _, name, _ in FAULTS}
    everything = {(kind, check.name) for kind in SUITES for check in checks(kind)}
    trivial = {(kind, "builds") for kind in SUITES} | {("objective", "untouched"), ("objective", "path")}
    trivial |= {("process", name) for name in ("temperature", "row-levels", "repeats")} | {
        ("prior", "shapes")
    }
    trivial |= {("operator", "compiled-gradients")}  # its faults are compilers: test_compiled_gradients.py
    assert everything - found - trivial == set()


def test_names_are_unique_and_say_what_they_prove():
    for kind in SUITES:
        names = [check.name for check in checks(kind)]
        assert len(set(names)) == len(names)
        assert all(check.proves and str(check) == check.name for check in checks(kind))


# --- expected failures, and factories


def test_a_failure_with_a_reason_is_expected():
    found = {check.name: check for check in checks("schedule", {"reaches": "it stays cold"})}
    outcome = found["reaches"].outcome(case("schedule", "too cold"))
    assert (outcome.status, "it stays cold" in outcome.message) == ("expected", True)
    with pytest.raises(unittest.SkipTest, match="it stays cold"):
        found["reaches"](case("schedule", "too cold"))


def test_a_pass_where_a_failure_was_expected_fails():
    found = {check.name: check for check in checks("schedule", {"reaches": "it stays cold"})}
    with pytest.raises(ConformanceError, match=r"Got a pass of 'reaches'.*it stays cold"):
        found["reaches"](case("schedule"))


@pytest.mark.parametrize("expected", [{"reachs": "a reason"}, {"reaches": ""}])
def test_an_expectation_names_a_check_and_a_reason(expected):
    with pytest.raises(ConfigurationError, match="reaches"):
        checks("schedule", expected)


def test_a_factory_serves_as_well_as_a_class():
    shapes = named("normal", "shapes")
    shapes(Case.of(lambda space: broken.BrokenOperator(space)))
    with pytest.raises(ConformanceError, match="float64"):
        shapes(Case.of(partial(broken.BrokenOperator, fault="double samples")))


def test_what_cannot_be_built_is_the_components_fault():
    def make(space):
        raise ZeroDivisionError

    with pytest.raises(ConformanceError, match="ZeroDivisionError"):
        named("normal", "builds")(Case.of(make))
    with pytest.raises(ConformanceError, match=r"subclass of walkback\.operators\.TransitionOperator"):
        named("normal", "builds")(Case.of(lambda space: space))
    with pytest.raises(ConformanceError, match="no space that 'BrokenBits' accepts"):
        named("normal", "builds")(Case.of(broken.BrokenBits, spaces=[POINTS]))
    with pytest.raises(ConformanceError, match=r"fualt.*fault"):
        named("normal", "builds")(Case.of(broken.BrokenOperator, {"fualt": ""}))


class Plugin:
    @hookimpl
    def walkback_schedules(self):
        yield Component("doubling-here", "tests.toy.broken:BrokenSchedule")


def test_a_registered_component_is_checked_by_name():
    registry = Registry([load_plugin(Plugin(), PluginStatus("here:plugin", "here", "1"))])
    found = check_component(registry, "schedule", "doubling-here")
    assert [outcome.name for outcome in found] == [check.name for check in checks("schedule")]
    assert {outcome.status for outcome in found} == {"passed"}
    found = check_component(registry, "schedule", "doubling-here", {"fault": "too cold"})
    assert [outcome.name for outcome in failed(found)] == ["reaches"]
    with pytest.raises(ConfigurationError, match="doubling-here"):
        check_component(registry, "schedule", "doubling-hree")
