"""The beta-VAE objective (Higgins et al. 2017): reconstruction + beta * KL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

from nidl_core.errors import InvalidParameter
from nidl_core.interfaces import Loss
from nidl_core.parameters import check_float
from nidl_vae.bound import check_same_shape, kl_to_prior, log_prob

DISTRIBUTIONS = ("normal", "laplace", "bernoulli")


class BetaVAELoss(Loss):
    """loss = rec_loss + beta * kl_loss, each summed over a sample and averaged over the batch.

    Parameters
    ----------
    beta : float
        Weight of the KL divergence, >= 0. 1 is the (negative) evidence lower bound.
    default_dist : {"normal", "laplace", "bernoulli"}
        What a plain tensor from the decoder means: the mean of a Normal (the loss is then L2, the
        sum of squared errors) or of a Laplace (L1), or Bernoulli probabilities (cross-entropy).
        A distribution speaks for itself: the loss is its own -log p, scale included.

    Raises
    ------
    ValueError
        For an unknown `default_dist` or an impossible `beta`.

    References
    ----------
    Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
    Framework, ICLR 2017. Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> x, q = torch.zeros(2, 1, 4, 4), Normal(torch.zeros(2, 3), torch.ones(2, 3))
    >>> losses = BetaVAELoss(beta=4.0)(x, x + 0.5, q)
    >>> {name: loss.item() for name, loss in losses.items()}
    {'loss': 4.0, 'rec_loss': 4.0, 'kl_loss': 0.0}
    """

    def __init__(self, beta: float = 4.0, default_dist: str = "normal") -> None:
        super().__init__()
        check_float("beta", beta)
        if default_dist not in DISTRIBUTIONS:
            raise InvalidParameter("default_dist", default_dist, f"one of {DISTRIBUTIONS}")
        self.beta = beta
        self.default_dist = default_dist

    def forward(
        self, x: Tensor, p: Distribution | Tensor, q: Distribution, z: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses of data x (N, C, *S), given p(x | z) (or a tensor, see `default_dist`) and q(z | x).

        Returns the scalars "loss", "rec_loss" and "kl_loss", computed in float32 or better. Raises
        `ShapeError` where p would be broadcast, TypeError if p is neither tensor nor distribution.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            if isinstance(p, Tensor):
                rec_loss = self._tensor_loss(x, p if p.dtype == torch.float64 else p.float())
            else:
                rec_loss = self.reconstruction_loss(p, x)
            kl_loss = self.kl_normal_loss(q)
            return {
                "loss": rec_loss + self.beta * kl_loss,
                "rec_loss": rec_loss,
                "kl_loss": kl_loss,
            }

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """Cases for `nidl_core.testing`."""
        return [{}, {"params": {"beta": 1.0}}]

    def reconstruction_loss(self, p: Distribution, data: Tensor) -> Tensor:
        """-log p(data), summed over a sample and averaged over the batch. TypeError for no distribution."""
        if not isinstance(p, Distribution):
            raise TypeError(
                f"the reconstruction loss needs a torch.distributions.Distribution, got {type(p)}"
            )
        return -log_prob(p, data).mean()

    def kl_normal_loss(self, q: Distribution) -> Tensor:
        """KL(q || N(0, I)), summed over latent dimensions and averaged over the batch."""
        return kl_to_prior(q).mean()

    def _tensor_loss(self, x: Tensor, mean: Tensor) -> Tensor:
        check_same_shape(mean.shape, x.shape)
        if self.default_dist == "normal":
            total = F.mse_loss(mean, x, reduction="sum")
        elif self.default_dist == "laplace":
            total = F.l1_loss(mean, x, reduction="sum")
        else:
            total = F.binary_cross_entropy(mean, x, reduction="sum")
        return total / len(x)
