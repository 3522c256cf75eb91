"""Models that are told classes: data that have them, a run, samples of a class, guidance, figures given the label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import TINY, run, walkback
from tests.toy.exact import Fixed, gaussian, model
from tests.toy.irreversible import Companion
from tests.toy.labelled import Around, Homing, Told
from tests.toy.statistics import LIMIT, normal, rng, z_of_variance, z_score
from torch import Tensor

import walkback as wb
from walkback.building.assembly import build_model
from walkback.configuration.layering import resolve
from walkback.data import DataInfo, Dataset, Labelled, conditioned
from walkback.errors import ConfigurationError, DataError
from walkback.extensions.registry import Registry
from walkback.kernels import BernoulliKernel, NormalKernel
from walkback.operators import Latent, TransitionOperator, initial_state, visible
from walkback.sampling import chain, last
from walkback.sampling.guidance import Guided, guided, require_guidable
from walkback.schedules import Level, levels_from
from walkback.state import Space, leaves
from walkback.storage.checkpoint import load_checkpoint
from walkback_networks.mlp import MLP
from walkback_paper.bernoulli import Bernoulli
from walkback_paper.gaussian import Gaussian
from walkback_toys.digits import Digits
from walkback_toys.figures import Mog

COLD = Level(1, 1.0)
LABELLED = ("--set", "data.condition=label")


# --- data that tell


def test_digits_tell_their_classes_only_when_asked() -> None:
    plain, told = Digits(), Digits(condition="label")
    for data in (plain, told):
        data.prepare()
    assert plain.info.classes == {}
    assert tuple(told.info.classes) == tuple("0123456789")
    assert sum(told.info.classes.values()) == 1297
    assert told.info.classes["3"] == int((told.labels("train") == 3).sum())
    assert told.info.space == Space((1, 8, 8), "real", 10, bins=17)
    assert told.info.preprocessing == (*plain.info.preprocessing, "told the class, of 10")
    assert told.info.fingerprint != plain.info.fingerprint
    assert told.examples("train").equal(plain.examples("train"))


def test_the_fingerprint_changes_with_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Mog(num=50, num_held_out=20, condition="label")
    data.prepare()
    before, labels = data.info.fingerprint, data.labels("test")
    assert data.info.fingerprint == before
    right = Mog.labels
    monkeypatch.setattr(
        Mog, "labels", lambda own, split: labels.flip(0) if split == "test" else right(own, split)
    )
    assert data.info.fingerprint != before


class Bare(Dataset):
    """A data set without labels."""


def test_data_that_cannot_tell_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    info = DataInfo("bare", (2,))
    bare = Bare.__new__(type("Whole", (Bare,), dict.fromkeys(Bare.__abstractmethods__)))
    with pytest.raises(DataError, match=r"bare has no labels, which data\.condition = 'label' needs"):
        conditioned(info, bare, "label")
    assert conditioned(info, bare, "none") is info
    data = Told()
    monkeypatch.setattr(Told, "classes", ("a", "a", "b"))
    assert isinstance(data, Labelled)
    with pytest.raises(DataError, match=r"Two classes of .* have the same name"):
        conditioned(info, data, "label")


def test_examples_without_a_class_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Told, "labels", lambda _, split: torch.tensor([0, -1, 2, 2, -1]))
    assert conditioned(DataInfo("told", (2,)), Told(5), "label").classes == {
        "class 0": 1,
        "class 1": 0,
        "class 2": 2,
    }


# --- who is told


def test_an_operator_that_would_not_hear_of_classes_is_refused() -> None:
    registry = Registry.discover()
    config = resolve(registry, overrides=["data.name=digits"])
    parts = {section: getattr(config, section) for section in ("operator", "schedule", "process", "prior")}
    deaf = Gaussian(Space((1, 8, 8)), MLP(hidden=8, depth=1))
    with pytest.raises(ConfigurationError, match="Gaussian for 0 classes with data of 10"):
        build_model(parts, registry, Space((1, 8, 8), classes=10), 0, {"operator": deaf})
    with pytest.raises(ConfigurationError, match=r"Companion .*choose an operator that supports classes"):
        build_model(parts, registry, Space((2,), classes=3), 0, {"operator": Companion(0.5, 0.1)})
    told = build_model(parts, registry, Space((1, 8, 8), classes=10), 0).operator
    assert told.num_classes == 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("network", ["mlp", "plain-mlp", "encoder-decoder", "unet"])
def test_labels_cost_no_weights_where_there_are_none_and_a_table_where_there_are(network: str) -> None:
    registry = Registry.discover()
    config = resolve(
        registry, overrides=["data.name=digits", "operator.name=gaussian", f"operator.network.name={network}"]
    )
    parts = {section: getattr(config, section) for section in ("operator", "schedule", "process", "prior")}
    plain, told = (
        build_model(parts, registry, Space((1, 8, 8), classes=classes), 0).operator.state_dict()
        for classes in (0, 7)
    )
    more = set(told) - set(plain)
    assert set(plain) < set(told)
    assert len(more) == 1
    assert told[more.pop()].shape[0] == 7


# --- guidance


def test_guidance_moves_the_mean_and_keeps_the_variance_of_the_label() -> None:
    operator = shaken(Gaussian(Space((3,), classes=2), MLP(hidden=8, depth=1)).double().eval())
    state, label = normal(5, 3), torch.tensor([0, 1, -1, 0, 1])
    told, none = operator(state, COLD, label), operator(state, COLD)
    own, untold = told.cooling(COLD).mean, none.cooling(COLD).mean

    def same(found: Tensor, expected: Tensor) -> None:
        # Guidance runs the network on both inputs together, whose sums may differ in their last bits.
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

    for scale in (0.0, 1.0, 2.5):
        found = guided(operator, scale)(state, COLD, label)
        for way in ("cooling", "heating"):
            kernel, by_label = getattr(found, way)(COLD), getattr(told, way)(COLD)
            assert isinstance(kernel, NormalKernel)
            same(kernel.mean, untold + scale * (own - untold))
            same(kernel.variance.expand_as(own), by_label.variance.expand_as(own))
        same(found.cooling(COLD).mean[2], untold[2])
    same(guided(operator, 1.0)(state, COLD, label).cooling(COLD).mean, own)
    same(guided(operator, 3.0)(state, COLD).cooling(COLD).mean, untold)
    assert not own[0].equal(untold[0])


@pytest.mark.parametrize("heating", ["flips", "tied"])
def test_guidance_moves_logits(heating: Any) -> None:
    operator = shaken(
        Bernoulli(Space((4,), "binary", 2), MLP(hidden=8, depth=1), heating=heating).double().eval()
    )
    state, label, hot = (normal(6, 4) > 0).double(), torch.tensor([0, 1, -1, 0, 1, 1]), Level(3, 4.0)
    told, none = operator(state, COLD, label), operator(state, COLD)
    for level in (COLD, hot):
        for way in ("cooling", "heating"):
            kernels = [
                getattr(c, way)(level) for c in (told, none, guided(operator, 2.0)(state, COLD, label))
            ]
            assert all(isinstance(kernel, BernoulliKernel) for kernel in kernels)
            own, untold, found = (kernel.logits for kernel in kernels)
            torch.testing.assert_close(found, 2 * own - untold, rtol=1e-12, atol=1e-12)


def test_a_guided_chain_is_in_balance_with_the_product_of_powers() -> None:
    """Of N(m, σ²) and N(m_k, σ²), which have one variance, q^{1-w} q_k^w is N(m + w (m_k - m), σ²)."""
    means = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    operator, label = guided(Around(means, a=0.7), 3.0), torch.zeros(20_000, dtype=torch.int64)
    (state,) = leaves(last(chain(operator, torch.zeros(20_000, 1).double(), 40, rng(), label)))
    assert abs(z_score(state[:, 0], 0.5 + 3 * 1.5)) < LIMIT
    assert abs(z_of_variance(state[:, 0], 1.0)) < LIMIT


def test_guidance_of_latent_units_leaves_them_what_they_are() -> None:
    operator = Companion(0.5, 0.1)
    found = guided(operator, 2.0)
    assert isinstance(found, Latent)
    data = normal(4, 2)
    ours, theirs = (initial_state(part, data, rng()) for part in (found, operator))
    assert all(a.equal(b) for a, b in zip(leaves(ours[0]), leaves(theirs[0]), strict=True))
    assert visible(found, ours[0]).equal(data)
    assert found.state_space == operator.state_space
    assert found.max_temperature == operator.max_temperature


@pytest.mark.parametrize("scale", [-0.5, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ConfigurationError, match="expected a finite number of at least 0"):
        guided(Homing(), scale)


def test_operators_without_guidance_say_so() -> None:
    prior = gaussian(torch.zeros(2), torch.ones(2).double())
    levels = levels_from([1.0])
    with pytest.raises(ConfigurationError, match="Homing does not support guidance, because its Pair"):
        require_guidable(model(Homing(), prior, levels))
    require_guidable(model(Around(normal(3, 2)), prior, levels))
    assert isinstance(guided(Homing(), 1.0), Guided)


# --- a run, and what is made of it


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of digits that is told their classes."""
    directory = tmp_path_factory.mktemp("labels") / "a"
    done = run(directory, *LABELLED)
    assert done.code == 0, done.err
    assert "given the label" in done.out
    return directory


