"""Anything a user holds becomes batches of x, or is refused in words that say what to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import BaseEstimator
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from nidl_core.data import Batches, Data, Items, Rows, as_data, input_of, is_loader
from nidl_core.errors import DataError, DataTypeError, NidlError

VALUES = np.arange(1, 31, dtype=np.float32).reshape(5, 1, 2, 3)


class Pairs(Dataset[Any]):
    """A map-style data set of (x, y)."""

    def __init__(self, values: Any = VALUES) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Any:
        return torch.as_tensor(self.values[i]), i


class Stream(IterableDataset[Any]):
    def __init__(self, values: Any = VALUES) -> None:
        self.values = values

    def __iter__(self) -> Iterator[Any]:
        return iter(torch.from_numpy(self.values.copy()))


class Loader:
    """No torch loader: any iterable of batches that can be read twice."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def read(x: Any, **kwargs: Any) -> Data:
    return as_data(x, BaseEstimator(), reset=True, **kwargs)


def rows(data: Data, batch_size: int = 2) -> Tensor:
    return torch.cat([input_of(batch) for batch in data.in_order(batch_size, 0)])


def memmap(folder: Path, array: np.ndarray[Any, Any]) -> Any:
    np.save(folder / "x.npy", array)
    return np.load(folder / "x.npy", mmap_mode="r")


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


INPUTS: dict[str, tuple[Callable[[Path], Any], type[Data], bool]] = {
    "float32": (lambda _: VALUES, Rows, True),
    "float64": (lambda _: VALUES.astype("f8"), Rows, True),
    "float16": (lambda _: VALUES.astype("f2"), Rows, True),
    "long double": (lambda _: VALUES.astype(np.longdouble), Rows, True),
    "big-endian": (lambda _: VALUES.astype(">f4"), Rows, True),
    "big-endian ints": (lambda _: VALUES.astype(">i2"), Rows, True),
    **{
        name: (lambda _, name=name: VALUES.astype(name), Rows, True)  # type: ignore[misc]
        for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    },
    "negative strides": (lambda _: VALUES[::-1, :, :, ::-1].copy()[::-1, :, :, ::-1], Rows, True),
    "Fortran order": (lambda _: np.asfortranarray(VALUES), Rows, True),
    "strided": (lambda _: np.repeat(VALUES, 2, axis=0)[::2], Rows, True),
    "read-only": (lambda _: read_only(VALUES), Rows, True),
    "memmap": (lambda d: memmap(d, VALUES), Rows, True),
    "memmap uint16": (lambda d: memmap(d, VALUES.astype("u2")), Rows, True),
    "memmap big-endian": (lambda d: memmap(d, VALUES.astype(">f4")), Rows, True),
    "nested lists": (lambda _: VALUES.tolist(), Rows, True),
    "list of arrays": (lambda _: list(VALUES), Rows, True),
    "path": (lambda d: memmap(d, VALUES) is None or d / "x.npy", Rows, True),
    "path as str": (lambda d: memmap(d, VALUES) is None or str(d / "x.npy"), Rows, True),
    "tensor": (lambda _: torch.from_numpy(VALUES), Rows, False),
    "float64 tensor": (lambda _: torch.from_numpy(VALUES).double(), Rows, False),
    "bfloat16 tensor": (lambda _: torch.from_numpy(VALUES).bfloat16(), Rows, False),
    "int tensor": (lambda _: torch.from_numpy(VALUES).long(), Rows, False),
    "non-contiguous tensor": (lambda _: torch.from_numpy(VALUES).mT.contiguous().mT, Rows, False),
    "tensor with gradient": (
        lambda _: torch.from_numpy(VALUES.copy()).requires_grad_(),
        Rows,
        False,
    ),
    "TensorDataset": (lambda _: TensorDataset(torch.from_numpy(VALUES)), Rows, False),
    "TensorDataset with labels": (
        lambda _: TensorDataset(torch.from_numpy(VALUES), torch.arange(5)),
        Rows,
        False,
    ),
    "Dataset": (lambda _: Pairs(), Items, False),
    "Dataset of arrays": (lambda _: Subset(VALUES, range(5)), Items, False),
    "Subset": (lambda _: Subset(Pairs(np.concatenate([VALUES, VALUES])), range(5)), Items, False),
    "ConcatDataset": (
        lambda _: ConcatDataset([Pairs(VALUES[:2]), Pairs(VALUES[2:])]),
        Items,
        False,
    ),
    "IterableDataset": (lambda _: Stream(), Items, False),
    "DataLoader": (lambda _: DataLoader(torch.from_numpy(VALUES), batch_size=2), Batches, False),
    "DataLoader of (x, y)": (lambda _: DataLoader(Pairs(), batch_size=3), Batches, False),
    "DataLoader without batches": (
        lambda _: DataLoader(torch.from_numpy(VALUES).split(2), batch_size=None),
        Batches,
        False,
    ),
    "DataLoader of a stream": (lambda _: DataLoader(Stream(), batch_size=2), Batches, False),
    "own loader": (lambda _: Loader(*torch.from_numpy(VALUES).split(2)), Batches, False),
    "own loader of arrays": (lambda _: Loader(VALUES[:3], VALUES[3:]), Batches, False),
    "own loader of lists": (
        lambda _: Loader(*([b, "a label"] for b in torch.from_numpy(VALUES).split(2))),
        Batches,
        False,
    ),
}


