"""One NIfTI file, read to its end and checked: what is wrong with it is told with its name.

nibabel alone notices neither a gzip stream that was changed nor one that lacks its last bytes (it
stops reading before the checksum), and replaces voxel sizes of zero. So the bytes are read here.
"""

from __future__ import annotations

import functools
import gzip
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, ImageDataError, SpatialImage

from nidl_neuro.errors import ScanError

_AGAIN = "Copy or download the file again."
_VOLUMES = "Hand in the path of this file alone to take each volume as a scan, or average the volumes first."
_KINDS: dict[bytes, tuple[int, Any]] = {
    b"n+1\0": (344, nib.Nifti1Image),
    b"n+2\0": (4, nib.Nifti2Image),
}
_HEADERS = {b"ni1\0": 344, b"ni2\0": 4}  # a header file, whose voxels lie in another one


def check_present(path: Path) -> None:
    """Raise `ScanError` unless there is a file with something in it."""
    with _readable(path):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ScanError(path, "it is a folder, not a file", "Name the image file in it.")
        if not found.st_size:
            raise ScanError(path, "the file is empty", _AGAIN)


def shape_of(path: Path) -> tuple[int, ...]:
    """The axes that the header announces, without trailing ones of length 1 after the third."""
    check_present(path)
    with _readable(path), _stream(path) as file:
        return _squeezed(_header(path, file)[1].get_data_shape())


def load(path: Path, volume: int | None = None) -> SpatialImage:
    """The image in the file, or one volume of a 4-D file: 3 axes. The whole file is read and checked."""
    check_present(path)
    with _readable(path):
        if volume is not None:
            return _volume(path, volume)
        with _stream(path) as file:
            kind, header = _header(path, file)
            check_axes(path, header.get_data_shape())
            file.seek(0)
            content = file.read()
        _check_length(path, header, len(content))
        return squeezed(kind.from_bytes(content))


def check_axes(name: object, shape: tuple[int, ...]) -> None:
    """Raise `ScanError` unless this is the shape of a 3-D image, trailing axes of length 1 aside."""
    axes = _squeezed(shape)
    if 0 in axes:
        raise ScanError(name, f"an axis has no voxels: shape {axes}", _AGAIN)
    if len(axes) == 4:
        raise ScanError(name, f"the image is 4-D: shape {axes}, where 3 axes are wanted", _VOLUMES)
    if len(axes) != 3:
        raise ScanError(
            name,
            f"the image is {len(axes)}-D: shape {axes}, where 3 axes are wanted",
            "Leave it out, or save it as a 3-D image.",
        )


def squeezed(image: SpatialImage) -> SpatialImage:
    """The image without trailing axes of length 1 after the third."""
    if len(image.shape) <= 3 or _squeezed(image.shape) == image.shape:
        return image
    return image.__class__(
        np.asanyarray(image.dataobj).reshape(_squeezed(image.shape)), image.affine, image.header
    )


def volume_of(image: SpatialImage, volume: int) -> SpatialImage:
    """One volume of a 4-D image, read into memory."""
    return squeezed(image.slicer[:, :, :, volume])


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = tuple(int(n) for n in shape)
    while len(axes) > 3 and axes[-1] == 1:
        axes = axes[:-1]
    return axes


def _volume(path: Path, volume: int) -> SpatialImage:
    found = path.stat()
    if _is_gzip(path):
        stamp = (found.st_size, found.st_mtime_ns, found.st_ino)
        return volume_of(_unpacked(path, stamp), volume)
    with path.open("rb") as file:
        return volume_of(_announced(path, file, found.st_size), volume)


@functools.lru_cache(maxsize=1)  # volumes are asked for in order: the stream goes on from the last
def _unpacked(path: Path, stamp: tuple[int, ...]) -> Any:
    file = gzip.open(path)  # noqa: SIM115 - it stays open with the image
    length = 0
    while piece := file.read(2**20):  # to the end, where the checksum stands
        length += len(piece)
    return _announced(path, file, length)


def _announced(path: Path, file: Any, length: int) -> Any:
    file.seek(0)
    kind, header = _header(path, file)
    _check_length(path, header, length)
    file.seek(0)
    return kind.from_stream(file)