def test_its_checkpoint_names_the_classes(trained: Path) -> None:
    checkpoint = load_checkpoint(trained / "final.safetensors")
    assert tuple(checkpoint.data.classes) == tuple("0123456789")
    tables = [name for name in checkpoint.tensors if "label" in name]
    assert [checkpoint.tensors[name].shape[0] for name in tables] == [10]
    shown = walkback("info", trained)
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in shown.out


def states(drawn: wb.Samples) -> Tensor:
    return drawn.states


def test_samples_are_of_the_class_that_is_asked_for_in_both_ways(trained: Path, tmp_path: Path) -> None:
    given: Mapping[str, Any] = {"num": 5, "extra": 2, "seed": 3}
    seven = wb.sample(trained, label=7, **given, progress=False)
    assert seven.protocol["label"] == "7"
    assert seven.labels is not None
    assert seven.labels.tolist() == [7] * 5
    assert states(seven).equal(states(wb.sample(trained, label="7", **given, progress=False)))
    others = [
        wb.sample(trained, **{**given, **more}, progress=False)
        for more in ({"label": 2}, {"label": "none"}, {"label": 7, "guidance": 2.0}, {})
    ]
    assert all(not states(seven).equal(states(other)) for other in others)
    assert [other.protocol["label"] for other in others] == ["2", "none", "7", "as in training"]
    assert others[2].protocol["guidance"] == 2.0
    out = tmp_path / "a.npz"
    done = walkback(
        *("sample", trained, "--label", "7", "--guidance", "2", "--out", out, "--json"),
        *("--num", "5", "--extra", "2", "--seed", "3"),
    )
    assert done.code == 0, done.err
    assert done.document()["guidance"] == 2.0
    assert {**others[2].protocol}.items() <= done.document().items()


