"""Anything a user holds -> batches of x (N, C, *S).

`as_data` wraps it in one of three: `Rows` (held in memory, indexed a batch at a time), `Items`
(a Dataset) or `Batches` (a loader of the user's own). Each gives one sample to build networks for,
a loader to train with, and its rows in order, once, for inference; with several processes each
takes its share.
"""

from __future__ import annotations

import abc
import itertools
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from nidl_core import hooks
from nidl_core.array_dataset import ArrayDataset as ArrayDataset
from nidl_core.array_dataset import as_tensor, described
from nidl_core.errors import DataError, DataTypeError, HookError
from nidl_core.seeding import mix

_log = logging.getLogger(__name__)


class Data(abc.ABC):
    """One of the three, as estimators see it. `as_array`: answers go back as numpy arrays."""

    as_array = False
    spec: Any = None  # how the rows were made: see `ArrayDataset`
    mask: Tensor | None = None  # which positions count, bool (*S)

    @abc.abstractmethod
    def sample(self) -> Tensor:
        """The first row, as a batch of one: (1, C, *S)."""

    @abc.abstractmethod
    def loader(self, batch_size: int, num_workers: int, *, shuffle: bool) -> Any:
        """Batches for the Trainer; what is shuffled follows `Order.seed` and `Order.epoch`."""

    @abc.abstractmethod
    def in_order(
        self, batch_size: int, num_workers: int, rank: int = 0, world: int = 1
    ) -> Iterable[Any]:
        """Every `world`-th batch of the rows in order, from batch number `rank` on."""


