"""Files that appear whole or not at all, and that replace another only when asked to."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from nidl_core.errors import DataError


def check_free(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise `DataError` if any of these can not be written because something is there."""
    paths = list(paths)
    if folders := [path for path in paths if path.is_dir()]:
        raise DataError(f"cannot write {folders[0]}: it is a folder.")
    there = [] if overwrite else [path for path in paths if path.exists()]
    if there:
        more = f" and {len(there) - 1} more of {len(paths)} files are" if there[1:] else " is"
        raise DataError(
            f"{there[0]}{more} there already. Choose another name or folder, or say overwrite=True (--overwrite)."
        )


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path to write to, with the same ending, whose file takes the place of `path` at the end.

    Folders on the way are made. A failure leaves what was there before. Raises `DataError` if
    something is there and not to be replaced, or the disk refuses.
    """
    check_free([path], overwrite=overwrite)
    part = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        raise DataError(f"cannot write {path}: {err.strerror or err}.") from err
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
