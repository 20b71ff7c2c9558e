"""Paths to images: which files a glob or a folder has, and what their names say."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path

from nidl_core.errors import DataError
from nidl_neuro.errors import ScanError
from nidl_neuro.nifti import nearest_folder

_ENTITY = re.compile(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)(?=_|\.|$)")
_SET_APART = ("derivatives", "sourcedata")  # of BIDS: images made from, or before, the raw ones


def is_image_name(name: object) -> bool:
    """Whether this is a str or path that ends in .nii or .nii.gz."""
    return isinstance(name, (str, os.PathLike)) and str(name).lower().endswith((".nii", ".nii.gz"))


def has_magic(name: str) -> bool:
    """Whether this is a glob: a name with *, ? or [...] that no file has."""
    return glob.has_magic(name) and not os.path.lexists(name)


def matched(pattern: str) -> tuple[list[Path], list[str]]:
    """The images that a glob leads to, in natural order, and a note on other files, if there are any.

    Raises `DataError` if it leads to none.
    """
    found = glob.glob(pattern, recursive=True)
    images = natural(Path(name) for name in found if is_image_name(name))
    if not images:
        folder = nearest_folder(Path(pattern))
        matches = f"; it matches {_some(map(Path, found))}" if found else ""
        raise DataError(
            f"no .nii or .nii.gz file matches {pattern!r}{matches}. The nearest folder that there is, "
            f"{folder}, {_held(folder)}."
        )
    others = len(found) - len(images)
    return images, [f"{others} of what {pattern!r} matches are no .nii or .nii.gz files"] * bool(
        others
    )


def images_below(folder: Path, pattern: str | None = None) -> list[Path]:
    """The images in a folder and below it, in natural order.

    Hidden files and folders, and `derivatives` and `sourcedata` right below it, are left out.
    `pattern` is a glob for the file's name. Raises `DataError` if there are none, and `ScanError` for
    a folder that cannot be read: what is in it would be missing without a word.
    """
    images = []
    for where, folders, files in os.walk(folder, onerror=_unreadable):
        apart = _SET_APART if Path(where) == folder else ()
        folders[:] = [name for name in folders if name not in apart and not name.startswith(".")]
        images += [
            Path(where, name)
            for name in files
            if is_image_name(name) and not name.startswith(".") and fnmatch(name, pattern or "*")
        ]
    if not images:
        named = f" named {pattern!r}" if pattern else ""
        raise DataError(
            f"no .nii or .nii.gz file{named} in the folder {folder}, nor below it. It holds "
            f"{_some(folder.iterdir())}."
        )
    return natural(images)


def common_folder(names: Iterable[Path]) -> Path | None:
    """The folder that these paths and globs have in common, before any *, ? or [.

    Of one path alone it is the root: no folder's name can say the same of two scans.
    """
    full = [Path(os.path.abspath(name)) for name in names]
    if len(full) == 1 and not has_magic(str(full[0])):
        return Path(full[0].anchor)
    starts = [
        Path(*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])) for path in full
    ]
    try:
        return Path(os.path.commonpath(starts))
    except ValueError:  # there are none, or they lie on several drives
        return None


def entities(path: Path, below: Path | None = None) -> dict[str, str]:
    """The BIDS entities in a file's name: sub-01_ses-2_T1w.nii.gz -> {"sub": "01", "ses": "2"}.

    `sub` and `ses` may stand in the names of its folders instead, as far as they lie in `below`; the
    nearest one counts.
    """
    found = dict(_ENTITY.findall(path.name))
    for folder in reversed(_folders(path, below)):
        for key, value in _ENTITY.findall(folder):
            if key in ("sub", "ses"):
                found.setdefault(key, value)
    first = {key: found[key] for key in ("sub", "ses") if key in found}
    return {**first, **found}


def label(identifiers: dict[str, str]) -> str:
    """sub-01_ses-2, as far as there is any."""
    return "_".join(f"{key}-{identifiers[key]}" for key in ("sub", "ses") if key in identifiers)


def stem(path: Path) -> str:
    """The file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def natural(paths: Iterable[Path]) -> list[Path]:
    """Sorted as a person would: 2 before 10."""
    return sorted(
        paths,
        key=lambda path: [
            (1, int(part), "") if part.isdigit() else (0, 0, part)
            for part in re.split(r"(\d+)", str(path))
        ],
    )


def unique(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """The names if no two are equal, otherwise the paths below the folder that all have in common."""
    if len(set(names)) == len(names):
        return list(names)
    full = [Path(os.path.abspath(path)) for path in paths]
    common = os.path.commonpath([path.parent for path in full])
    below = [path.relative_to(common) for path in full]
    short = [path.with_name(stem(path)).as_posix() for path in below]
    return short if len(set(short)) == len(short) else [path.as_posix() for path in below]


def _folders(path: Path, below: Path | None) -> tuple[str, ...]:
    """The names of the folders from there down to the file; none if it does not lie there."""
    if below is None:
        return ()
    above, folder = Path(os.path.abspath(below)), Path(os.path.abspath(path)).parent
    return folder.relative_to(above).parts if folder.is_relative_to(above) else ()


def _unreadable(err: OSError) -> None:
    raise ScanError(
        err.filename,
        f"the folder cannot be read: {err.strerror}",
        "Ask its owner for the right to read it, or hand in a glob without it.",
    ) from err


def _held(folder: Path) -> str:
    try:
        return f"holds {_some(folder.iterdir())}"
    except PermissionError:
        return "cannot be read: permission denied"


def _some(found: Iterable[Path]) -> str:
    names = [path.name for path in natural(found)]
    if not names:
        return "nothing"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
