"""The paper's operators: every form of mean, variance and temperature against its equations in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from tests.toy.learned import shaken
from tests.toy.paper import (
    bernoulli_conv,
    bernoulli_mlp,
    bernoulli_plain_mlp,
    gaussian_conv,
    gaussian_mlp,
    gaussian_plain_mlp,
)
from tests.toy.statistics import LIMIT, normal, rng, z_score
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel
from walkback.levels import stack_levels
from walkback.operators import TransitionOperator
from walkback.schedules import Level, levels_from
from walkback.state import Space, StateSpace, leaves
from walkback_paper.bernoulli import Bernoulli
from walkback_paper.gaussian import Gaussian
from walkback_paper.moments import largest_variance

Options: TypeAlias = dict[str, Any]

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8), (1, 7, 9), (3, 1, 5)]
FORMS = [
    {"mean": mean, "variance": variance, "temperature_law": law}
    for mean, variance, law in product(
        ["mix", "preconditioned"], ["fixed", "tied", "softplus", "reverse"], ["variance", "std"]
    )
]
BITS_FORMS = [
    {"mean": "mix", "heating": "tied"},
    {"mean": "preconditioned", "heating": "tied"},
    {"mean": "preconditioned", "heating": "flips"},
]
SIGMA = 0.25
IMAGE = (1, 4, 6)


def form_name(form: Options) -> str:
    return "-".join(form.values())


every_form = pytest.mark.parametrize("form", FORMS, ids=form_name)
every_bits_form = pytest.mark.parametrize("form", BITS_FORMS, ids=form_name)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def small_conv(shape: tuple[int, ...] = IMAGE, **options: Any) -> Gaussian:
    return gaussian_conv(Space(shape), **{"sigma": SIGMA, "channels": (4, 6), "hidden": 8, **options})


def small_mlp(shape: tuple[int, ...] = IMAGE, **options: Any) -> Gaussian:
    return gaussian_mlp(Space(shape), **{"sigma": SIGMA, "hidden": 8, "depth": 2, **options})


def small_plain(shape: tuple[int, ...] = IMAGE, **options: Any) -> Gaussian:
    return gaussian_plain_mlp(Space(shape), **{"sigma": SIGMA, "hidden": (8, 6), **options})


def small_bernoulli_conv(shape: tuple[int, ...] = IMAGE, **options: Any) -> Bernoulli:
    return bernoulli_conv(Space(shape, "binary"), **{"channels": (4, 6), "hidden": 8, **options})


def small_bernoulli_mlp(shape: tuple[int, ...] = IMAGE, **options: Any) -> Bernoulli:
    return bernoulli_mlp(Space(shape, "binary"), **{"hidden": 8, "depth": 2, **options})


def small_bernoulli_plain(shape: tuple[int, ...] = IMAGE, **options: Any) -> Bernoulli:
    return bernoulli_plain_mlp(Space(shape, "binary"), **{"hidden": (8, 6), **options})


def images(num: int, shape: tuple[int, ...] = IMAGE, seed: int = 0) -> Tensor:
    """Examples whose mean and scale are neither 0 nor 1."""
    return (
        3
        + 2
        * normal(num, *shape, seed=seed)
        * torch.linspace(0.1, 1, math.prod(shape)).reshape(shape).double()
    )


def ready(operator: Gaussian) -> Gaussian:
    """In float64 and evaluation mode, with random weights, fitted to data."""
    shaken(operator, size=0.2).fit_data(images(40))
    return operator.eval()


def normal_of(kernel: Kernel) -> NormalKernel:
    assert isinstance(kernel, NormalKernel)
    return kernel


def check_kernel(kernel: Kernel, state: Tensor) -> None:
    drawn = leaves(kernel.sample(rng()))[0]
    assert (drawn.shape, drawn.dtype) == (state.shape, state.dtype)
    log_prob = kernel.log_prob(drawn)
    assert log_prob.shape == (len(state),)
    assert bool(log_prob.isfinite().all())


@every_form
@every_shape
def test_gaussian_kernels_have_the_shape_of_the_images(shape: tuple[int, ...], form: Options) -> None:
    for operator in (small_conv(shape, **form), small_mlp(shape, **form), small_plain(shape, **form)):
        operator.fit_data(images(5, shape).float())
        for rows, training in ((1, False), (3, False), (3, True)):
            state = images(rows, shape).float()
            conditional = operator.train(training)(state, Level(2, 4.0))
            check_kernel(conditional.cooling(Level(2, 4.0)), state)
            check_kernel(conditional.heating(Level(3, 8.0)), state)


@every_bits_form
@every_shape
def test_bernoulli_kernels_have_the_shape_of_the_images(shape: tuple[int, ...], form: Options) -> None:
    for make in (small_bernoulli_conv, small_bernoulli_mlp, small_bernoulli_plain):
        operator = make(shape, **form)
        for rows, training in ((1, False), (3, False), (3, True)):
            state = (images(rows, shape) > 3).float()
            conditional = operator.train(training)(state, Level(2, 4.0))
            check_kernel(conditional.cooling(Level(2, 4.0)), state)
            check_kernel(conditional.heating(Level(3, 8.0)), state)


def seen(
    operator: TransitionOperator, network: nn.Module, state: Tensor, level: Level
) -> tuple[Any, Any, Any]:
    """What the operator makes of a state, and what its network was given and gave."""
    record: list[Any] = []
    with (
        network.register_forward_hook(lambda _, inputs, outputs: record.append((inputs, outputs))),
        torch.no_grad(),
    ):
        conditional = operator(state, level)
    ((inputs, outputs),) = record
    given, told = inputs
    return conditional, [given.numpy(), told.log2_temperature.numpy()], [x.numpy() for x in outputs]


@every_form
@pytest.mark.parametrize("make", [small_conv, small_mlp, small_plain])
def test_gaussian_equations(make: Callable[..., Gaussian], form: Options) -> None:
    """Mean and both variances, from the network's inputs and outputs, as DESIGN section 8 writes them."""
    operator, temperature, alpha = ready(make(alpha=0.3, **form)), 3.0, 0.3
    data, state = images(40).numpy(), images(5, seed=1)
    m, variance_of_data = data.mean(0), data.var(0).mean()
    level = Level(2, temperature)
    conditional, (given, log2_t), outputs = seen(operator, operator.network, state, level)
    s, v1 = state.numpy(), float(operator.parametrization.noise_variance)
    power = 1 if form["temperature_law"] == "variance" else 2
    v = v1 * temperature**power
    if form["mean"] == "mix":
        expected_input = (s - m) / np.sqrt(variance_of_data)
        mean = (1 - alpha) * s + alpha * (m + np.sqrt(variance_of_data) * outputs[0])
    else:
        expected_input = (s - m) / np.sqrt(v + variance_of_data)
        c_skip = variance_of_data / (v + variance_of_data)
        c_out = np.sqrt(v) * np.sqrt(variance_of_data) / np.sqrt(v + variance_of_data)
        mean = m + c_skip * (s - m) + c_out * outputs[0]
    cooling, heating = normal_of(conditional.cooling(level)), normal_of(conditional.heating(level))
    np.testing.assert_allclose(given, expected_input, rtol=1e-12)
    np.testing.assert_allclose(log2_t, np.log2(temperature))
    np.testing.assert_allclose(cooling.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(heating.mean, mean, rtol=1e-12)
    expected_cooling, expected_heating = expected_variances(form["variance"], v, outputs)
    np.testing.assert_allclose(cooling.variance.expand(s.shape), expected_cooling, rtol=1e-10)
    np.testing.assert_allclose(heating.variance.expand(s.shape), expected_heating, rtol=1e-10)
    assert v1 == pytest.approx(SIGMA**2)


def expected_variances(form: str, v: float, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Cooling and heating variances where the noise has variance v."""
    plain = np.full(outputs[0].shape, v)
    if form == "fixed":
        return plain, plain
    if form == "tied":
        tied = v * 4 ** np.tanh(outputs[1])
        return tied, tied
    if form == "softplus":
        free = v * (np.log1p(np.exp(outputs[1] + np.log(np.e - 1))) ** 2 + 1e-6)
        return free, free
    return v * (np.log1p(np.exp(outputs[1] + np.log(np.e - 1))) + 1e-6), plain


@every_form
def test_the_same_kernel_both_ways_unless_reverse(form: Options) -> None:
    """All but reverse heat with the kernel that cools; reverse heats with the noise of σ², whatever is learned."""
    operator, state, x = ready(small_mlp(**form)), images(5, seed=1), images(5, seed=2)
    for level in levels_from([1.0, 5.0]):
        conditional = operator(state, level)
        cooling, heating = normal_of(conditional.cooling(level)), normal_of(conditional.heating(level))
        same = cooling.log_prob(x).equal(heating.log_prob(x))
        assert same == (form["variance"] != "reverse")
        learned = form["variance"] in ("tied", "softplus")
        if not learned:
            factor = float(level.temperature) ** (1 if form["temperature_law"] == "variance" else 2)
            np.testing.assert_allclose(heating.variance, SIGMA**2 * factor, rtol=1e-6)
        assert heating.variance.requires_grad == learned


def test_the_tied_variance_stays_within_its_bounds() -> None:
    operator, state = shaken(small_mlp(variance="tied"), size=30.0), images(50)
    variance = normal_of(operator(state, Level(1, 1.0)).cooling(Level(1, 1.0))).variance / SIGMA**2
    assert variance.max().item() == pytest.approx(4, rel=1e-3)
    assert variance.min().item() == pytest.approx(1 / 4, rel=1e-3)


@every_form
@pytest.mark.parametrize("make", [small_conv, small_mlp, small_plain])
def test_a_new_gaussian_operator_adds_noise_of_size_sigma(
    make: Callable[..., Gaussian], form: Options
) -> None:
    """Heads start at zero: the mean is the skip connection, both variances are σ² (to the floor of the ratio)."""
    operator, state = make(**form).eval(), images(3).float()
    operator.fit_data(images(40).float())
    kernel = normal_of(operator(state, Level(1, 1.0)).cooling(Level(1, 1.0)))
    m, variance = images(40).mean(0), float(images(40).var(0, correction=0).mean())
    keep = 0.5 if form["mean"] == "mix" else variance / (variance + SIGMA**2)
    torch.testing.assert_close(kernel.mean, (m + keep * (state.double() - m)).float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kernel.variance.mean(), torch.tensor(SIGMA**2), rtol=2e-6, atol=0)


@pytest.mark.parametrize("num", [20, 300])
def test_the_preconditioned_mean_is_the_posterior_mean_of_gaussian_data(num: int) -> None:
    """With F = 0 and isotropic data: E[s_{t-1} | s_t] for s_t = s_{t-1} + σ√T ε, by regression of the formula."""
    operator = small_mlp((2,)).double().eval()
    data = images(num, (2,))
    operator.fit_data(data)
    level = Level(3, 4.0)
    prior = float(operator.parametrization.data_variance)
    s = images(5, (2,), seed=1)
    posterior = (data.mean(0) / prior + s / (4 * SIGMA**2)) / (1 / prior + 1 / (4 * SIGMA**2))
    torch.testing.assert_close(
        normal_of(operator(s, level).cooling(level)).mean, posterior, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("shape", [(3,), (1, 3, 4), (2, 8, 10)])
@pytest.mark.parametrize(("law", "root"), [("variance", 1), ("std", 2)])
def test_max_temperature_is_the_widest_variance_over_that_of_the_noise(
    shape: tuple[int, ...], law: Any, root: int
) -> None:
    """σ_max²/σ² by numpy's eigenvalues, with more and with fewer examples than dimensions; its root for the std law."""
    operator = small_mlp(shape, temperature_law=law)
    data = images(30, shape)
    operator.fit_data(data.float())
    covariance = np.cov(data.numpy().reshape(30, -1), rowvar=False, bias=True)
    expected = (np.linalg.eigvalsh(covariance)[-1] / SIGMA**2) ** (1 / root)
    assert operator.max_temperature == pytest.approx(expected, rel=1e-4)


def test_correlated_data_are_wider_than_any_of_their_dimensions() -> None:
    data = normal(500, 1) @ torch.ones(1, 4, dtype=torch.float64)
    assert largest_variance(data) == pytest.approx(4 * data[:, 0].var(correction=0).item())


@every_form
def test_data_that_never_vary_leave_a_finite_density(form: Options) -> None:
    operator, state = small_mlp(**form), torch.ones(3, *IMAGE)
    operator.fit_data(state)
    kernel = operator(state, Level(1, 1.0)).cooling(Level(1, 1.0))
    assert bool(kernel.log_prob(state).isfinite().all())


def test_data_thinner_than_the_noise_need_one_temperature() -> None:
    operator = small_mlp()
    operator.fit_data(1e-3 * images(9).float())
    assert operator.max_temperature == 1.0


@every_form
@pytest.mark.parametrize("make", [small_conv, small_mlp, small_plain])
def test_gaussian_rows_at_different_levels_equal_levels_one_by_one(
    make: Callable[..., Gaussian], form: Options
) -> None:
    check_rows(ready(make(**form)), images(6, seed=1))


@every_bits_form
@pytest.mark.parametrize("make", [small_bernoulli_conv, small_bernoulli_mlp, small_bernoulli_plain])
def test_bernoulli_rows_at_different_levels_equal_levels_one_by_one(
    make: Callable[..., Bernoulli], form: Options
) -> None:
    check_rows(shaken(make(**form), size=0.2).eval(), (images(6, seed=1) > 3).double())


def check_rows(operator: TransitionOperator, state: Tensor) -> None:
    """Both kernels of rows at three levels, two rows each."""
    levels = levels_from([1.0, 2.0, 16.0])
    level = stack_levels(levels, 2, torch.device("cpu"))
    together = operator(state, level)
    for index, own in enumerate(levels):
        rows = slice(2 * index, 2 * index + 2)
        alone = operator(state[rows], own)
        for whole, part in (
            (together.cooling(level), alone.cooling(own)),
            (together.heating(level), alone.heating(own)),
        ):
            torch.testing.assert_close(
                whole.log_prob(state)[rows], part.log_prob(state[rows]), rtol=1e-10, atol=1e-10
            )


def test_the_temperature_matters_to_a_conditioned_network_only() -> None:
    state = images(4)
    for conditioning in ("film", "embedding", "none"):
        operator = ready(small_mlp(mean="mix", variance="fixed", conditioning=conditioning))
        means = [normal_of(operator(state, Level(1, t)).cooling(Level(1, 1.0))).mean for t in (1.0, 8.0)]
        assert means[0].equal(means[1]) == (conditioning == "none")


LEARNERS: dict[str, tuple[Callable[..., TransitionOperator], Options]] = {
    **{f"mlp-{form_name(form)}": (small_mlp, form) for form in FORMS},
    **{f"conv-{norm}": (small_conv, {"norm": norm}) for norm in ("table", "batch", "layer", "group", "none")},
    **{f"plain-{norm}": (small_plain, {"norm": norm}) for norm in ("batch", "layer", "none")},
    **{
        f"{name}-{how}": (make, {"conditioning": how})
        for name, make in (("mlp", small_mlp), ("plain", small_plain), ("conv", small_conv))
        for how in ("embedding", "none")
    },
    "learned-alpha": (small_mlp, {"mean": "mix", "learn_alpha": True}),
    "bernoulli-learned-alpha": (
        small_bernoulli_plain,
        {"mean": "mix", "heating": "tied", "learn_alpha": True},
    ),
    "conv-tied": (small_conv, {"variance": "tied", "norm": "group"}),
    **{f"bernoulli-mlp-{form_name(form)}": (small_bernoulli_mlp, form) for form in BITS_FORMS},
    "bernoulli-conv": (small_bernoulli_conv, {"norm": "group"}),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_gradients_reach_every_weight(name: str) -> None:
    """After three updates: heads start at zero, the scales of features after them, and the embedding learns last."""
    make, options = LEARNERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        operator = make(**options)
    binary = isinstance(operator, Bernoulli)
    operator.double().train()
    state, target = ((images(16, seed=s) > 3).double() if binary else images(16, seed=s) for s in (1, 2))
    optimizer, level = torch.optim.Adam(operator.parameters(), lr=0.01), Level(2, 2.0)
    for _ in range(4):
        optimizer.zero_grad()
        (-operator(state, level).cooling(level).log_prob(target).mean()).backward()
        optimizer.step()
    unreached = [
        name for name, weight in operator.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert unreached == []


@every_bits_form
@pytest.mark.parametrize("make", [small_bernoulli_conv, small_bernoulli_mlp, small_bernoulli_plain])
def test_bernoulli_equations(make: Callable[..., Bernoulli], form: Options) -> None:
    """Logits of both directions at T, from the network's inputs and outputs, as the module writes them."""
    alpha, flip, temperature = 0.3, 0.05, 3.0
    operator = shaken(make(alpha=alpha, flip=flip, **form), size=0.2).eval()
    state, level = (images(5, seed=1) > 3).double(), Level(2, temperature)
    conditional, (given, log2_t), (output,) = seen(operator, operator.network, state, level)
    s, c = state.numpy(), math.log((1 - flip) / flip)
    tied = ((1 - alpha) * s + alpha * output) if form["mean"] == "mix" else c * (2 * s - 1) + output
    cooling, heating = tied / temperature, tied / temperature
    if form["heating"] == "flips":
        cooling, heating = c * (2 * s - 1) / temperature + output, c * (2 * s - 1) / temperature
    np.testing.assert_allclose(given, 2 * s - 1)
    np.testing.assert_allclose(log2_t, np.log2(temperature))
    for kernel, logits in ((conditional.cooling(level), cooling), (conditional.heating(level), heating)):
        assert isinstance(kernel, BernoulliKernel)
        np.testing.assert_allclose(kernel.logits, logits, rtol=1e-12)


def test_a_new_bernoulli_operator_flips_bits_with_probability_epsilon() -> None:
    """Share of flips among 30,000 bits at T = 1, |z| < 4.5; and a fair coin within 5 % at T_max."""
    operator = small_bernoulli_mlp((300,), flip=0.02).eval()
    state = (normal(100, 300) > 0).float()
    for kernel in (operator(state, Level(1, 1.0)).cooling, operator(state, Level(1, 1.0)).heating):
        drawn = leaves(kernel(Level(1, 1.0)).sample(rng()))[0]
        assert abs(z_score((drawn != state).double(), 0.02)) < LIMIT
        hottest = kernel(Level(9, operator.max_temperature))
        assert isinstance(hottest, BernoulliKernel)
        assert (hottest.logits.sigmoid() - 0.5).abs().max() < 0.05 + 1e-6


@pytest.mark.parametrize(
    ("cls", "space"),
    [
        (cls, space)
        for cls in (gaussian_mlp, gaussian_conv, gaussian_plain_mlp)
        for space in (Space((1, 8, 8), "binary"), (Space((2,)), Space((2,))))
    ],
)
def test_gaussian_operators_refuse_what_is_not_one_real_tensor(
    cls: Callable[..., Gaussian], space: StateSpace
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"for a Gaussian operator, expected one real tensor: .*Bernoulli operator"
    ):
        cls(space)


@pytest.mark.parametrize(
    ("cls", "space"),
    [
        (cls, space)
        for cls in (bernoulli_mlp, bernoulli_conv, bernoulli_plain_mlp)
        for space in (Space((1, 8, 8)), (Space((2,), "binary"), Space((2,), "binary")))
    ],
)
def test_bernoulli_operators_refuse_what_is_not_one_binary_tensor(
    cls: Callable[..., Bernoulli], space: StateSpace
) -> None:
    with pytest.raises(ConfigurationError, match=r"binarize.*Gaussian operator"):
        cls(space)


@pytest.mark.parametrize("make", [small_conv, small_bernoulli_conv])
@pytest.mark.parametrize("shape", [(5,), (8, 8)])
def test_convolutions_refuse_data_that_are_not_images(
    make: Callable[..., TransitionOperator], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="expected images"):
        make(shape)


def test_the_mixing_form_has_no_flips_to_heat_with() -> None:
    with pytest.raises(ConfigurationError, match=r"operator\.heating"):
        small_bernoulli_mlp(mean="mix", heating="flips")


def test_moments_of_the_data_travel_with_the_weights() -> None:
    """A restored operator has the same kernels and the same T_max."""
    trained, restored = ready(small_mlp()), small_mlp().double().eval()
    restored.load_state_dict(trained.state_dict())
    level, state = Level(2, 2.0), images(3, seed=1)
    densities = [operator(state, level).cooling(level).log_prob(state) for operator in (trained, restored)]
    assert densities[0].equal(densities[1])
    assert restored.max_temperature == trained.max_temperature > 1


@pytest.mark.parametrize("make", [small_mlp, small_bernoulli_mlp])
def test_a_learned_alpha_mixes_as_a_given_one(make: Callable[..., Any]) -> None:
    """It starts where it is told to, travels with the weights, and follows sigmoid(a)."""
    tied = {"mean": "mix", "heating": "tied"} if make is small_bernoulli_mlp else {"mean": "mix"}
    given, learned = (make(alpha=0.3, learn_alpha=learn, **tied) for learn in (False, True))
    shaken(given, size=0.2)
    weights = {**learned.double().state_dict(), **given.state_dict()}
    learned.load_state_dict(weights)
    state, level = (images(5, seed=1) > 3).double(), Level(1, 1.0)

    def log_prob(operator: TransitionOperator) -> Tensor:
        return operator.eval()(state, level).cooling(level).log_prob(state.flip(0))

    torch.testing.assert_close(log_prob(learned), log_prob(given), rtol=1e-6, atol=1e-6)
    weights["parametrization.mixing.logit"] = torch.tensor(math.log(0.8 / 0.2))
    learned.load_state_dict(weights)
    other = make(alpha=0.8, **tied).double()
    other.load_state_dict(given.state_dict())
    torch.testing.assert_close(log_prob(learned), log_prob(other), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [small_mlp, small_bernoulli_mlp])
def test_an_alpha_that_cannot_be_learned(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"operator\.learn_alpha = true .*only the mixing form"):
        make(learn_alpha=True)
    with pytest.raises(ConfigurationError, match=r"operator\.alpha = 1 .*expected less than 1"):
        make(
            learn_alpha=True,
            alpha=1.0,
            mean="mix",
            **({"heating": "tied"} if make is small_bernoulli_mlp else {}),
        )


@pytest.mark.parametrize("make", [small_conv, small_mlp, small_plain])
def test_sigma_as_a_share_of_the_scale_of_the_data(make: Callable[..., Gaussian]) -> None:
    """σ² = share² times the mean over pixels of numpy's variance; kept in a checkpoint; T_max follows."""
    operator = make(sigma_share=0.2).double()
    operator.fit_data(images(40))
    noise = 0.2**2 * images(40).numpy().var(0).mean()
    variance = normal_of(operator.eval()(images(3), Level(1, 1.0)).heating(Level(1, 1.0))).variance
    np.testing.assert_allclose(variance, noise, rtol=1e-12)
    assert operator.max_temperature == pytest.approx(largest_variance(images(40)) / noise)
    restored = make(sigma_share=0.2).double()
    restored.load_state_dict(operator.state_dict())
    assert restored.parametrization.noise_variance.equal(operator.parametrization.noise_variance)


def test_a_free_variance_goes_where_a_tied_one_is_held() -> None:
    """Both heads pushed far up: the free variance grows with them, the tied one stays within a factor of 4."""
    ratios = {}
    for variance in ("softplus", "tied"):
        operator = small_mlp(variance=variance).double()
        with torch.no_grad():
            torch.nn.init.constant_(operator.network.get_parameter("heads.1.bias"), 50.0)
        kernel = normal_of(operator(images(3), Level(1, 1.0)).heating(Level(1, 1.0)))
        ratios[variance] = float(kernel.variance.detach().max()) / SIGMA**2
    assert ratios["tied"] <= 4 * (1 + 1e-6)
    assert ratios["softplus"] > 2000