@pytest.mark.parametrize(("make", "kind", "as_array"), INPUTS.values(), ids=INPUTS)
def test_every_input_gives_its_rows_in_order_again_and_again(
    tmp_path: Path, make: Callable[[Path], Any], kind: type[Data], as_array: bool
) -> None:
    data = read(make(tmp_path))
    assert type(data) is kind
    assert data.as_array is as_array
    expected = torch.from_numpy(VALUES)
    for _ in range(2):
        torch.testing.assert_close(rows(data).float(), expected, rtol=0, atol=0)
    sample = data.sample()
    assert not sample.requires_grad
    torch.testing.assert_close(sample.float(), expected[:1], rtol=0, atol=0)


@pytest.mark.parametrize(("make", "kind", "as_array"), INPUTS.values(), ids=INPUTS)
def test_every_input_trains_on_each_row_once_an_epoch(
    tmp_path: Path, make: Callable[[Path], Any], kind: type[Data], as_array: bool
) -> None:
    loader = read(make(tmp_path)).loader(2, 0, shuffle=True)
    for _ in range(2):
        found = torch.cat([input_of(batch).float() for batch in loader])
        assert sorted(found[:, 0, 0, 0].tolist()) == VALUES[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(("make", "kind", "as_array"), INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("world", [2, 3, 7])
def test_processes_share_the_batches_of_every_input(
    tmp_path: Path, make: Callable[[Path], Any], kind: type[Data], as_array: bool, world: int
) -> None:
    data = read(make(tmp_path))
    parts = [[input_of(b) for b in data.in_order(2, 0, rank, world)] for rank in range(world)]
    # Rank r holds the batches r, r + world, ...: interleaved, they are all rows in order.
    interleaved = [b for group in itertools.zip_longest(*parts) for b in group if b is not None]
    torch.testing.assert_close(
        torch.cat(interleaved).float(), torch.from_numpy(VALUES), rtol=0, atol=0
    )
    assert len(interleaved) == len(list(data.in_order(2, 0)))


@pytest.mark.parametrize("name", ["read-only", "memmap", "float32"])
def test_writing_into_a_batch_does_not_reach_read_only_data(tmp_path: Path, name: str) -> None:
    source = INPUTS[name][0](tmp_path)
    if name == "float32":
        source = read_only(source)[:3]
    before = np.array(source)
    data = read(source)
    data.sample().zero_()
    for batch in data.in_order(2, 0):
        batch.zero_()
    for batch in data.loader(2, 0, shuffle=True):
        batch.zero_()
    np.testing.assert_array_equal(source, before)


def test_a_data_frame_is_an_array_with_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]})
    estimator = BaseEstimator()
    data = as_data(frame, estimator, reset=True)
    assert isinstance(data, Rows)
    assert data.as_array
    assert rows(data).tolist() == frame.to_numpy().tolist()
    assert list(estimator.feature_names_in_) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        as_data(frame[["b", "a"]], estimator)


def test_rows_and_data_are_not_wrapped_twice() -> None:
    data = read(VALUES)
    assert as_data(data, BaseEstimator()) is data


