"""Principal components of scans that need not fit into memory: the linear model to compare with.

N scans, M voxels that count, K components.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Floats = NDArray[np.float64]
_VALUES = 2**23  # of one block of scans in memory, 64 MiB
_HELD = 4  # blocks that are held while all others pass by: rows are read N / (rows held) / 2 times


class PCA:
    """The first K components of rows (N, 1, *S) at the voxels of `mask`, by the rows' Gram matrix.

    Few blocks of rows are in memory at a time, however many there are. K is at most N - 1.

    Attributes
    ----------
    scores : (N, K)
        The fitted rows in components.
    squared_error : (N,)
        What K components leave of each fitted row: the sum of squares over voxels.
    """

    def __init__(self, x: Any, mask: NDArray[np.bool_] | None, components: int) -> None:
        self._x = x
        counted = np.ones(x.shape[1:], dtype=bool) if mask is None else mask
        self._counted = np.flatnonzero(counted)
        total = np.zeros(len(self._counted))
        for _, block in self._blocks(x):
            total += block.sum(axis=0)
        self._mean: Floats = total / len(x)
        gram = np.empty((len(x), len(x)))
        for rows, left in self._centred(x, _HELD):
            for columns, right in self._centred(x, stop=rows.stop):
                gram[rows, columns] = left @ right.T
                gram[columns, rows] = gram[rows, columns].T
        size = max(1, min(components, len(x) - 1))
        values, vectors = eigh(gram, subset_by_index=(len(x) - size, len(x) - 1))
        values, vectors = values[::-1], vectors[:, ::-1]  # the largest first
        keep = values > 1e-10 * max(values[0], 1e-300)
        self._axes: Floats = vectors[:, keep] / np.sqrt(values[keep])  # rows' weights, (N, K)
        self.scores: Floats = gram @ self._axes
        self.squared_error: Floats = np.clip(np.diag(gram) - (self.scores**2).sum(1), 0, None)

    def transform(self, x: Any) -> tuple[Floats, Floats]:
        """Scores (n, K) of other rows x (n, 1, *S), and the squared error (n,) that is left."""
        scores = np.empty((len(x), self._axes.shape[1]))
        squares = np.empty(len(x))
        for rows, left in self._centred(x, _HELD):
            squares[rows] = (left**2).sum(1)
            scores[rows] = sum(
                (left @ right.T) @ self._axes[own] for own, right in self._centred(self._x)
            )
        return scores, np.clip(squares - (scores**2).sum(1), 0, None)

    def _centred(
        self, x: Any, blocks: int = 1, stop: int | None = None
    ) -> Iterator[tuple[slice, Floats]]:
        """Rows, up to `stop`, less the mean; some blocks at a time."""
        count, size = stop or len(x), max(1, _VALUES // len(self._counted))
        for start in range(0, count, blocks * size):
            rows = slice(start, min(start + blocks * size, count))
            centred = np.empty((rows.stop - start, len(self._mean)))
            for own, block in self._blocks(x, rows):
                np.subtract(block, self._mean, out=centred[own.start - start : own.stop - start])
            yield rows, centred

    def _blocks(self, x: Any, rows: slice | None = None) -> Iterator[tuple[slice, Floats]]:
        """Rows, or these of them, and their voxels that count: (n, M), float64."""
        rows, size = rows or slice(0, len(x)), max(1, _VALUES // len(self._counted))
        for start in range(rows.start, rows.stop, size):
            own = slice(start, min(start + size, rows.stop))
            values = np.asarray(x[own]).reshape(own.stop - start, -1)
            yield own, np.take(values, self._counted, axis=1).astype(np.float64)
