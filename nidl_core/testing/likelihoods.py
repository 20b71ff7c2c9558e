"""Checks of likelihoods: a proper distribution, whose log-probability is exact, in nats.

Shapes: theta (N, P*C, *S) -> p, batch (N,), event (C, *S).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from nidl_core.errors import DataError, ShapeError
from nidl_core.seeding import preserved, seed_all
from nidl_core.testing.cases import Case
from nidl_core.testing.catalogue import NotApplicable, check
from nidl_core.testing.subjects import Subject, first, subject, subjects, values_of

KIND = "likelihoods"
DRAWS = 100_000
SIGMAS = 5.0  # a correct sampler is farther off once in a million
_MOST = 10_000  # values of a count that are summed over
_OUTSIDE = {"real": math.nan, "positive": -1.0, "unit": 1.5, "binary": 0.5, "count": -1.0}


@check(KIND)
def check_distribution(case: Case) -> None:
    """p has batch (N,) and event (C, *S); log_prob and samples have shapes to match."""
    for shape in case.accepted:
        built, n = _evaluated(case, shape), 3
        theta, x = built.inputs(n)
        p = built.module(theta)
        assert isinstance(p, Distribution), f"forward gives {type(p).__name__}, no Distribution"
        found = tuple(p.batch_shape), tuple(p.event_shape)
        assert found == ((n,), shape), f"batch and event are {found}, not {((n,), shape)}"
        assert tuple(p.log_prob(x).shape) == (n,), "log_prob is one number a sample"
        assert tuple(p.sample().shape) == (n, *shape)
        assert tuple(p.mean.shape) == (n, *shape), "reconstructions are p.mean"


@check(KIND)
def check_theta_is_unconstrained(case: Case) -> None:
    """Any theta is a distribution: far out and at zero, log_prob and its gradient are finite."""
    for shape in case.accepted:
        built = _evaluated(case, shape)
        theta, x = built.inputs(3)
        for scale in (0.0, 1.0, 30.0):
            raw = (scale * theta).detach().requires_grad_()
            log_prob = built.module(raw).log_prob(x)
            (gradient,) = torch.autograd.grad(log_prob.sum(), raw)
            assert bool(log_prob.isfinite().all()), f"log_prob is not finite for theta*{scale}"
            assert bool(gradient.isfinite().all()), f"a gradient is not finite for theta*{scale}"


@check(KIND)
def check_channels(case: Case) -> None:
    """theta whose channels do not divide by P is refused with ShapeError."""
    built = first(case)
    parts = built.module.params_per_value
    if parts == 1:
        raise NotApplicable("P is 1: any number of channels divides by it")
    try:
        built.module(torch.zeros(2, parts + 1, 3))
    except ShapeError:
        return
    raise AssertionError(f"theta of {parts + 1} channels was taken, P is {parts}: use self.split")


@check(KIND)
def check_precision(case: Case) -> None:
    """Half precision ends at the likelihood: all that p gives for a bfloat16 theta is float32."""
    built = first(case)
    built.module.eval()
    theta, x = built.inputs(3)
    half = theta.to(torch.bfloat16)
    p, exact = built.module(half), built.module(half.float())
    for name, found, expected in (
        ("log_prob", p.log_prob(x), exact.log_prob(x)),
        ("the mean", p.mean, exact.mean),
    ):
        how = "of a bfloat16 theta: begin with self.split(theta)"
        assert found.dtype == torch.float32, f"{name} is {found.dtype} {how}"
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True), (
            f"{name} has the rounding {how}"
        )


@check(KIND)
def check_support(case: Case) -> None:
    """`check(x)` takes data in the declared support, and refuses others with DataError."""
    likelihood = first(case).module
    support = likelihood.support
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may have something to say of data that it takes
        likelihood.check(values_of(support, (3, 2, 4), torch.float32))
    outside = values_of(support, (3, 2, 4), torch.float32)
    outside[1, 0, 2] = _OUTSIDE[support]
    try:
        likelihood.check(outside)
    except DataError:
        return
    raise AssertionError(f"data outside the support {support!r} were taken")


@check(KIND)
def check_normalised(case: Case) -> None:
    """The probability of one value integrates, or sums, to one."""
    built, thetas = _one_value(case)
    for theta in thetas:
        density, domain = _density(built, theta)
        total = _mass(density, domain, math.inf, _cuts(_draws(built, theta)))
        assert abs(total - 1) < 1e-4, f"the probabilities sum to {total:.6g} for theta={theta}"


@check(KIND)
def check_samples(case: Case) -> None:
    """Samples follow the log-probability, and have the mean that the distribution says."""
    built, thetas = _one_value(case)
    for theta in thetas:
        drawn = _draws(built, theta)
        density, domain = _density(built, theta)
        for level in (0.2, 0.5, 0.8):
            at = float(np.quantile(drawn, level))
            expected, found = _mass(density, domain, at, _cuts(drawn)), float(np.mean(drawn <= at))
            error = SIGMAS * math.sqrt(max(expected * (1 - expected), 1e-3) / len(drawn))
            assert abs(expected - found) < error, (
                f"P(x <= {at:.4g}) is {expected:.4f} by log_prob, {found:.4f} of {len(drawn)} samples"
            )
        mean = float(built.module(torch.as_tensor(theta, dtype=torch.float64)[None]).mean.detach())
        if math.isfinite(mean):  # Cauchy's is not
            # Of the samples: a self-normalised sum behaves well even where there is no variance.
            error = SIGMAS * float(drawn.std()) / math.sqrt(len(drawn)) + 1e-9
            assert abs(mean - drawn.mean()) < error, (
                f"the mean is {mean:.4g}, that of {len(drawn)} samples {drawn.mean():.4g}"
            )


@check(KIND, when=lambda case: case.reference is not None)
def check_reference(case: Case) -> None:
    """log_prob equals that of the reference that the component names, in float64."""
    assert case.reference is not None
    for shape in case.accepted:
        built = _evaluated(case, shape, torch.float64)
        theta, x = built.inputs(3, torch.float64)
        parts = np.split(theta.numpy(), built.module.params_per_value, axis=1)
        reference = case.reference(*parts)
        if hasattr(getattr(reference, "dist", reference), "logpdf"):
            log_prob = reference.logpdf(x.numpy())
        else:
            x = x.round()  # the support may have values between two integers, no pmf has
            log_prob = reference.logpmf(x.numpy())
        expected = np.broadcast_to(log_prob, x.shape).reshape(3, -1).sum(axis=1)
        found = built.module(theta).log_prob(x).detach().numpy()
        # A parameter or buffer was made in float32 and has its rounding.
        error = 1e-6 if built.module.state_dict() else 1e-9
        np.testing.assert_allclose(
            found, expected, rtol=error, atol=error, err_msg="log_prob is not the reference's"
        )


@check(KIND)
def check_gradcheck(case: Case) -> None:
    """The gradient of log_prob, in theta and in every parameter, is that of finite differences."""
    built = _evaluated(case, (1, 3, 2), torch.float64)
    theta, x = built.inputs(2, torch.float64)
    names = [name for name, p in built.module.named_parameters() if p.requires_grad]
    values = [p for p in built.module.parameters() if p.requires_grad]

    def log_prob(theta: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        p: Any = torch.func.functional_call(built.module, given, (theta,))
        result: Tensor = p.log_prob(x)
        return result

    torch.autograd.gradcheck(log_prob, (theta.requires_grad_(), *values))


@check(KIND)
def check_evaluation_learns_nothing(case: Case) -> None:
    """In evaluation, `observe` and `forward` leave the state alone."""
    for built in subjects(case):
        built.module.eval()
        before = {name: value.clone() for name, value in built.module.state_dict().items()}
        theta, x = built.inputs(3)
        built.module.observe(x, theta)
        built.module(theta)
        for name, value in built.module.state_dict().items():
            assert torch.equal(value, before[name]), f"evaluation changes {name}"


def _evaluated(case: Case, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Subject:
    """The likelihood in evaluation, on the CPU, after it has seen one training batch."""
    built = subject(case, shape)
    built.backend = type(built.backend)()
    built.module.to(device="cpu", dtype=dtype)
    theta, x = built.inputs(8, dtype, seed=5)
    with torch.no_grad():
        built.module.observe(x, theta)
    built.module.eval()
    return built


def _one_value(case: Case) -> tuple[Subject, list[list[float]]]:
    """The likelihood of a single value, and some theta (P,) for it."""
    built = _evaluated(case, (1,), torch.float64)
    parts = built.module.params_per_value
    return built, [[0.4, -0.7, 0.3, -0.2][:parts] + [0.1] * max(0, parts - 4), [-1.3] * parts]


def _draws(built: Subject, theta: list[float]) -> Any:
    with preserved():
        seed_all(0)
        p = built.module(torch.as_tensor(theta, dtype=torch.float64)[None])
        return p.sample((DRAWS,)).detach().double().numpy().ravel()


def _cuts(drawn: Any) -> list[float]:
    """Where integrals are to meet, so that none of them looks past a narrow distribution."""
    return sorted({float(x) for x in np.quantile(drawn, (0.0, 0.1, 0.5, 0.9, 1.0))})


def _density(built: Subject, theta: list[float]) -> tuple[Callable[[Any], Any], Any]:
    """x (n,) -> p(x | theta) (n,), and where it lives: (low, high), or its values (n,)."""
    row = torch.as_tensor(theta, dtype=torch.float64)[None]  # (1, P)

    def density(x: Any) -> Any:
        values = torch.as_tensor(np.atleast_1d(x), dtype=torch.float64)[:, None]  # (n, 1)
        p = built.module(row.expand(len(values), -1))
        return p.log_prob(values).detach().exp().numpy()

    return density, _domain(built.module(row), built.module.support)


def _domain(p: Distribution, support: str) -> Any:
    try:
        constraint: Any = p.support
    except (NotImplementedError, AttributeError):
        constraint = None
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    if constraint is None:
        constraint = {
            "positive": constraints.positive,
            "unit": constraints.unit_interval,
            "binary": constraints.boolean,
            "count": constraints.nonnegative_integer,
        }.get(support, constraints.real)
    if constraint is constraints.boolean:
        return np.array([0.0, 1.0])
    low = float(getattr(constraint, "lower_bound", -math.inf))
    high = float(getattr(constraint, "upper_bound", math.inf))
    if constraint.is_discrete:
        low = max(low, float(-_MOST))
        return np.arange(low, min(high, low + 2 * _MOST) + 1)
    return low, high


def _mass(density: Callable[[Any], Any], domain: Any, upto: float, cuts: list[float]) -> float:
    """P(x <= upto): a sum over values, or integrals between the cuts."""
    from scipy.integrate import IntegrationWarning, quad

    if isinstance(domain, np.ndarray):
        return math.fsum(density(domain[domain <= upto]))
    low, high = domain[0], min(domain[1], upto)
    ends = [low, *(cut for cut in cuts if low < cut < high), high]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrationWarning)  # a wrong sum says more
        return math.fsum(
            quad(lambda x: float(density(x)[0]), a, b, limit=500, epsabs=1e-8)[0]
            for a, b in itertools.pairwise(ends)
        )