def test_a_memory_mapped_array_stays_on_disk(tmp_path: Path) -> None:
    for dtype in ("f4", "u2"):
        data = read(memmap(tmp_path, VALUES.astype(dtype)))
        assert isinstance(data, Rows)
        assert isinstance(data.x, np.memmap)
        assert data.x.dtype == dtype


def test_features_are_recorded_then_compared() -> None:
    estimator = BaseEstimator()
    as_data(np.ones((3, 4)), estimator, reset=True)
    assert estimator.n_features_in_ == 4
    with pytest.raises(ValueError, match="expecting 4 features"):
        as_data(np.ones((3, 5)), estimator)


def test_a_subclass_of_tensor_dataset_keeps_its_own_items() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            return tuple(2 * t for t in super().__getitem__(index))

    data = read(Doubled(torch.from_numpy(VALUES)))
    torch.testing.assert_close(rows(data), 2 * torch.from_numpy(VALUES))


def nan(dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    array = VALUES.astype(dtype)
    array[1, 0, 0, 0] = np.nan
    return array


REFUSED: dict[str, tuple[Callable[[], Any], Any, str | None]] = {
    "None": (lambda: None, DataTypeError, "cannot read data from NoneType"),
    "generator": (lambda: (b for b in VALUES), DataTypeError, "a generator can be read only once"),
    "iterator": (lambda: iter(VALUES), DataTypeError, "make it an IterableDataset"),
    "dict": (lambda: {"x": VALUES}, DataTypeError, "cannot read data from dict"),
    "str": (lambda: "images/", DataTypeError, "Hand in an array, a tensor, a Dataset"),
    "bytes": (lambda: b"x", DataTypeError, "cannot read data from bytes"),
    "number": (lambda: 3.0, ValueError, "Expected 2D array, got scalar array"),
    "object": (object, (TypeError, ValueError), None),
    "set": (lambda: {1, 2}, (TypeError, ValueError), None),
    "sparse matrix": (lambda: scipy.sparse.csr_matrix(np.eye(3)), TypeError, "[Ss]parse"),
    "sparse array": (lambda: scipy.sparse.csr_array(np.eye(3)), TypeError, "[Ss]parse"),
    "sparse tensor": (lambda: torch.eye(3).to_sparse(), (DataError, TypeError), "[Ss]parse"),
    "NaN": (nan, ValueError, "contains NaN"),
    "NaN tensor": (lambda: torch.from_numpy(nan()), DataError, "contains NaN"),
    "NaN TensorDataset": (
        lambda: TensorDataset(torch.from_numpy(nan())),
        DataError,
        "contains NaN",
    ),
    "infinity": (lambda: np.full((2, 2), np.inf), ValueError, "infinity"),
    "infinite tensor": (lambda: torch.full((2, 2), torch.inf), DataError, "infinite"),
    "empty": (lambda: VALUES[:0], ValueError, "0 sample"),
    "empty tensor": (lambda: torch.zeros(0, 3), DataError, "the data are empty"),
    "no features": (lambda: np.zeros((3, 0)), ValueError, "0 feature"),
    "empty list": (list, ValueError, None),
    "empty TensorDataset": (lambda: TensorDataset(torch.zeros(0, 3)), DataError, "empty"),
    "empty Dataset": (lambda: Pairs(VALUES[:0]), DataError, "the data set is empty: 0 rows"),
    "empty DataLoader": (
        lambda: DataLoader(Pairs(VALUES[:2]), batch_size=3, drop_last=True),
        DataError,
        "drop_last with a batch size above it",
    ),
    "empty stream": (
        lambda: Stream(VALUES[:0]),
        DataError,
        "the data set is empty: it streams no rows",
    ),
    "empty loader": (Loader, DataError, "the loader is empty"),
    "empty image": (lambda: np.zeros((3, 1, 0, 4)), ValueError, "empty|0 feature"),
    "1-D": (lambda: np.ones(3), ValueError, "Expected 2D array, got 1D"),
    "1-D tensor": (lambda: torch.ones(3), DataError, "x\\[None\\] for one sample"),
    "0-D tensor": (lambda: torch.ones(()), DataError, "got \\(\\)"),
    "complex": (lambda: np.ones((2, 2), complex), ValueError, "Complex data"),
    "complex tensor": (lambda: torch.ones(2, 2, dtype=torch.complex64), DataError, "complex data"),
    "strings": (lambda: np.array([["a", "b"]]), ValueError, "could not convert|numeric"),
    "objects": (lambda: np.array([[object(), object()]]), (TypeError, ValueError), None),
    "ragged": (lambda: [[1, 2], [3]], ValueError, "inhomogeneous|sequence"),
    "loader of dicts": (
        lambda: Loader({"x": VALUES}),
        DataTypeError,
        "a batch must be a tensor x or",
    ),
    "loader of nothing": (lambda: Loader([]), DataTypeError, "a batch must be a tensor"),
}


@pytest.mark.parametrize(("make", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_data_is_refused(
    make: Callable[[], Any], error: Any, text: str | None
) -> None:
    with pytest.raises(error, match=text):
        read(make()).sample()


@pytest.mark.parametrize(
    "array",
    [np.ones(4), np.ones((2, 2), complex), np.array([["a", "b"]]), np.zeros((3, 0))],
    ids=["1-D", "complex", "strings", "no features"],
)
def test_what_is_refused_in_memory_is_refused_in_a_file(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    for source in (array, tmp_path / "x.npy"):
        with pytest.raises((NidlError, ValueError, TypeError)):
            read(source)


def test_an_npy_file_that_holds_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Array can't be memory-mapped|Object arrays|pickle"):
        read(tmp_path / "x.npy")


def test_a_missing_file_says_its_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.npy"):
        read(tmp_path / "gone.npy")


@pytest.mark.parametrize(
    ("batch", "kind"),
    [(torch.ones(2, 3), Tensor), ((torch.ones(2, 3), 1), Tensor), ([torch.ones(2, 3)], Tensor)],
)
def test_x_of_a_batch_is_the_batch_or_its_first_element(batch: Any, kind: type) -> None:
    assert isinstance(input_of(batch), kind)
    assert input_of(batch).shape == (2, 3)


@pytest.mark.parametrize(
    "batch", [{"x": torch.ones(2)}, "x", None, (), [], ("x", torch.ones(2)), 3]
)
def test_a_batch_that_holds_no_tensor_first_is_refused(batch: Any) -> None:
    with pytest.raises(DataTypeError, match="a batch must be a tensor x or \\(x, y, ...\\), got"):
        input_of(batch)


def test_what_counts_as_a_loader() -> None:
    assert is_loader(DataLoader(Pairs()))
    assert is_loader(Loader(VALUES))
    for other in (VALUES, [VALUES], (VALUES,), "x", {}, set(), iter([]), 3, scipy.sparse.eye(2)):
        assert not is_loader(other)


@pytest.mark.parametrize("sampler", ["shuffle", "sampler"])
def test_a_loader_in_an_order_of_its_own_warns_in_inference_only(sampler: str) -> None:
    if sampler == "shuffle":
        loader = DataLoader(Pairs(), batch_size=2, shuffle=True)
    else:
        loader = DataLoader(Pairs(), batch_size=2, sampler=[4, 3, 2, 1, 0])
    data = read(loader)
    assert data.loader(2, 0, shuffle=True) is loader
    with pytest.warns(UserWarning, match="the answer's rows are not in the data set's order"):
        data.in_order(2, 0)


def test_a_loader_that_drops_rows_warns_in_inference() -> None:
    data = read(DataLoader(Pairs(), batch_size=2, drop_last=True))
    with pytest.warns(UserWarning, match="drop_last=True"):
        data.in_order(2, 0)
    even = read(DataLoader(Pairs(VALUES[:4]), batch_size=2, drop_last=True))
    assert len(rows(even)) == 4  # nothing is dropped, so nothing is said


def test_a_sample_reads_one_row_only() -> None:
    class Counting(Pairs):
        read = 0

        def __getitem__(self, i: int) -> Any:
            self.read += 1
            return super().__getitem__(i)

    for wrap in (
        lambda d: d,
        lambda d: DataLoader(d, batch_size=4),
        lambda d: DataLoader(d, shuffle=True),
    ):
        counting = Counting()
        assert read(wrap(counting)).sample().shape == (1, 1, 2, 3)
        assert counting.read == 1


def test_workers_give_the_same_rows() -> None:
    data = read(Pairs())
    assert torch.equal(
        torch.cat([input_of(b) for b in data.in_order(2, 2)]),
        torch.cat([input_of(b) for b in data.in_order(2, 0)]),
    )
