"""Noise in closed form, against composed steps, Bayes' rule and other libraries; exact terms of the bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from scipy import stats
from tests.toy.exact import Pair, Toy, gaussian
from tests.toy.statistics import LIMIT, rng
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from walkback.errors import ConfigurationError
from walkback.kernels import (
    BernoulliKernel,
    CategoricalKernel,
    Kernel,
    NormalKernel,
    ProductKernel,
    divergence,
    stacked,
)
from walkback.levels import rows_of, stack_levels
from walkback.measuring.work import heating_work
from walkback.model import Model
from walkback.noising import BitNoise, GaussianNoise, Noise, SymbolNoise
from walkback.schedules import Level, levels_from
from walkback.state import Space, State, leaves
from walkback.walk import Start
from walkback_paper.priors import GaussianPrior
from walkback_paper.schedules import ExplicitSchedule
from walkback_processes.diffusion import DiffusionProcess
from walkback_processes.objectives import PosteriorDivergence

TEMPERATURES = (1.0, 1.0, 3.0, 8.0)
LEVELS = levels_from(TEMPERATURES)
FORMS = {
    "exploding": GaussianNoise("exploding", 0.04),
    "preserving": GaussianNoise("preserving", 0.04, center=0.3, spread=0.5),
}
BITS = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
SYMBOLS = torch.eye(3, dtype=torch.float64)[:, None]
FINITE: dict[str, tuple[Noise, torch.Tensor]] = {
    "bits": (BitNoise(0.2), BITS),
    "symbols": (SymbolNoise(0.2), SYMBOLS),
}


def moments(kernel: Kernel) -> tuple[float, float]:
    assert isinstance(kernel, NormalKernel)
    return kernel.mean.item(), kernel.variance.item()


@pytest.mark.parametrize("form", FORMS)
def test_gaussian_marginals_are_composed_steps(form: str) -> None:
    noise, x = FORMS[form], torch.full((1, 1), 1.7, dtype=torch.float64)
    mean, variance = 1.7, 0.0
    for level in LEVELS:
        # The law of total variance, through a step that is linear in its source.
        (at_0, added), (at_1, _) = (
            moments(noise.step(torch.full((1, 1), s, dtype=torch.float64), level)) for s in (0.0, 1.0)
        )
        mean, variance = at_0 + (at_1 - at_0) * mean, (at_1 - at_0) ** 2 * variance + added
        assert moments(noise.marginal(x, level)) == pytest.approx((mean, variance), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gaussian_posteriors_follow_bayes_rule(form: str) -> None:
    noise = FORMS[form]
    x, s = (torch.full((1, 1), value, dtype=torch.float64) for value in (1.7, -0.4))
    grid = torch.linspace(-4, 4, 5, dtype=torch.float64)[:, None]
    for before, level in pairwise(LEVELS):
        wanted = (
            noise.step(grid, level).log_prob(s.expand(5, 1))
            + noise.marginal(x.expand(5, 1), before).log_prob(grid)
            - noise.marginal(x, level).log_prob(s)
        )
        found = noise.posterior(s.expand(5, 1), x.expand(5, 1), level).log_prob(grid)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_preserving_noise_has_the_betas_of_its_temperatures() -> None:
    # β_t = 1 - a_t², and the product of 1 - β_t is the squared signal, as Ho et al. (2020) have it.
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    noise, levels = GaussianNoise("preserving"), levels_from((-(-betas).log1p()).tolist())
    x = torch.ones(1, 1, dtype=torch.float64)
    for t in (1, 500, 1000):
        step = noise.of_step(levels[t - 1], x)
        assert step.variance.item() == pytest.approx(betas[t - 1].item(), rel=1e-10)
        signal = noise.of_marginal(levels[t - 1], x).signal.item()
        assert signal**2 == pytest.approx((1 - betas[:t]).prod().item(), rel=1e-9)


@pytest.mark.parametrize("name", FINITE)
def test_finite_marginals_and_posteriors_follow_from_steps(name: str) -> None:
    noise, states = FINITE[name]

    def matrix(kernel_at: Callable[[State], Kernel]) -> torch.Tensor:
        """Probabilities of the states in columns, from the states in rows."""
        rows = [kernel_at(states[[i]].expand_as(states)).log_prob(states) for i in range(len(states))]
        return torch.stack(rows).exp()

    composed = torch.eye(len(states), dtype=torch.float64)
    for level in LEVELS:
        before, step = composed, matrix(lambda s, level=level: noise.step(s, level))
        composed = before @ step
        torch.testing.assert_close(matrix(lambda s, level=level: noise.marginal(s, level)), composed)
        for number, target in enumerate(states):
            found = matrix(
                lambda x, level=level, target=target: noise.posterior(target.expand_as(states), x, level)
            )
            wanted = before * step[:, number]
            torch.testing.assert_close(found, wanted / wanted.sum(1, keepdim=True), atol=1e-12, rtol=1e-9)


def test_rows_at_different_levels_have_the_noise_of_their_own() -> None:
    index = torch.tensor([2, 0, 3])
    together, x, s = rows_of(stack_levels(LEVELS, 1, index.device), index), torch.rand(3, 2), torch.rand(3, 2)
    for noise in FORMS.values():
        kernels = (noise.step(s, together), noise.marginal(x, together), noise.posterior(s, x, together))
        for row, number in enumerate(index.tolist()):
            one, own = slice(row, row + 1), LEVELS[number]
            alone = (
                noise.step(s[one], own),
                noise.marginal(x[one], own),
                noise.posterior(s[one], x[one], own),
            )
            for many, single in zip(kernels, alone, strict=True):
                torch.testing.assert_close(many.log_prob(s)[one], single.log_prob(s[one]))


def test_divergences_agree_with_torch() -> None:
    a, b = torch.randn(4, 3, generator=rng(1)), torch.randn(4, 3, generator=rng(2))
    u, v = a.exp(), b.exp()
    normal = kl_divergence(Normal(a, v.sqrt()), Normal(b, u.sqrt()))
    bits = kl_divergence(Bernoulli(logits=a), Bernoulli(logits=b))
    symbols = kl_divergence(Categorical(logits=a), Categorical(logits=b))[:, None]
    pairs: list[tuple[Kernel, Kernel, torch.Tensor]] = [
        (NormalKernel(a, v), NormalKernel(b, u), normal),
        (BernoulliKernel(a), BernoulliKernel(b), bits),
        (CategoricalKernel(a), CategoricalKernel(b), symbols),
    ]
    for first, second, wanted in pairs:
        torch.testing.assert_close(divergence(first, second), wanted.sum(1))
    first, second = ProductKernel([pair[0] for pair in pairs]), ProductKernel([pair[1] for pair in pairs])
    torch.testing.assert_close(divergence(first, second), sum(pair[2].sum(1) for pair in pairs))
    assert divergence(pairs[0][0], pairs[1][1]) is None
    never = torch.tensor([[0.0, -math.inf]])
    torch.testing.assert_close(
        divergence(CategoricalKernel(never), CategoricalKernel(torch.zeros(1, 2))),
        torch.tensor([math.log(2)]),
    )


def test_stacked_kernels_of_one_kind_keep_their_divergence() -> None:
    parts = [NormalKernel(torch.randn(2, 3), torch.tensor([[scale]])) for scale in (1.0, 4.0)]
    together, other = stacked(parts, 2), NormalKernel(torch.zeros(4, 3), torch.ones(1, 3))
    each = [divergence(part, NormalKernel(torch.zeros(2, 3), torch.ones(1, 3))) for part in parts]
    torch.testing.assert_close(
        divergence(together, other), torch.cat([part for part in each if part is not None])
    )


SIGMA, U = 0.5, 1.3


def optimal(form: str, factor: float = 1.0) -> Toy:
    """The exact reverse of Gaussian noise from N(0, U), or one with another variance."""
    noise = DiffusionProcess(noise=form, sigma=SIGMA).noise  # type: ignore[arg-type]
    assert isinstance(noise, GaussianNoise)

    def conditional(state: torch.Tensor) -> Pair:
        def kernel(level: Level) -> Kernel:
            step, before = noise.of_step(level, state), noise.of_colder(level, state)
            colder = before.signal**2 * U + before.variance
            hotter = step.signal**2 * colder + step.variance
            gain = colder * step.signal / hotter
            return NormalKernel(gain * state, factor * (colder - gain**2 * hotter))

        return Pair(kernel)

    return Toy(conditional)


def diffusing(form: str, factor: float = 1.0) -> Model:
    """The operator above, with the law of s_K as prior."""
    process = DiffusionProcess(noise=form, sigma=SIGMA)  # type: ignore[arg-type]
    last = process.marginal(torch.ones(1, 2, dtype=torch.float64), LEVELS[-1])
    assert isinstance(last, NormalKernel)
    variance = (last.mean**2 * U + last.variance).expand(1, 2)[0]
    prior = gaussian(torch.zeros(2), variance)
    return Model(optimal(form, factor), ExplicitSchedule(temperatures=TEMPERATURES), process, prior)


def starts(rows: int) -> torch.Tensor:
    return math.sqrt(U) * torch.randn(rows, 2, dtype=torch.float64, generator=rng(4))


@pytest.mark.parametrize("form", FORMS)
def test_the_work_of_an_exact_reverse_is_the_likelihood_on_every_path(form: str) -> None:
    x = starts(50)
    path = heating_work(diffusing(form), x, LEVELS, rng(5))
    wanted = -torch.as_tensor(stats.norm.logpdf(x.numpy(), scale=math.sqrt(U))).sum(1)
    torch.testing.assert_close(path.work, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [1.0, 1.5])
@pytest.mark.parametrize("form", FORMS)
def test_exact_terms_have_the_expectation_of_sampled_ones_and_less_variance(form: str, factor: float) -> None:
    # z < 4.5 fails with probability 7e-6.
    path = heating_work(diffusing(form, factor), starts(20000), LEVELS, rng(6))
    assert path.terms is not None
    difference = path.bound.work - path.work
    assert abs(difference.mean() / (difference.std() / math.sqrt(len(difference)))) < LIMIT
    if factor > 1:  # else sampled works are the likelihood, which varies over data only
        sampled, exact = (part.production[:, 1:].sum(1).var() for part in (path, path.bound))
        assert exact < sampled


@pytest.mark.parametrize("form", FORMS)
def test_jumps_have_the_law_of_walks(form: str) -> None:
    # Second moments of (s_{t-1}, s_t) of each level, 12 z-scores a form below 4.5: fails with probability 1e-4.
    model, x = diffusing(form), starts(30000)
    start = Start(x, prior=model.prior)
    walked = {step.level.step: (step.source, step.target) for step in model.walk(start, LEVELS, rng(7))}
    jumped: dict[int, list[torch.Tensor]] = {t: [] for t in walked}
    for step in model.path(start, LEVELS, rng(8)):
        of_rows = torch.as_tensor(step.level.step).expand(len(x))
        pair = torch.stack([leaves(step.source)[0], leaves(step.target)[0]], 1)
        for t in walked:
            jumped[t].append(pair[of_rows == t])
    for t, states in walked.items():
        parts = [torch.stack([leaves(state)[0] for state in states], 1), torch.cat(jumped[t])]
        assert len(parts[1]) == len(x)
        products = [part[:, [0, 0, 1], 0] * part[:, [0, 1, 1], 0] for part in parts]
        mean, other = (part.mean(0) for part in products)
        error = (sum(part.var(0) / len(part) for part in products)).sqrt()
        assert ((mean - other).abs() / error).max() < LIMIT


def test_the_objective_kl_is_the_term_of_the_bound_and_needs_a_posterior() -> None:
    model = diffusing("exploding", 1.5)
    loss = PosteriorDivergence()
    for step in model.path(Start(starts(40), prior=model.prior), LEVELS, rng(9)):
        first = torch.as_tensor(step.level.elapsed).expand(40) == 0
        assert torch.equal(loss(step)[first], -step.log_p[first])
        exact = divergence(step.posterior, step.reverse) if step.posterior else None
        assert exact is not None
        assert torch.equal(loss(step)[~first], exact[~first])
    (step, *_) = model.walk(Start(starts(4)), LEVELS, rng(9))
    with pytest.raises(ConfigurationError, match="does not know"):
        loss(step)


def test_noise_that_does_not_fit_the_states_is_refused() -> None:
    prior = GaussianPrior(Space((2,)))
    for name in ("flips", "symbols"):
        process = DiffusionProcess(noise=name)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=rf"process.noise = '{name}'"):
            next(process.path(optimal("exploding"), Start(torch.rand(3, 2), prior=prior), LEVELS, rng(1)))


def test_noise_starts_from_the_middle_of_a_gray_level_whatever_its_dequantization() -> None:
    process, plain = (
        DiffusionProcess(noise="preserving", sigma=0.2, middles=middles) for middles in (4, None)
    )
    s = torch.tensor([[0.0], [0.26], [0.49], [1.0]], dtype=torch.float64)
    middle = torch.tensor([[0.125], [0.375], [0.375], [0.875]], dtype=torch.float64)
    conditional = Pair(lambda level: NormalKernel(s, s))
    pairs = (
        *((process.marginal(s, level), plain.marginal(middle, level)) for level in LEVELS),
        *((process.posterior(s, level, s), plain.posterior(s, level, middle)) for level in LEVELS[1:]),
        (process.heating(conditional, s, LEVELS[0], s), plain.heating(conditional, middle, LEVELS[0], s)),
        (process.heating(conditional, s, LEVELS[1], s), plain.heating(conditional, s, LEVELS[1], s)),
    )
    for found, wanted in pairs:
        assert isinstance(found, NormalKernel)
        assert isinstance(wanted, NormalKernel)
        assert found.mean.equal(wanted.mean)
        assert found.variance.equal(wanted.variance)
    with pytest.raises(ConfigurationError, match=r"process\.middles = 4 with process\.noise = 'flips'"):
        DiffusionProcess(noise="flips", middles=4)
