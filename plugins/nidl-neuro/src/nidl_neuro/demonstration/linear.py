"""Linear models of scans, with as many latents as a VAE and their likelihoods exact: what to beat.

N scans, M voxels that count, K components.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nidl_neuro.report.pca import PCA

Floats = NDArray[np.float64]


class ProbabilisticPCA:
    """x ~ N(mean, W W' + s² I), by maximum likelihood (Tipping & Bishop 1999, J. R. Stat. Soc. B 61).

    One scale s for all voxels. In the K principal axes the variances are those of the fitted scans,
    in all others their mean: so that the likelihood needs no matrix of M x M.
    """

    def __init__(self, x: Any, mask: NDArray[np.bool_], components: int) -> None:
        self.pca = PCA(x, mask, components)
        self._voxels = int(mask.sum())
        self._variances = (self.pca.scores**2).mean(axis=0)  # (K,)
        left = self._voxels - len(self._variances)
        self._noise = float(self.pca.squared_error.mean()) / left

    def log_likelihood(self, x: Any) -> Floats:
        """Of scans x (n, 1, *S), in nats: (n,)."""
        scores, squared_error = self.pca.transform(x)
        left = self._voxels - len(self._variances)
        log_det = np.log(self._variances).sum() + left * math.log(self._noise)
        square = (scores**2 / self._variances).sum(axis=1) + squared_error / self._noise
        return np.asarray(-0.5 * (square + log_det + self._voxels * math.log(2 * math.pi)))


class FactorAnalysis:
    """x ~ N(mean, W W' + diag(v)): a variance of its own for each voxel, by maximum likelihood.

    Fitted by the EM algorithm of Rubin & Thayer (1982, Psychometrika 47), from the solution of PCA.
    The fitted scans are held in memory, in double precision.
    """

    def __init__(self, x: Any, mask: NDArray[np.bool_], components: int, steps: int = 30) -> None:
        self._mask = mask
        rows = self._rows(x)
        self._mean = rows.mean(axis=0)
        rows -= self._mean
        _, values, axes = np.linalg.svd(rows, full_matrices=False)
        total = (rows**2).mean(axis=0)  # (M,)
        self._weights = axes[:components].T * (values[:components] / math.sqrt(len(rows)))
        self._noise = self._floored(total - (self._weights**2).sum(axis=1), total)
        for _ in range(steps):
            z = self._latents(rows)  # (N, K)
            spread = np.linalg.inv(self._precision())
            common = rows.T @ z  # (M, K)
            self._weights = np.linalg.solve(len(rows) * spread + z.T @ z, common.T).T
            explained = (self._weights * common).sum(axis=1) / len(rows)
            self._noise = self._floored(total - explained, total)

    def log_likelihood(self, x: Any) -> Floats:
        """Of scans x (n, 1, *S), in nats: (n,)."""
        # The inverse and the determinant of W W' + diag(v) by those of a matrix of K x K (Woodbury).
        rows = self._rows(x) - self._mean
        projected = rows @ (self._weights / self._noise[:, None])  # (n, K)
        precision = self._precision()
        _, log_det = np.linalg.slogdet(precision)
        square = (rows**2 / self._noise).sum(axis=1)
        square -= (projected * np.linalg.solve(precision, projected.T).T).sum(axis=1)
        constant = np.log(self._noise).sum() + len(self._mean) * math.log(2 * math.pi)
        return np.asarray(-0.5 * (square + log_det + constant))

    def _latents(self, rows: Floats) -> Floats:
        projected = rows @ (self._weights / self._noise[:, None])
        return np.asarray(np.linalg.solve(self._precision(), projected.T).T)

    def _precision(self) -> Floats:
        """Of z given x: I + W' diag(v)^-1 W, (K, K)."""
        weighted = self._weights / self._noise[:, None]
        return np.asarray(np.eye(self._weights.shape[1]) + weighted.T @ self._weights)

    def _rows(self, x: Any) -> Floats:
        return np.asarray(x[:], dtype=np.float64).reshape(len(x), -1)[:, self._mask.ravel()]

    def _floored(self, noise: Floats, total: Floats) -> Floats:
        """No voxel is explained wholly: its variance is at least a thousandth of the median."""
        return np.maximum(noise, 1e-3 * float(np.median(total)))


def read_off(train: Any, test: Any, known: Any, truth: Any) -> tuple[float, float]:
    """R2 and the mean absolute error of a number (n,), predicted from features (n, K) by ridge.

    The regression and its penalty are learnt on `train` and `known`.
    """
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15)))
    predicted = model.fit(train, known).predict(test)
    return float(r2_score(truth, predicted)), float(np.abs(truth - predicted).mean())