def test_each_sample_is_of_its_own_label(trained: Path) -> None:
    """A sample of a batch of all classes is that of a batch of its class alone: the same noise, another label."""
    mixed = wb.sample(trained, num=40, seed=1, progress=False)
    assert mixed.labels is not None
    assert len(mixed.labels.unique()) > 5
    for label in (0, 4):
        alone = wb.sample(trained, num=40, seed=1, label=label, progress=False)
        own = mixed.labels == label
        torch.testing.assert_close(states(mixed)[own], states(alone)[own], rtol=1e-4, atol=1e-5)
        assert not states(mixed)[~own].equal(states(alone)[~own])


def test_chains_from_data_have_the_classes_of_the_data(trained: Path) -> None:
    data = Digits()
    data.prepare()
    told = wb.sample(trained, 6, start="data", chain=3, every=3, progress=False)
    assert told.labels is not None
    assert told.labels.equal(data.labels("test")[:6])
    assert told.protocol["label"] == "of the data"
    again = wb.sample(trained, start=told.frames[0], chain=3, every=3, progress=False)
    assert again.labels is not None
    assert again.labels.tolist() == [-1] * 6
    assert again.protocol["label"] == "none"
    assert not states(told).equal(states(again))


def test_images_are_filled_in_by_label(trained: Path) -> None:
    made = {
        str(label): wb.inpaint(trained, "top", num=3, extra=2, label=label, progress=False)
        for label in (None, 3, "none")
    }
    assert [record.protocol["label"] for record in made.values()] == ["of the data", "3", "none"]
    found = [states(record) for record in made.values()]
    assert all(one[:, :, :4].equal(found[0][:, :, :4]) for one in found)
    assert not found[0].equal(found[1])
    assert not found[1].equal(found[2])
    further = wb.inpaint(trained, "top", num=3, extra=2, label=3, guidance=3.0, progress=False)
    assert not states(further).equal(found[1])