def _header(path: Path, file: IO[bytes]) -> tuple[Any, Any]:
    """The class of image and its header, as it stands in the file."""
    head = file.read(540)
    for magic, (at, kind) in _KINDS.items():
        if head[at : at + 4] == magic and len(head) >= kind.header_class.sizeof_hdr:
            header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
            _check_header(path, header)
            return kind, header
    if any(head[at : at + 4] == magic for magic, at in _HEADERS.items()):
        raise ScanError(
            path,
            "it is the header of a two-file image (.hdr and .img)",
            "Save the image as one .nii.gz file.",
        )
    if head[128:132] == b"DICM":
        raise ScanError(
            path, "it is a DICOM file, not a NIfTI image", "Convert it, by dcm2niix for example."
        )
    begins = repr(head[:12]) if any(head) else f"{len(head)} zeros"
    raise ScanError(
        path,
        f"it is not a NIfTI image: it begins with {begins}",
        "Leave it out, or convert it to .nii.gz.",
    )


def _check_header(path: Path, header: Any) -> None:
    dims = int(header["dim"][0])
    if not 1 <= dims <= 7 or (header["dim"][1 : dims + 1] < 0).any():
        raise ScanError(path, f"its header is damaged: dim is {header['dim'].tolist()}", _AGAIN)
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as err:
        code = int(header["datatype"])
        raise ScanError(path, f"its header is damaged: datatype is {code}", _AGAIN) from err
    if dtype.kind not in "iuf":
        raise ScanError(
            path,
            f"its voxels are {header.get_value_label('datatype')}, not real numbers",
            "Save one real value a voxel.",
        )
    sizes = header["pixdim"][1 : 1 + min(dims, 3)].tolist()
    if not all(math.isfinite(size) and size for size in sizes):
        told = " x ".join(f"{size:g}" for size in sizes)
        raise ScanError(
            path,
            f"its header gives a voxel size of {told} mm",
            "Write the true voxel size into its header.",
        )
    if not math.isfinite(offset := float(header["vox_offset"])):
        raise ScanError(path, f"its header is damaged: vox_offset is {offset}", _AGAIN)
    try:
        header.get_best_affine()
    except ValueError as err:
        raise ScanError(
            path, "its header is damaged: its quaternion is longer than 1", _AGAIN
        ) from err


def _check_length(path: Path, header: Any, length: int) -> None:
    wanted = int(header.get_data_offset()) + (
        math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
    )
    if length < wanted:
        raise ScanError(
            path,
            f"the file ends early: {length} bytes of the {wanted} that its header announces",
            _AGAIN,
        )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _stream(path: Path) -> IO[bytes]:
    """The file's content, unpacked if it is packed, whatever its name says."""
    return cast("IO[bytes]", gzip.open(path)) if _is_gzip(path) else path.open("rb")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Tell what went wrong while reading, with the file's name; nibabel's own words are kept off."""
    try:
        yield
    except FileNotFoundError as err:
        if path.is_symlink():
            there = f"it is a link to {os.readlink(path)}, where there is no file"
            raise ScanError(
                path, there, "Of a DataLad data set, get it first: datalad get."
            ) from err
        raise ScanError(path, "there is no such file", _near(path)) from err
    except PermissionError as err:
        raise ScanError(
            path,
            "the file cannot be read: permission denied",
            "Ask its owner for the right to read it.",
        ) from err
    except EOFError as err:
        raise ScanError(path, "the file ends early: its gzip stream is truncated", _AGAIN) from err
    except (gzip.BadGzipFile, zlib.error) as err:
        raise ScanError(path, f"its gzip stream is damaged ({err})", _AGAIN) from err
    except (HeaderDataError, ImageDataError, ImageFileError) as err:
        raise ScanError(path, f"its header is damaged: {err}", _AGAIN) from err
    except OSError as err:
        raise ScanError(
            path,
            f"the file cannot be read: {err.strerror or err}",
            "Check the disk that it lies on.",
        ) from err


def _near(path: Path) -> str:
    """What to do about a missing path: its nearest folder that there is."""
    folder = nearest_folder(path)
    if folder == Path(os.path.abspath(path)).parent:
        return f"Look into its folder, which is there: {folder}."
    return f"The nearest folder that there is: {folder}."


def nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    parent = Path(os.path.abspath(path)).parent
    return next(folder for folder in [parent, *parent.parents] if os.path.isdir(folder))
