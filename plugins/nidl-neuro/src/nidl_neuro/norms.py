"""The mean and spread that z-maps of reference scans have in each voxel.

A model's own scale per voxel is the same for everyone; where it is wrong, z is not of mean 0 and
standard deviation 1 even in controls. Normative modelling takes both from the reference itself
(Marquand et al. 2016, "Understanding heterogeneity in clinical cohorts using normative models",
Biological Psychiatry 80). M voxels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_core.errors import DataError, ShapeError

Array = NDArray[Any]

_FLOOR = 0.1  # of the median standard deviation: no voxel counts as steadier


@dataclass(frozen=True, eq=False)
class VoxelNorms:
    """`mean` (M,) and `sd` (M,) of the z of `count` reference scans."""

    mean: Array
    sd: Array
    count: int

    @classmethod
    def of(cls, parts: Iterable[Array]) -> VoxelNorms:
        """Of z-maps (n, M), some at a time, by the update of Chan, Golub & LeVeque (1983).

        Raises `DataError` for less than three scans, or if z does not vary.
        """
        count, mean, total = 0, np.zeros(1), np.zeros(1)
        for part in parts:
            z = np.asarray(part, dtype=np.float64)
            n, own = len(z), z.mean(axis=0)
            shift = own - mean
            total = total + ((z - own) ** 2).sum(axis=0) + shift**2 * (count * n / (count + n))
            mean = mean + shift * (n / (count + n))
            count += n
        if count < 3:
            raise DataError(
                f"norms of each voxel need at least 3 reference scans, got {count}; some dozens make "
                "sense."
            )
        sd = np.sqrt(total / (count - 1))
        floor = _FLOOR * float(np.median(sd))
        if not floor > 0:
            raise DataError("the reference scans have the same values in most voxels: no norms.")
        return cls(mean, np.maximum(sd, floor), count)

    def apply(self, z: Array) -> Array:
        """z (..., M) -> (z - mean) / sd."""
        return np.asarray((z - self.mean) / self.sd)

    def left_out(self, z: Array) -> Array:
        """z (n, M) of reference scans by the norms of the others: each as if it were a new scan.

        With r = (z - mean) / sd of all n scans, that is r n / (n - 1) over the root of
        ((n - 1) - r² n / (n - 1)) / (n - 2): the externally studentised residual of a mean, up to a
        constant (Cook & Weisberg 1982, Residuals and Influence in Regression).
        """
        n, r = self.count, self.apply(z)
        variance = np.maximum(((n - 1) - r**2 * n / (n - 1)) / (n - 2), _FLOOR**2)
        return np.asarray(r * n / (n - 1) / np.sqrt(variance))

    def check(self, voxels: int) -> None:
        """Raise `ShapeError` unless they are of that many voxels."""
        if len(self.mean) != voxels:
            raise ShapeError(
                f"the norms are of {len(self.mean)} voxels, the model's mask has {voxels}. They belong "
                "to another model."
            )