def test_figures_say_that_they_are_given_the_label(trained: Path) -> None:
    report = wb.evaluate(trained, limit=20, paths=2, simulated=4, samples=40, batch_size=10, progress=False)
    assert report.protocol["given"] == "label"
    bound = next(figure for figure in report.figures if figure.name == "bound")
    assert "given the label" in bound.meaning
    assert any("the baselines are unconditional" in warning for warning in report.warnings)
    found = walkback("diagnose", "reversibility", trained, "--json", "--set", "chains=6", "--set", "steps=10")
    assert found.code in (0, 3), found.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"label": 10}, r"label = 10, expected one of the 10 classes 0, 1, .*, or 'none'"),
        ({"label": -1}, r"label = -1, expected one of the 10 classes"),
        ({"label": "sevn"}, r"label = 'sevn'"),
        ({"label": "none", "guidance": 2.0}, r"needs a class to guide to"),
        ({"guidance": -1.0}, r"finite number of at least 0"),
    ],
)
def test_what_is_not_a_class_is_refused(trained: Path, more: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        wb.sample(trained, 2, **more, progress=False)


def test_other_data_have_to_tell_the_same_classes(trained: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"set data\.condition to 'label'"):
        wb.evaluate(trained, data="digits", limit=8, progress=False)
    settings = {"condition": "label"}
    report = wb.evaluate(
        trained, data="digits", settings=settings, limit=8, paths=1, simulated=0, progress=False
    )
    assert report.protocol["given"] == "label"


def test_a_run_that_is_told_resumes_exactly(tmp_path: Path) -> None:
    options = (*LABELLED, "--set", "training.checkpoint_every=2", "--set", "training.keep_checkpoints=9")
    directory = tmp_path / "a"
    assert run(directory, *options, steps=4).code == 0
    final = directory / "final.safetensors"
    before = load_checkpoint(final).tensors
    for path in [*(directory / "checkpoints").glob("step-4.*"), final]:
        path.unlink()
    assert walkback("run", "--resume", directory).code == 0
    after = load_checkpoint(final).tensors
    assert [name for name in before if not before[name].equal(after[name])] == []


def test_deaf_operators_are_refused_before_a_run(tmp_path: Path) -> None:
    done = walkback(
        *("run", *TINY, *LABELLED, "--set", "operator.network.conditioning=none", "--out", tmp_path / "a")
    )
    assert done.code == 2, done.out
    assert "10 classes" in done.err
    assert not (tmp_path / "a").exists()


# --- figures of a mixture that is known


def test_the_bound_of_a_two_class_mixture_is_its_nll_given_the_class() -> None:
    """With a = 0, q = p = N(m_k, σ²), and -E[L] = -log N(x; m_k, σ²) + KL(N(m_k, σ²) || p*) for x of class k."""
    sigma = 0.5
    means = torch.tensor([[0.0, 0.0], [10.0, 10.0], [5.0, 5.0]], dtype=torch.float64)
    data = Told(400, classes=2)
    known = wb.train(
        data=data,
        operator=Around(means, a=0.0, sigma=sigma),
        prior=gaussian(torch.zeros(2), torch.ones(2).double()),
        schedule=Fixed(levels_from([1.0])),
        steps=0,
        progress=False,
    )
    report = wb.evaluate(known, limit=400, paths=8, simulated=0, baselines=False, progress=False)
    labels, x = data.labels("test"), data.examples("test").double()
    exact = -torch.distributions.Normal(means[labels], sigma).log_prob(x).sum(1)
    prior = known.model.prior.state_dict()
    start = torch.distributions.Normal(prior["mean"].double(), prior["variance"].double().sqrt())
    own = torch.distributions.Normal(means[labels], sigma)
    expected = float((exact + torch.distributions.kl_divergence(own, start).sum(1)).mean())
    figures = {figure.name: figure for figure in report.figures}
    assert abs(figures["bound"].value - expected) < LIMIT * figures["bound_error_of_paths"].value
    assert figures["bound_error_of_paths"].value < 0.1


def shaken(operator: TransitionOperator) -> TransitionOperator:
    with torch.no_grad():
        for number, weight in enumerate(operator.parameters()):
            weight += 0.3 * normal(*weight.shape, seed=number).to(weight)
    return operator
