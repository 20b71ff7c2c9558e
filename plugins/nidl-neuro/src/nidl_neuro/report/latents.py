"""Which latent dimensions a model uses, and what they go with.

N scans, L latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_core.errors import DataError
from nidl_core.inference import infer
from nidl_neuro.data import Scans

Floats = NDArray[np.float64]
ACTIVE = 0.01  # Burda et al. 2016, section 5.2: variance of the posterior mean over the data


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(z | x) = N(mean, sd^2) of each scan: both (N, L)."""

    mean: Floats
    sd: Floats

    @property
    def kl(self) -> Floats:
        """KL(q(z_k | x) || N(0, 1)) of each dimension, in nats, averaged over the scans: (L,)."""
        variance = self.sd**2
        values = 0.5 * (self.mean**2 + variance - 1 - np.log(variance))
        return np.asarray(values.mean(axis=0))

    @property
    def spread(self) -> Floats:
        """Variance of the posterior mean over the scans: (L,)."""
        return np.asarray(self.mean.var(axis=0))

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which dimensions are active units: (L,)."""
        return np.asarray(self.spread > ACTIVE)

    @property
    def order(self) -> NDArray[np.intp]:
        """The dimensions, active ones first, then by KL, the largest first: (L,)."""
        return np.lexsort((-self.kl, ~self.active))


def posterior(model: Any, data: Scans) -> Posterior:
    """The posterior of each scan. Raises `DataError` where the model gives no finite one."""
    import torch

    def step(batch: Any, _: int) -> Any:
        q = model.encode(batch)
        return torch.stack([q.loc, q.scale], dim=1)

    both = infer(model, model.read(data), step).double().numpy()
    bad = [data.ids[row] for row in np.flatnonzero(~np.isfinite(both).all(axis=(1, 2)))]
    if bad:
        raise DataError(
            f"the model gives no finite latents for {len(bad)} of {len(data)} scans, the first being "
            f"{bad[0]}. They may be prepared otherwise than those it was fitted on: hand in their paths, "
            "which are prepared as the model's were."
        )
    return Posterior(both[:, 0], both[:, 1])


def correlation(latent: Floats, values: Floats) -> float:
    """Pearson's r of two columns (N,), NaN where one of them does not vary."""
    if np.ptp(latent) == 0 or np.ptp(values) == 0:
        return float("nan")
    return float(np.corrcoef(latent, values)[0, 1])


def correlation_ratio(latent: Floats, groups: NDArray[Any]) -> float:
    """eta: the root of the share of the latent's variance that lies between groups (N,)."""
    total = np.square(latent - latent.mean()).sum()
    if total == 0:
        return float("nan")
    between = sum(
        (groups == group).sum() * (latent[groups == group].mean() - latent.mean()) ** 2
        for group in np.unique(groups)
    )
    return float(np.sqrt(between / total))
