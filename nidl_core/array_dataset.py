"""Rows that say how they were made, and which of their positions count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from nidl_core.errors import DataError


class ArrayDataset(Dataset[Any]):
    """Rows of an array, or of a file mapped into memory, that say how they were made.

    `data[3]` is a row, `data[[0, 2]]`, `data[:5]` and a `torch.utils.data.Subset` are some of them
    with the same spec and mask: cross-validation by scikit-learn works as on arrays.

    Parameters
    ----------
    x : array (N, C, *S) or (N, features)
        Read a batch at a time: an array, or anything that has its shape and gives arrays of rows
        for slices and arrays of indices.
    spec : plain data, optional
        Kept as `data_spec_` by the estimator that is fitted on these rows, and in its model file;
        the hook `nidl_as_dataset` gets it for further data. A key "made_by" names the distribution
        whose hook that is.
    mask : bool array (*S), optional
        Which positions count: the likelihood leaves out the others.
    notes : iterable of str
        What a person should know of them: what was left out, say. Logged where a hook made them.
    """

    def __init__(
        self, x: Any, *, spec: Any = None, mask: Any = None, notes: Iterable[str] = ()
    ) -> None:
        self.x, self.spec, self.notes = x, spec, tuple(notes)
        self.mask = None if mask is None else torch.as_tensor(mask)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, *S), or (N, features)."""
        return tuple(self.x.shape)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple) and len(index) == 2 and index[1] is Ellipsis:
            index = index[0]  # as scikit-learn takes rows
        if isinstance(index, (slice, Sequence)) or np.ndim(index):
            return self.take(np.arange(len(self))[index])
        return as_tensor(np.array(self.x[index]))

    def take(self, rows: Any) -> ArrayDataset:
        """The rows at these indices (n,), read as they are needed."""
        return ArrayDataset(_Taken(self.x, rows), spec=self.spec, mask=self.mask)

    def check_like(self, spec: Any) -> None:
        """Raise `DataError` unless these rows were made as `spec` says of those of the fit."""
        if self.spec is None or self.spec == spec:
            return
        told = ""
        if isinstance(spec, Mapping) and isinstance(self.spec, Mapping):
            other = [key for key in {**spec, **self.spec} if spec.get(key) != self.spec.get(key)]
            told = f" (they differ in {', '.join(map(str, other))})"
        raise DataError(
            f"the data were made otherwise than those of the fit{told}. Make them by the model's data_spec_."
        )


class _Taken:
    """Some rows of an array-like, in an order of their own."""

    def __init__(self, x: Any, rows: Any) -> None:
        self._x, self._rows = x, np.asarray(rows)
        self.shape = (len(self._rows), *x.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._x[self._rows[index]]


def described(data: Any) -> tuple[Any, Tensor | None]:
    """`spec` and `mask` of a data set, or of those behind a Subset or ConcatDataset; None where it has none.

    Raises `DataError` for an impossible mask, and for sets put together that were made in several ways.
    """
    if isinstance(data, Subset):
        return described(data.dataset)
    if isinstance(data, ConcatDataset):
        first, *others = [described(part) for part in data.datasets]
        if not all(_same(first, other) for other in others):
            raise DataError(
                "the data sets that were put together were made in different ways, or have different "
                "masks. Make one of them all."
            )
        return first
    mask = getattr(data, "mask", None)
    if not isinstance(data, ArrayDataset):
        mask = mask if isinstance(mask, Tensor) else None
    if mask is not None and (mask.dtype != torch.bool or not bool(mask.any())):
        raise DataError(
            f"the mask of the data must be bool, True somewhere, got {mask.dtype} with "
            f"{int((mask != 0).sum())} positions that count."
        )
    return getattr(data, "spec", None), mask


def _same(one: tuple[Any, Tensor | None], other: tuple[Any, Tensor | None]) -> bool:
    masks = one[1], other[1]
    if (masks[0] is None) != (masks[1] is None):
        return False
    return one[0] == other[0] and (masks[0] is None or torch.equal(*masks))  # type: ignore[arg-type]


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor of the array's values, without a copy where torch knows the form."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype in (np.longdouble, np.uint16, np.uint32, np.uint64):
        array = array.astype(np.float64)  # torch has no, or hardly any, operations on these
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)
