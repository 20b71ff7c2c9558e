"""Principal components of scans that need not fit into memory: the linear model to compare with.

N scans, M voxels that count, K components.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_VALUES = 2**24  # of one block of scans in memory, 128 MiB


class PCA:
    """The first K components of rows (N, 1, *S) at the voxels of `mask`, by the rows' Gram matrix.

    Two blocks of rows are in memory at a time, however many there are. K is at most N - 1.

    Attributes
    ----------
    scores : (N, K)
        The fitted rows in components.
    squared_error : (N,)
        What K components leave of each fitted row: the sum of squares over voxels.
    """

    def __init__(self, x: Any, mask: NDArray[np.bool_] | None, components: int) -> None:
        self._x, self._mask = x, mask
        total = 0.0
        for _, block in self._blocks(x):
            total = total + block.sum(axis=0)
        self._mean = total / len(x)
        gram = np.empty((len(x), len(x)))
        for rows, left in self._centred(x):
            for columns, right in self._centred(x, rows.stop):
                gram[rows, columns] = left @ right.T
                gram[columns, rows] = gram[rows, columns].T
        values, vectors = np.linalg.eigh(gram)
        keep = np.argsort(-values)[: max(1, min(components, len(x) - 1))]
        keep = keep[values[keep] > 1e-10 * max(values.max(), 1e-300)]
        self._axes: Floats = vectors[:, keep] / np.sqrt(values[keep])  # rows' weights, (N, K)
        self.scores: Floats = gram @ self._axes
        self.squared_error: Floats = np.clip(np.diag(gram) - (self.scores**2).sum(1), 0, None)

    def transform(self, x: Any) -> tuple[Floats, Floats]:
        """Scores (n, K) of other rows x (n, 1, *S), and the squared error (n,) that is left."""
        scores = np.empty((len(x), self._axes.shape[1]))
        squares = np.empty(len(x))
        for rows, left in self._centred(x):
            squares[rows] = (left**2).sum(1)
            scores[rows] = sum(
                (left @ right.T) @ self._axes[own] for own, right in self._centred(self._x)
            )
        return scores, np.clip(squares - (scores**2).sum(1), 0, None)

    def _centred(self, x: Any, stop: int | None = None) -> Iterator[tuple[slice, Floats]]:
        for rows, block in self._blocks(x, stop):
            yield rows, block - self._mean

    def _blocks(self, x: Any, stop: int | None = None) -> Iterator[tuple[slice, Floats]]:
        """Rows, up to `stop`, and their voxels that count: (n, M), float64."""
        stop, size = stop or len(x), max(1, _VALUES // max(1, np.asarray(x[:1]).size))
        for start in range(0, stop, size):
            rows = slice(start, min(start + size, stop))
            values = np.asarray(x[rows], dtype=np.float64).reshape(rows.stop - start, -1)
            yield rows, values if self._mask is None else values[:, self._mask.ravel()]
