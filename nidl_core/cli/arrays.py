"""Data in by path, arrays out to a `.npy` file: piece by piece, so that memory stays bounded."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nidl_core import hooks
from nidl_core.discovery import distributions
from nidl_core.errors import DataError, MissingFile, NidlError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PIECE = 64 * 2**20  # bytes of data at once, about


def open_data(given: Sequence[str], spec: Any = None) -> Any:
    """What the installed plugins make of a path, or of several: an array, tensor, Dataset or loader.

    `spec` is the `data_spec_` of a fitted model, or what a spec file says of the data. What the data
    note is told on stderr. Raises `DataError` if there is no such file, or none of them reads it.
    """
    paths = list(given)
    data = hooks.first("nidl_as_dataset", data=paths if paths[1:] else paths[0], spec=spec)
    for note in getattr(data, "notes", ()):
        print(f"nidl: {note}", file=sys.stderr)
    for path in paths if data is None else ():
        if not os.path.exists(path):
            raise MissingFile(f"there is no file {path}.")
    if data is None:
        more = f" and {len(paths) - 1} more" if paths[1:] else ""
        raise DataError(
            f"no installed plugin reads data from {paths[0]!r}{more}. Give one .npy file of shape "
            f"(N, C, *S), or (N, features){_scans_hint()}."
        )
    return data


def _scans_hint() -> str:
    if any(one.name == "nidl-neuro" for one in distributions()):
        return ", or scans as .nii or .nii.gz"
    return "; pip install nidl-neuro reads brain scans"


def check_there(paths: Sequence[str]) -> None:
    """Raise `MissingFile` for a `.npy` file that is not there, before torch is imported for it."""
    for path in paths:
        if path.endswith(".npy") and not os.path.exists(path):
            raise MissingFile(f"there is no file {path}.")


def add_skip_bad(command: argparse.ArgumentParser) -> None:
    """Add --skip-bad, which goes to whoever reads the data."""
    command.add_argument(
        "--skip-bad", action="store_true", help="leave out files that cannot be used, and list them"
    )


def spec_for(spec: Any, *, skip_bad: bool) -> Any:
    """What the hook `nidl_as_dataset` is told: the spec, and whether to leave out what is bad."""
    return {**(spec or {}), "skip_bad": True} if skip_bad else spec


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise `NidlError` unless `path` can be written as a `.npy` file."""
    if path.suffix != ".npy":
        raise NidlError(f"--out writes .npy files, got {path}. Name it {path.stem or 'out'}.npy.")
    if not path.parent.is_dir():
        raise NidlError(f"cannot write {path}: the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise NidlError(f"cannot write {path}: the folder {path.parent} is read-only.")
    if path.is_dir():
        raise NidlError(f"cannot write {path}: it is a folder.")
    if path.exists() and not overwrite:
        raise NidlError(f"{path} is there already. Choose another name, or say --overwrite.")


def in_pieces(data: Any, row: tuple[int, ...], batch_size: int) -> tuple[int | None, Iterator[Any]]:
    """The number of rows, and the data in pieces of some of their rows (float32, of shape `row`).

    A piece has whole batches, so that a batch is the same as without pieces, and so is its answer
    bit for bit. Loaders, and data sets that stream, stay whole: (None, them).
    """
    from torch.utils.data import Dataset, IterableDataset, Subset

    from nidl_core.data import ArrayDataset

    size = piece_of(row, batch_size)
    data = data.x if isinstance(data, ArrayDataset) else data
    if shape := getattr(data, "shape", None):
        total = shape[0]
        return total, (data[i : i + size] for i in range(0, max(1, total), size))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        total = len(data)  # type: ignore[arg-type]
        starts = range(0, max(1, total), size)  # an empty one is refused by the model
        return total, (Subset(data, range(i, min(i + size, total))) for i in starts)
    return None, iter([data])


def piece_of(row: tuple[int, ...], batch_size: int) -> int:
    """How many rows of this shape make a piece: some whole batches."""
    return batch_size * max(1, _PIECE // (4 * math.prod(row) * batch_size))


def write_rows(path: Path, rows: int | None, pieces: Iterable[Array]) -> tuple[int, ...]:
    """Write the pieces, one below the other, as one array; its shape.

    `rows` is their sum; None is for a single piece. The file takes its place in one step at the
    end: a failure leaves what was there before.
    """
    import numpy as np

    written = 0
    shape: tuple[int, ...] = ()
    with replacing(path) as file:
        for piece in pieces:
            if not written:
                shape = (len(piece) if rows is None else rows, *piece.shape[1:])
                descr = np.lib.format.dtype_to_descr(piece.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(piece).data)
            written += len(piece)
        if written != shape[0]:
            raise DataError(f"the data have {shape[0]} rows by their length, but gave {written}.")
    return shape


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` in one step at the end, or leaves no trace."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
