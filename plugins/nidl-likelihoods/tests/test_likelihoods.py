"""What every likelihood owes, driven by one table of cases, against scipy."""

from __future__ import annotations

import copy
import doctest
import importlib
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, special, stats
from torch import Tensor

import nidl_likelihoods
from nidl_core.errors import InvalidParameter, ShapeError
from nidl_core.interfaces import Likelihood
from nidl_likelihoods import Bernoulli, Laplace, Normal

Array = NDArray[np.float64]


@dataclass
class Case:
    """A likelihood, its P, its state, and a frozen scipy distribution made from theta's blocks."""

    make: Callable[[], Likelihood]
    reference: Callable[..., stats.rv_frozen]
    parts: int = 1
    state: tuple[str, ...] = ()
    binary: bool = False

    def log_prob(self, theta: Tensor, x: Tensor) -> Array:
        """log p of each value by scipy, (N, C, *S)."""
        p = self.reference(*np.split(theta.numpy(), self.parts, axis=1))
        return p.logpmf(x.numpy()) if self.binary else p.logpdf(x.numpy())


def shared() -> Normal:
    likelihood = Normal("shared", min_scale=0.01)
    with torch.no_grad():
        likelihood.log_scale.fill_(-0.5)
    return likelihood


def optimal() -> Normal:
    likelihood = Normal("optimal")
    likelihood.observe(torch.full((2, 3), 1.5), torch.zeros(2, 3))  # s* = 1.5
    return likelihood


def softplus(raw: Array) -> Array:
    return np.logaddexp(0, raw)