class Order:
    """Which rows go into which batch of an epoch, for each process: a pure function of the seed.

    Training batches: every process gets the same number of rows, the first ones repeated where it
    does not divide. Validation (`shuffle=False`): every row once, in the same number of batches on
    every process, so that means weighted by batch size are exact.
    """

    def __init__(self, rows: int, batch_size: int, *, shuffle: bool) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = self.epoch = self.rank = 0
        self.world = 1

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    @property
    def _padded(self) -> bool:  # with fewer rows than processes, validation repeats some too
        return self.shuffle or self.rows < self.world

    def __len__(self) -> int:
        own = -(-self.rows // self.world) if self._padded else self.rows // self.world
        return -(-own // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.rows)
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
            order = torch.randperm(self.rows, generator=generator)
        if self._padded:
            total = -(-self.rows // self.world) * self.world
            order = order.repeat(-(-total // self.rows))[:total]
            yield from order[self.rank :: self.world].split(self.batch_size)
        else:
            yield from order[self.rank :: self.world].tensor_split(len(self))


class OrderedLoader:
    """Batches of a `Rows` or `Items` by an `Order`.

    No DataLoader by type, so that Lightning leaves it as it is: it splits by rank itself.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a `sampler`

    def __init__(self, source: Any, order: Order) -> None:
        self._source = source
        self.sampler = order  # where Lightning looks for `set_epoch`

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._source, Rows):
            for index in self.sampler:
                yield self._source.take(index)
        else:
            yield from self._source


class Rows(Data):
    """Rows (N, C, *S) of any real dtype, indexed a batch at a time.

    A tensor is used as it is. An array (read-only, or mapped from a file, perhaps larger than
    memory) stays where it is: batches are copies of its rows.
    """

    def __init__(self, x: Tensor | np.ndarray[Any, Any], *, as_array: bool = False) -> None:
        self.x = x
        self.as_array = as_array

    def sample(self) -> Tensor:
        return self.take(slice(0, 1)).clone()

    def loader(self, batch_size: int, num_workers: int, *, shuffle: bool) -> OrderedLoader:
        return OrderedLoader(self, Order(len(self.x), batch_size, shuffle=shuffle))

    def in_order(
        self, batch_size: int, num_workers: int, rank: int = 0, world: int = 1
    ) -> Iterator[Tensor]:
        for start in range(rank * batch_size, len(self.x), world * batch_size):
            batch = self.take(slice(start, start + batch_size))
            if not isinstance(self.x, Tensor):  # else they were checked when they were wrapped
                check_finite(batch)
            yield batch

    def take(self, index: slice | Tensor) -> Tensor:
        """These rows."""
        if isinstance(self.x, Tensor):
            return self.x[index]
        rows = self.x[index.numpy() if isinstance(index, Tensor) else index]
        return as_tensor(np.require(rows, requirements=["O", "W"]))  # views alone are copied


class Items(Data):
    """A Dataset of x or (x, y, ...), loaded by PyTorch's DataLoader."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self.spec, self.mask = described(dataset)
        self._streams = isinstance(dataset, IterableDataset)
        if not self._streams and len(dataset) == 0:  # type: ignore[arg-type]
            raise DataError("the data set is empty: 0 rows. Check the path or filter it came from.")

    def sample(self) -> Tensor:
        items: Any = self.dataset if self._streams else [self.dataset[0]]
        for item in items:
            return input_of(default_collate([item]))
        raise DataError("the data set is empty: it streams no rows. Check the path it reads from.")

    def loader(self, batch_size: int, num_workers: int, *, shuffle: bool) -> Any:
        if self._streams:
            return DataLoader(self.dataset, batch_size=batch_size, num_workers=num_workers)
        order = Order(len(self.dataset), batch_size, shuffle=shuffle)  # type: ignore[arg-type]
        batches = DataLoader(
            self.dataset,
            batch_sampler=_Lists(order),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )
        return OrderedLoader(batches, order)

    def in_order(
        self, batch_size: int, num_workers: int, rank: int = 0, world: int = 1
    ) -> Iterable[Any]:
        if self._streams:
            # Not by several workers: each would stream all rows.
            whole = DataLoader(self.dataset, batch_size=batch_size)
            return itertools.islice(whole, rank, None, world)
        rows = range(len(self.dataset))  # type: ignore[arg-type]
        starts = range(rank * batch_size, len(rows), world * batch_size)
        return DataLoader(
            self.dataset,
            batch_sampler=[list(rows[s : s + batch_size]) for s in starts],
            num_workers=num_workers,
        )


class Batches(Data):
    """A loader of the user's own: a DataLoader, or any iterable of batches that can be read twice."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.spec, self.mask = described(getattr(loader, "dataset", loader))
        try:
            empty = len(loader) == 0
        except TypeError:  # a stream's loader has a __len__ that raises
            empty = False
        if empty:
            raise DataError(
                "the loader is empty: it gives no batch. Check the data set's length, and drop_last "
                "with a batch size above it."
            )

    def sample(self) -> Tensor:
        loader = self._loader
        if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
            if not isinstance(loader.dataset, IterableDataset):  # one row: no need of a whole batch
                first = next(iter(loader.batch_sampler))[0]
                return input_of(loader.collate_fn([loader.dataset[first]]))[:1]
        for batch in loader:
            return input_of(batch)[:1].clone()
        raise DataError("the loader is empty: it gives no batch. Check the data set behind it.")

    def loader(self, batch_size: int, num_workers: int, *, shuffle: bool) -> Any:
        return self._loader

    def in_order(
        self, batch_size: int, num_workers: int, rank: int = 0, world: int = 1
    ) -> Iterable[Any]:
        loader = self._loader
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            _warn_of_lost_order(loader, len(loader.dataset))  # type: ignore[arg-type]
        return itertools.islice(loader, rank, None, world)


class _Lists:
    """An `Order` as DataLoader wants its batch sampler: lists of int."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[list[int]]:
        for index in self._order:
            yield index.tolist()


def as_data(x: Any, estimator: Any, *, reset: bool = False) -> Data:
    """Wrap whatever a user holds; `reset` records its features on the estimator, else compares.

    Raises `DataTypeError` for what cannot be data, `DataError` or (from scikit-learn's own checks
    of arrays) ValueError or TypeError for data that cannot be used.
    """
    if isinstance(x, Data):
        return x
    failed: HookError | None = None
    if not isinstance(x, (Tensor, np.ndarray, Dataset, DataLoader)):
        try:
            spec = None if reset else getattr(estimator, "data_spec_", None)
            answer = hooks.first("nidl_as_dataset", data=x, spec=spec)
            x = x if answer is None else answer
            for note in getattr(answer, "notes", ()):
                _log.warning("%s", note)
        except HookError as err:  # plugins that might have known what it is
            failed = err
    if type(x) is TensorDataset:  # a subclass may make its items otherwise
        return Rows(_checked(x.tensors[0]))
    if isinstance(x, Tensor):
        return Rows(_checked(x))
    if isinstance(x, Subset) and isinstance(x.dataset, ArrayDataset):
        x = x.dataset.take(x.indices)
    if not reset:
        _check_like(x, getattr(estimator, "data_spec_", None))
    if isinstance(x, ArrayDataset):
        rows = _dataset_rows(x, estimator, reset)
        rows.spec, rows.mask = described(x)
        return rows
    if isinstance(x, Dataset):
        return Items(x)
    if isinstance(x, DataLoader) or is_loader(x):
        return Batches(x)
    paths = isinstance(x, (list, tuple)) and any(isinstance(p, (str, os.PathLike)) for p in x)
    is_path = isinstance(x, (str, os.PathLike))
    if paths and all(isinstance(p, str) and len(p) == 1 for p in x):
        raise DataTypeError(
            f"got the letters of a path, {x!r:.60}: cross-validation takes rows by index, and a path has none. "
            "Hand it an array or a data set, such as nidl_neuro.scans(path)."
        )
    if x is None or paths or is_path or isinstance(x, (bytes, Mapping)) or hasattr(x, "__next__"):
        missing = " (there is no such file)" if is_path and not os.path.exists(x) else ""
        raise DataTypeError(
            f"cannot read data from {type(x).__name__} {x!r:.60}{missing}. Hand in an array, a tensor, a "
            "Dataset (for many files: one that loads a file an item), a DataLoader, or the path of one "
            ".npy file that holds all samples, (N, C, *S); a generator can be read only once: make it "
            f"an IterableDataset.{_maker_told(estimator)}{_also(failed)}"
        ) from failed
    try:
        return _array_rows(x, estimator, reset)
    except (TypeError, ValueError) as err:
        more = _maker_told(estimator) + _also(failed)
        if not more:
            raise
        raise DataTypeError(f"{err}{more}") from (failed or err)


def _check_like(x: Any, spec: Any) -> None:
    """Raise `DataError` if the rows say that they were made otherwise than those of the fit."""
    if isinstance(x, DataLoader):
        x = x.dataset
    while isinstance(x, Subset):
        x = x.dataset
    if spec is not None and isinstance(x, ArrayDataset):
        x.check_like(spec)


def _maker_told(estimator: Any) -> str:
    """What to install, where a fitted model's data came from a plugin that is not there."""
    spec = getattr(estimator, "data_spec_", None)
    maker = spec.get("made_by") if isinstance(spec, Mapping) else None
    if not isinstance(maker, str):
        return ""
    try:
        distribution(maker)
    except PackageNotFoundError:
        return (
            f" The model's data were read by {maker}, which is not installed: pip install {maker}"
        )
    return ""


def _also(failed: HookError | None) -> str:
    return "" if failed is None else f" Also, {failed}."


def plain_rows(x: Any) -> Rows:
    """Rows of a tensor, or of anything that numpy makes an array of. Raises `DataError`."""
    if isinstance(x, Tensor):
        return Rows(_checked(x))
    return Rows(_checked(as_tensor(np.asarray(x))), as_array=True)


def input_of(batch: Any) -> Tensor:
    """x of a batch: the batch itself, or the first of (x, y, ...)."""
    if isinstance(batch, (list, tuple)) and batch:
        batch = batch[0]
    if isinstance(batch, np.ndarray):
        batch = as_tensor(batch)
    if isinstance(batch, Tensor) and batch.is_complex():
        raise DataError(_COMPLEX)
    if not isinstance(batch, Tensor):
        raise DataTypeError(
            f"a batch must be a tensor x or (x, y, ...), got {type(batch).__name__}. Give the loader "
            "a collate_fn that returns the images as a tensor (N, C, *S)."
        )
    return batch


def is_loader(x: Any) -> bool:
    """An iterable of batches: it can be iterated again and again, and is no array or list."""
    return (
        hasattr(x, "__iter__")
        and not hasattr(x, "__next__")
        and not hasattr(x, "__array__")
        and not hasattr(x, "toarray")  # sparse matrices: scikit-learn's check words the refusal
        and not isinstance(x, (str, bytes, Sequence, Mapping, set))
    )


def _warn_of_lost_order(loader: DataLoader[Any], rows: int) -> None:
    texts = []
    if not isinstance(loader.sampler, SequentialSampler):
        texts.append(
            "the loader draws rows in an order of its own (shuffle=True or a sampler), so the answer's "
            "rows are not in the data set's order. Hand in the data set, or a loader with shuffle=False."
        )
    if loader.drop_last and rows % (loader.batch_size or 1):
        texts.append(
            "the loader drops its last, incomplete batch (drop_last=True), so those rows are missing in "
            "the answer. Hand in the data set, or a loader with drop_last=False."
        )
    for text in texts:
        warnings.warn(text, UserWarning, stacklevel=6)  # where transform or score was called


def check_finite(x: Tensor) -> None:
    """Raise `DataError` if x contains NaN or infinite values."""
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise DataError("x contains NaN or infinite values. Remove or impute them first.")


def _checked(x: Tensor) -> Tensor:
    if x.layout is not torch.strided:
        raise DataError(f"tensors of layout {x.layout} are not supported: hand in x.to_dense().")
    _check_form(tuple(x.shape), x.is_complex())
    check_finite(x)
    return x.detach()


def _check_form(shape: tuple[int, ...], is_complex: bool) -> None:
    if len(shape) < 2:
        raise DataError(
            f"expected x of shape (N, C, *S) or (N, features), got {shape}. Reshape it: "
            "x[None] for one sample, x[:, None] for one feature."
        )
    if is_complex:
        raise DataError(_COMPLEX)
    if 0 in shape:
        raise DataError(f"the data are empty: shape {shape}.")


def _dataset_rows(x: ArrayDataset, estimator: Any, reset: bool) -> Rows:
    """Rows of an array; of anything else that is indexed like one, read as they are needed."""
    if isinstance(x.x, (np.ndarray, Tensor)):
        return _array_rows(x.x, estimator, reset)
    _check_form(tuple(x.x.shape), False)
    return Rows(x.x, as_array=True)


def _array_rows(x: Any, estimator: Any, reset: bool) -> Rows:
    """Rows of an array, checked as scikit-learn checks it; a mapped one without reading it all."""
    mapped = isinstance(x, np.memmap)
    checks = {"skip_check_array": True} if mapped else {"allow_nd": True, "dtype": "numeric"}
    if reset or (getattr(x, "ndim", 2) <= 2 and len(getattr(estimator, "input_shape_", ())) <= 1):
        array = validate_data(estimator, x, reset=reset, **checks)
    else:  # images: their shape is compared whole, in words of our own
        array = x if mapped else check_array(x, allow_nd=True, estimator=estimator)
    if mapped and array.dtype.kind not in "biufc":
        raise DataTypeError(f"the file holds {array.dtype}, not numbers.")
    _check_form(array.shape, array.dtype.kind == "c")
    if mapped or not array.flags.writeable:
        return Rows(array, as_array=True)
    return Rows(as_tensor(array), as_array=True)


_COMPLEX = "complex data are not supported: hand in x.abs(), or real and imaginary parts."
