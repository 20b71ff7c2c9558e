"""Which voxels of one scan count, and which part of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nidl_neuro.errors import ScanError
from nidl_neuro.grid import Array, Grid, by, resample, window
from nidl_neuro.masks import GivenMask, template_mask


@dataclass(frozen=True, eq=False)
class Frame:
    """A scan called `name` on its canonical `grid`, to be kept as voxels of the grid `whole`.

    `mask` as in `Preparation`: "nonzero", "computed", "none" or a `GivenMask`.
    """

    name: str
    grid: Grid
    whole: Grid
    mask: str | GivenMask

    def find_mask(self, values: Array) -> Array | None:
        """The mask on `whole`, of the voxels on `grid`; None for one that is not of the scan's grid."""
        if self.mask == "none":
            return self._field()
        if self.mask == "computed":
            return template_mask(self.whole.shape, self.whole.rows)
        mask: Array = values != 0
        if isinstance(self.mask, GivenMask):
            where, mask = self.mask.canonical()
            if where is None or not where.same_as(self.grid):
                return None
        return self._laid(mask)

    def start(self, mask: Array | None, shape: Sequence[int], centre: str) -> tuple[int, ...]:
        """The first index on `whole` of a window of that shape around the volume or the mask."""
        ends = np.array([(0, n) for n in self.whole.shape])
        if centre == "mask":
            if mask is None:
                raise self._other_grid(f"the scan ({self.grid})")
            if not mask.any():
                raise self._empty()
            ends = np.array([_ends(mask, axis) for axis in range(3)])
        return tuple(int(n) for n in (ends.sum(axis=1) - shape) // 2)

    def mask_in(self, mask: Array | None, start: Sequence[int], shape: Sequence[int]) -> Array:
        """The mask in that window, as far as the scan reaches. Raises `ScanError` if it is empty."""
        if mask is None:
            inside = self._prepared_mask(start, shape) & window(self._field(), start, shape, False)
        else:
            inside = window(mask, start, shape, False)
        if not inside.any():
            raise self._empty()
        return inside

    def _prepared_mask(self, start: Sequence[int], shape: Sequence[int]) -> Array:
        assert isinstance(self.mask, GivenMask)
        prepared = self.whole.window(start, shape)
        where, given = self.mask.canonical()
        if not (given.shape == prepared.shape if where is None else where.same_as(prepared)):
            raise self._other_grid(f"the scan ({self.grid}) and the prepared one ({prepared})")
        return given

    def _field(self) -> Array:
        """Where on `whole` there is something of the scan: everywhere, unless it was sheared."""
        if self.grid.orthogonal:
            return np.ones(self.whole.shape, bool)
        return self._laid(np.ones(self.grid.shape, bool))

    def _laid(self, mask: Array) -> Array:
        if self.whole is self.grid:
            return mask
        return np.asarray(resample(mask.astype(np.uint8), self.grid, self.whole, order=0) != 0)

    def _other_grid(self, other: str) -> ScanError:
        assert isinstance(self.mask, GivenMask)
        where, given = self.mask.canonical()
        return ScanError(
            self.name,
            f"the mask {self.mask.name} ({where or 'an array of shape ' + by(given.shape)}) has "
            f"another grid than {other}",
            "Resample it onto one of them, or choose voxel_size and shape to give scans its grid.",
        )

    def _empty(self) -> ScanError:
        told = self.mask.name if isinstance(self.mask, GivenMask) else repr(self.mask)
        return ScanError(
            self.name,
            f"the mask {told} is empty: no voxel of this scan is in it",
            "Look at where the scan lies, choose another mask, or leave the scan out.",
        )


def _ends(mask: Array, axis: int) -> tuple[int, int]:
    """The first index along the axis at which the mask has voxels, and the one past the last."""
    others = tuple(other for other in range(3) if other != axis)
    (along,) = mask.any(axis=others).nonzero()
    return int(along[0]), int(along[-1]) + 1
