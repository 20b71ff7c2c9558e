"""The terms of the evidence lower bound, in nats, one number per sample.

log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || N(0, I))      (Kingma & Welling 2014, eq. 3)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    Laplace,
    Normal,
    kl_divergence,
)
from torch.nn import functional as F

from nidl_core.errors import ShapeError

_HALF = (torch.float16, torch.bfloat16)


def log_prob(p: Distribution, x: Tensor, *, exact: bool = False) -> Tensor:
    """log p(x), summed over all dimensions of a sample: x (N, ...) -> (N,).

    `exact` sums in float64: a volume of two million voxels has a log-probability of about 1e6,
    where one float32 step is 0.06 nat. Raises `ShapeError` rather than broadcast.
    """
    check_same_shape(p.batch_shape + p.event_shape, x.shape)
    while isinstance(p, Independent):
        p = p.base_dist
    p = _raised(p)
    if isinstance(p, Bernoulli):  # from logits, soft targets included: then a cross-entropy
        values = x * F.logsigmoid(p.logits) + (1 - x) * F.logsigmoid(-p.logits)
    else:
        values = p.log_prob(x)
    return values.reshape(len(x), -1).sum(1, dtype=torch.float64 if exact else None)


def kl_to_prior(q: Distribution) -> Tensor:
    """KL(q || N(0, I)), summed over latent dimensions: (N,), for q of independent dimensions (N, L).

    1/2 (mu^2 + s^2 - 1 - log s^2) per dimension (Kingma & Welling 2014, appendix B), with expm1
    in place of s^2 - 1, so that no digits are lost near the prior.
    """
    while isinstance(q, Independent):
        q = q.base_dist
    if isinstance(q, Normal):
        log_variance = 2 * q.scale.log()
        values = 0.5 * (q.loc.square() + torch.expm1(log_variance) - log_variance)
    else:
        values = kl_divergence(q, Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)))
    return values.reshape(len(values), -1).sum(1)


def implied(mean: Tensor, default_dist: str) -> Distribution:
    """The distribution that a decoder's plain tensor stands for.

    "normal": the L2 loss, sum (x - mu)^2, is -log N(x; mu, 1/2) less a constant. "laplace": the L1
    loss is that of scale 1. "bernoulli": the tensor holds probabilities.
    """
    if default_dist == "normal":
        base: Distribution = Normal(mean, mean.new_tensor(0.5).sqrt(), validate_args=False)
    elif default_dist == "laplace":
        base = Laplace(mean, torch.ones_like(mean), validate_args=False)
    else:
        base = Bernoulli(probs=mean, validate_args=False)
    return Independent(base, mean.ndim - 1, validate_args=False)


def centre(p: Distribution) -> Tensor:
    """The mean of p, or its mode where there is no mean (as for a Cauchy)."""
    try:
        mean = p.mean
    except NotImplementedError:
        return p.mode
    return p.mode if bool(torch.isnan(mean).any()) else mean


def _raised(p: Distribution) -> Distribution:
    """A half-precision distribution of the common kinds, in float32."""
    if isinstance(p, Normal) and p.loc.dtype in _HALF:
        return Normal(p.loc.float(), p.scale.float(), validate_args=False)
    if isinstance(p, Laplace) and p.loc.dtype in _HALF:
        return Laplace(p.loc.float(), p.scale.float(), validate_args=False)
    if isinstance(p, Bernoulli) and p.logits.dtype in _HALF:
        return Bernoulli(logits=p.logits.float(), validate_args=False)
    return p


def check_same_shape(decoded: tuple[int, ...], data: tuple[int, ...]) -> None:
    """Raise `ShapeError` where torch would broadcast p against x."""
    if tuple(decoded) != tuple(data):
        raise ShapeError(
            f"the decoder gives p(x | z) of shape {tuple(decoded)} for data of shape {tuple(data)}. "
            "They must be equal: nothing is broadcast."
        )