CASES = {
    "normal": Case(Normal, lambda mu: stats.norm(mu, 1.0)),
    "normal-0.3": Case(lambda: Normal(scale=0.3), lambda mu: stats.norm(mu, 0.3)),
    "normal-learned": Case(
        lambda: Normal("learned", min_scale=0.01),
        lambda mu, raw: stats.norm(mu, 0.01 + softplus(raw)),
        parts=2,
    ),
    "normal-shared": Case(
        lambda: shared().double(),
        lambda mu: stats.norm(mu, 0.01 + math.exp(-0.5)),
        state=("log_scale",),
    ),
    "normal-optimal": Case(
        lambda: optimal().double(),
        lambda mu: stats.norm(mu, 1.5),
        state=("observations", "variance"),
    ),
    "laplace": Case(Laplace, lambda mu: stats.laplace(mu, 1.0)),
    "laplace-2": Case(lambda: Laplace(scale=2), lambda mu: stats.laplace(mu, 2.0)),
    "laplace-learned": Case(
        lambda: Laplace("learned", min_scale=0.01),
        lambda mu, raw: stats.laplace(mu, 0.01 + softplus(raw)),
        parts=2,
    ),
    "bernoulli": Case(Bernoulli, lambda logit: stats.bernoulli(special.expit(logit)), binary=True),
}
SHAPES = [(3, 2, 4, 5, 3), (2, 1, 7, 3), (1, 3, 5), (4, 3), (1, 1)]

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def draw(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Draw theta (N, P*C, *S) and x (N, C, *S), the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    theta_shape = (shape[0], case.parts * shape[1], *shape[2:])
    theta = 2 * torch.randn(theta_shape, generator=generator, dtype=dtype)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    return theta, (x > 0).to(dtype) if case.binary else x


@every_case
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_prob_is_scipys_summed_over_the_sample(case: Case, shape: tuple[int, ...]) -> None:
    theta, x = draw(case, shape, torch.float64)
    p = case.make()(theta)
    assert (p.batch_shape, p.event_shape) == (shape[:1], shape[1:])
    expected = case.log_prob(theta, x).reshape(shape[0], -1).sum(axis=1)
    np.testing.assert_allclose(p.log_prob(x).detach().numpy(), expected, rtol=1e-12)


@every_case
def test_params_per_value_splits_theta(case: Case) -> None:
    assert case.make().params_per_value == case.parts


@every_case
def test_gradient_is_that_of_finite_differences(case: Case) -> None:
    likelihood = case.make()
    theta, x = draw(case, (2, 1, 3, 2), torch.float64)
    names = [name for name, _ in likelihood.named_parameters()]

    def log_prob(theta: Tensor, *parameters: Tensor) -> Tensor:
        values = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(likelihood, values, (theta,)).log_prob(x)

    inputs = (theta.requires_grad_(), *likelihood.parameters())
    assert torch.autograd.gradcheck(log_prob, inputs)


@every_case
def test_density_integrates_to_one(case: Case) -> None:
    theta = torch.tensor([[0.4, -0.7][: case.parts]], dtype=torch.float64)
    p = case.make()(theta)

    def density(x: float) -> float:
        return p.log_prob(torch.full((1, 1), x, dtype=torch.float64)).exp().item()

    if case.binary:
        total = density(0.0) + density(1.0)
    else:  # in two halves: a Laplace has a corner at its location
        total = sum(integrate.quad(density, *ab)[0] for ab in ((-math.inf, 0.4), (0.4, math.inf)))
    assert total == pytest.approx(1, abs=1e-8)


@every_case
def test_moments_and_samples_are_scipys(case: Case) -> None:
    n = 100_000
    theta = torch.tensor([[0.4, -0.7][: case.parts]], dtype=torch.float64)
    mean, variance, _, kurtosis = case.reference(*theta[0].tolist()).stats("mvsk")
    p = case.make()(theta)
    np.testing.assert_allclose(p.mean.detach(), [[mean]], rtol=1e-12)
    np.testing.assert_allclose(p.variance.detach(), [[variance]], rtol=1e-12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        samples = p.sample((n,))
    assert samples.shape == (n, 1, 1)
    error_of_mean = math.sqrt(variance / n)
    error_of_variance = variance * math.sqrt((kurtosis + 2) / n)
    assert samples.mean().item() == pytest.approx(mean, abs=5 * error_of_mean)
    assert samples.var().item() == pytest.approx(variance, abs=5 * error_of_variance)


@every_case
def test_float32_keeps_six_digits_over_ten_million_values(case: Case) -> None:
    likelihood = case.make().float()
    theta, x = draw(case, (1, 1, 200, 250, 200), torch.float32)
    with torch.no_grad():
        single = likelihood(theta).log_prob(x)
        double = likelihood(theta.double()).log_prob(x.double())
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert single.item() == pytest.approx(double.item(), rel=1e-6)


@every_case
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_theta_is_raised_to_float32(case: Case, half: torch.dtype) -> None:
    theta, x = draw(case, (2, 3, 4), torch.float64)
    theta = theta.to(half)
    actual = case.make().float()(theta).log_prob(x.float())
    expected = case.log_prob(theta.double(), x.float().double()).sum(axis=(1, 2))
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=2e-6)


@every_case
def test_autocast_changes_neither_value_nor_dtype(case: Case) -> None:
    layer = torch.nn.Linear(6, 6 * case.parts)
    likelihood = case.make().float()
    _, x = draw(case, (4, 6), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theta = layer(x)
        likelihood_in = likelihood(theta).log_prob(x)
    assert (theta.dtype, likelihood_in.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(likelihood_in, likelihood(theta.float()).log_prob(x), rtol=0, atol=0)
    likelihood_in.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all() and layer.weight.grad.abs().sum() > 0


@every_case
def test_state_dict_carries_all_that_was_learned(case: Case) -> None:
    trained = case.make().eval()
    state = trained.state_dict()
    assert tuple(sorted(state)) == case.state
    fresh = type(trained)(**arguments(trained)).to(torch.float64).eval()
    fresh.load_state_dict(state, strict=True)
    theta, x = draw(case, (2, 3, 4), torch.float64)
    assert torch.equal(fresh(theta).log_prob(x), trained(theta).log_prob(x))


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_copies_give_the_same_values(case: Case, training: bool) -> None:
    likelihood = case.make().train(training)
    theta, x = draw(case, (2, 3, 4), torch.float64)
    p = likelihood(theta)
    expected = p.log_prob(x)
    for twin in (pickle.loads(pickle.dumps(likelihood)), copy.deepcopy(likelihood)):
        assert torch.equal(twin(theta).log_prob(x), expected)
    with torch.no_grad():
        q = likelihood(theta)
    assert torch.equal(pickle.loads(pickle.dumps(q)).log_prob(x), expected)
    assert torch.equal(p.expand((5, 2)).log_prob(x), expected.expand(5, 2))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("normal")])
def test_only_the_optimal_scale_learns_by_observing(name: str) -> None:
    case = CASES[name]
    likelihood = case.make()
    theta, x = draw(case, (2, 3, 4), torch.float64)
    before = {key: value.clone() for key, value in likelihood.state_dict().items()}
    expected = likelihood(theta).log_prob(x)
    likelihood.observe(x, theta)
    after = likelihood.state_dict()
    changed = sorted(key for key in after if not torch.equal(after[key], before[key]))
    learns = name == "normal-optimal"
    assert changed == (["observations", "variance"] if learns else [])
    assert torch.equal(likelihood(theta).log_prob(x), expected) is not learns


BAD = "a finite number above 0"
BAD_NORMAL = f"scale must be {BAD}, or 'learned' or 'shared' or 'optimal', got scale="
BAD_LAPLACE = f"scale must be {BAD}, or 'learned', got scale="


@pytest.mark.parametrize(
    "value", [-1, 0, 0.0, math.nan, math.inf, "foo", True, None, [1.0]], ids=repr
)
@pytest.mark.parametrize(
    ("component", "message"),
    [(Normal, BAD_NORMAL), (Laplace, BAD_LAPLACE)],
    ids=["normal", "laplace"],
)
def test_impossible_scale_is_refused(
    component: type[Likelihood], message: str, value: object
) -> None:
    with pytest.raises(InvalidParameter) as info:
        component(scale=value)
    assert str(info.value) == f"{message}{value!r}."
    assert info.value.parameter == "scale"


def test_laplace_knows_no_shared_scale() -> None:
    with pytest.raises(InvalidParameter) as info:
        Laplace(scale="shared")
    assert str(info.value) == f"{BAD_LAPLACE}'shared'."


@pytest.mark.parametrize("value", [-1e-3, 0, math.nan, math.inf, "small", True, None], ids=repr)
@pytest.mark.parametrize("component", [Normal, Laplace])
def test_impossible_min_scale_is_refused(component: type[Likelihood], value: object) -> None:
    with pytest.raises(InvalidParameter) as info:
        component(scale="learned", min_scale=value)
    assert str(info.value) == f"min_scale must be {BAD}, got min_scale={value!r}."


@pytest.mark.parametrize("scale", [2, 0.5, np.float32(0.5), np.float64(0.5), np.int64(2)], ids=repr)
def test_every_kind_of_number_is_a_scale(scale: float) -> None:
    p = Normal(scale=scale)(torch.zeros(1, 1))
    assert p.stddev.item() == float(scale)


@pytest.mark.parametrize("component", [Normal, Laplace])
def test_odd_channels_are_refused_with_both_numbers(component: type[Likelihood]) -> None:
    with pytest.raises(ShapeError) as info:
        component(scale="learned")(torch.zeros(2, 3, 5, 4))
    assert str(info.value) == (
        f"{component.__name__}(scale='learned', min_scale=0.001) takes theta of shape (N, 2*C, *S), got "
        "(2, 3, 5, 4): 3 channels are not a multiple of 2. Build the decoder with output_shape "
        "(2*C, *S), x being (N, C, *S)."
    )


def test_theta_without_channels_is_refused() -> None:
    with pytest.raises(ShapeError) as info:
        Bernoulli()(torch.zeros(7))
    assert str(info.value) == (
        "Bernoulli() takes theta of shape (N, C, *S), got (7,). Build the decoder with "
        "output_shape (C, *S), x being (N, C, *S)."
    )


@pytest.mark.parametrize(
    "likelihood", [Normal("learned", min_scale=0.01), Laplace(2), Bernoulli()], ids=repr
)
def test_arguments_can_be_read_back(likelihood: Likelihood) -> None:
    twin = type(likelihood)(**arguments(likelihood))
    assert repr(twin) == repr(likelihood)
    expected = {"Normal": ("learned", 0.01), "Laplace": (2, 1e-3), "Bernoulli": ()}
    assert tuple(arguments(likelihood).values()) == expected[type(likelihood).__name__]


@pytest.mark.parametrize("name", ["normal", "laplace", "bernoulli"])
def test_entry_point_leads_to_the_exported_class(name: str) -> None:
    (found,) = (
        entry
        for entry in entry_points(group="nidl.likelihoods", name=name)
        if entry.dist is not None and entry.dist.name == "nidl-likelihoods"
    )
    assert found.load() is getattr(nidl_likelihoods, name.capitalize())


@pytest.mark.parametrize("module", ["normal", "laplace", "bernoulli"])
def test_docstring_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"nidl_likelihoods.{module}"))
    assert result.attempted >= 4
    assert result.failed == 0


def arguments(likelihood: Likelihood) -> dict[str, object]:
    return {k: v for k, v in vars(likelihood).items() if k in ("scale", "min_scale")}
